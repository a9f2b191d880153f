"""Networks that restore planes: given a plane with its neighbours as channels, or slabs of planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deepcontrast import registry
from deepcontrast.config import Config, Net
from deepcontrast.joined import own_first
from deepcontrast.normalize import Norm
from deepcontrast.task import Geometry, Source


class Planes(Protocol):
    """What a fit says of the planes that its network is given.

    Attributes:
        layers: planes that the network is given for each one, relative to it; itself in their middle.
        in_space: whether the network is one in space, trained on slabs of so many planes; else they are its channels.
        norm: what is done to grey values before the network.
    """

    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def in_space(self) -> bool: ...
    @property
    def norm(self) -> Norm: ...


@dataclass(frozen=True)
class Together:
    """One of several channels that one network is given and restores together.

    Attributes:
        channel: its number.
        norms: of every channel, what is done to its grey values before the network.
    """

    channel: int
    norms: tuple[Norm, ...]


def layers_of(sources: Sequence[Source], net: Net) -> tuple[int, ...]:
    """Return the planes that the network is given, relative to the one it restores: about a pixel apart, or more.

    Planes closer than that are the same structure, and their noise is all they add. A slab has all of its planes, and
    every one of them once; one that is pooled along Z is as long as that needs, and pooled less where stacks are thin.
    """
    context, fewest = net.context, min(len(source.depth) for source in sources)
    if net.dims == 3:
        for times in range(net.pool_z, 0, -1):
            half = min(2 * context, fewest) // 2**times * 2**times // 2
            if half:
                return tuple(range(-half, half))
        reach = min(context, (fewest - 1) // 2)
        return tuple(range(-reach, reach + 1))
    axial, _, lateral = sources[0].stack.optics.voxel_size
    apart = max(1, round(lateral / axial)) if axial and lateral else 1
    reach = min(context, (fewest - 1) // apart)
    return tuple(apart * n for n in range(-reach, reach + 1))


def build(fit: Planes, config: Config, channels: int = 1) -> nn.Module:
    """Return the network of the ``[net]`` table, given and restoring so many channels."""
    net = config.net
    settings = net.model_dump(include={"depth", "features", "kernel", "bias", "residual", "last", "narrow"})
    form: dict[str, Any] = {"channels": channels * len(fit.layers), "outputs": channels}
    if fit.in_space:
        # As often as the slab can be halved.
        pool_z = next(n for n in range(net.pool_z, -1, -1) if len(fit.layers) % 2**n == 0)
        form |= {"dims": 3, "channels": channels, "pool_z": pool_z}
    form["probabilistic"] = config.train.loss == "laplace"
    module: nn.Module = registry.load("nets", net.name)(**settings, **form)
    return module


def geometry(net: nn.Module, fit: Planes, config: Config) -> Geometry:
    """Return how planes, with their neighbours, may be cut."""
    halo, step, channels = int(net.halo), int(net.step), int(net.outputs)  # type: ignore[arg-type]
    if fit.in_space:
        halo_z, step_z = int(net.halo_z), int(net.step_z)  # type: ignore[arg-type]
        return Geometry(halo=(halo_z, halo, halo), step=(step_z, step, step), channels=channels)
    return Geometry(halo=(0, halo, halo), step=(1, step, step), context=max(fit.layers), channels=channels)


def applied(
    net: nn.Module,
    tile: Tensor,
    fit: Planes,
    target: Norm,
    *,
    widened: float = 1.0,
    together: Together | None = None,
) -> dict[str, Tensor]:
    """Return what a network makes of a tile in grey levels: ``"mean"``, and ``"scale"`` of one that predicts it.

    The tile is (Z + 2 context, Y, X), of which (Z, Y, X) are restored, or (C, Z + 2 context, Y, X) of channels that are
    restored ``together``, its own first; ``target`` is what training did to targets, and scales are multiplied by
    ``widened``.
    """
    if together is None:
        x, own, count = fit.norm(tile)[None], 0, 1
    else:
        own, count = together.channel, len(together.norms)
        ordered = [tile[own_first(own, count).index(c)] for c in range(count)]
        x = torch.stack([norm(part) for norm, part in zip(together.norms, ordered, strict=True)])
    found = _outputs(net, x, fit)
    maps = {"mean": target.invert(found[own])}
    return maps | {"scale": found[count + own] * (widened * target.scale)} if len(found) > count else maps


def _outputs(net: nn.Module, x: Tensor, fit: Planes) -> Tensor:
    """Return the output channels of a network (C, Z, Y, X) for channels (C, Z + 2 context, Y, X), in network units."""
    if fit.in_space:
        whole: Tensor = net(x[None])[0]
        return whole
    reach = max(fit.layers)
    planes = x.shape[1] - 2 * reach
    layers = [channel[reach + offset : reach + offset + planes] for channel in x for offset in fit.layers]
    y: Tensor = net(torch.stack(layers, dim=1).contiguous(memory_format=torch.channels_last))
    return y.transpose(0, 1)

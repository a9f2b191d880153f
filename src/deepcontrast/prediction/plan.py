"""How a volume will be predicted: decided before the first tile, from what this network takes on this device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepcontrast.compute.memory import Footprint, describe_bytes, footprint, resident, spare
from deepcontrast.compute.precision import rounding
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.task import Geometry, Task
from deepcontrast.tiles import Layout, Lengths, best_core, layout, up

AHEAD = 1
"""Tiles that are read before their turn, and that wait to be written: while one is computed, one goes each way."""

FIXED = 192 * 10**6
"""Bytes of the libraries' own working memory, besides the tensors of a tile."""

MARGIN = 1.5
"""Of the tensors' bytes: what the allocator cannot use between them; the worst network measured needed 1.5."""

TILE_VOXELS: Mapping[str, int] = {"cpu": 2**22, "cuda": 2**25}
"""The most voxels of a tile where ``predict.tile_voxels`` does not say; a convolution ends within a second or two."""

PROBE_VOXELS: Mapping[str, int] = {"cpu": 2**15, "cuda": 2**21}
"""Voxels of the smallest tile that memory is measured with; the others are two and four times as large."""

CACHE_VOXELS = 2**19
"""Tiles larger than this leave the processor's cache, and each voxel costs more."""

COMPILE_VOXELS = 20 * 10**9
"""Where compiling pays: it takes about a minute and saves about 3 ns per voxel."""

_measured: dict[tuple[object, ...], Footprint] = {}


@dataclass(frozen=True)
class Plan:
    """How a volume is predicted, in plain numbers.

    Attributes:
        core: the box that is kept of a tile (Z, Y, X). Along axes without halo it is the batch: planes of a 2D network.
        read: the largest box that a tile reads, halo included.
        block: no tile is kept across multiples of these lengths.
        tiles: number of tiles of the whole volume.
        work: voxels that are computed, halos again and again, per voxel of the volume.
        precision: of the convolutions.
        compiled: whether the network is compiled first.
        memory: bytes that it was given.
        peak: bytes that are expected to be taken at most.
    """

    core: Lengths
    read: Lengths
    block: Lengths
    tiles: int
    work: float
    precision: str
    compiled: bool
    memory: int
    peak: int

    def describe(self) -> str:
        """Return the plan in one line for the user."""
        core, read = (" x ".join(map(str, box)) for box in (self.core, self.read))
        how = f"{self.precision}, compiled" if self.compiled else self.precision
        return (
            f"{self.tiles} tiles of {core} voxels, read as {read}, {self.work:.2f} computed for each one; {how}; "
            f"{describe_bytes(self.peak)} expected of the {describe_bytes(self.memory)} it may take"
        )

    def encode(self) -> dict[str, Any]:
        """Return the plan as JSON takes it."""
        return asdict(self)

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Plan:
        """Return the plan that was stored; the inverse of :meth:`encode`."""
        stored: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
        return cls(**stored)


def make_plan(
    task: Task,
    nets: Sequence[nn.Module],
    shape: Sequence[int],
    fit: Any,
    config: Config,
    *,
    device: str = "cpu",
    memory: int | None = None,
    besides: int = 0,
    block: Sequence[int] | None = None,
    maps: Sequence[str] = (),
    planes: int = 1,
) -> Plan:
    """Return how a volume of a shape (Z, Y, X) is predicted cheapest in the memory there is.

    The network is run on a small tile to see what it takes. The same arguments give the same plan.

    Args:
        task: what is restored.
        nets: the networks of the ensemble, on the device.
        shape: of the whole volume.
        fit: numbers of the channel.
        config: the settings; ``predict`` matters.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        memory: bytes it may take, besides what the process holds already; by default what
            :func:`deepcontrast.compute.memory.spare` says.
        besides: bytes that were set aside from what the user allows; counted where it is said how much would do.
        block: shape of the pieces that are asked for one by one later (shards), so that no tile serves two of them.
        maps: names of what is written beside the result.
        planes: of the image that each plane of the result is made of; a tile has all of them.

    Raises:
        InputError: not even the smallest tile fits the memory, or the device lacks the precision.
    """
    given = spare(device) if memory is None else memory
    kind = "cuda" if device.startswith("cuda") else "cpu"
    geometry = task.geometry(nets[0], fit, config)
    blocks = tuple(min(b, n) for b, n in zip(block or shape, shape, strict=True))
    takes = _footprint(task, nets, geometry, fit, config, device, maps=maps, planes=planes)

    def laid(core: Sequence[int]) -> tuple[Layout, int]:
        found = layout(shape, core, geometry.halo, geometry.step, block=blocks)
        return found, int(takes.peak(prod(found.read)))

    least, need = laid(geometry.step)
    if need > given:
        held = besides + (resident() if kind == "cpu" else 0)
        raise InputError(
            f"memory: the smallest tile takes {describe_bytes(need)}, {describe_bytes(max(0, given))} are left; "
            f"the least that works is --memory {-(-(need + held) // 10**7) * 10}MB for each process"
        )
    # A limit of voxels below the smallest tile is exceeded; the memory never is.
    limit = max((config.predict.tile_voxels or TILE_VOXELS[kind]) // planes, prod(least.read))
    core = best_core(
        shape,
        geometry.step,
        geometry.halo,
        min(limit, takes.voxels(given)),
        block=blocks,
        price=_price if kind == "cpu" else np.ones_like,
    )
    core = geometry.step if core is None else core
    found, peak = laid(core)
    return Plan(
        core=tuple(core),
        read=found.read,
        block=blocks,
        tiles=found.tiles,
        work=found.work,
        precision=_precision(config.predict.precision, device),
        compiled=kind == "cuda" and prod(shape) * len(nets) >= COMPILE_VOXELS,
        memory=given,
        peak=peak,
    )


def _footprint(
    task: Task,
    nets: Sequence[nn.Module],
    geometry: Geometry,
    fit: Any,
    config: Config,
    device: str,
    *,
    maps: Sequence[str],
    planes: int,
) -> Footprint:
    """Return what the networks take for a tile, with what is read and written meanwhile.

    Measured in float32: whatever the precision, a tile may have to be computed in float32 too.
    """
    weights = tuple(tuple(weight.shape) for weight in nets[0].parameters())
    key = (type(nets[0]), weights, replace(geometry, above=None), device, planes)
    several = geometry.channels if geometry.channels > 1 else planes
    if key not in _measured:
        *sides, last = cube(geometry, PROBE_VOXELS["cuda" if device.startswith("cuda") else "cpu"] // planes)

        def work(size: int) -> tuple[int, object]:
            depth, rows = sides
            together = (several,) if several > 1 else ()
            tile = torch.zeros((*together, depth + 2 * geometry.context, rows, size * last), device=device)
            return depth * rows * size * last, task.restore(nets[0], tile, fit, config)

        with torch.inference_mode(), rounding(device, "float32"):
            _measured[key] = footprint(work, device)
    # Read and written tiles wait in float32; of several networks or orientations the results are added up.
    added = len(nets) > 1 or config.predict.orientations > 1
    waiting = 4 * (2 * AHEAD + 3 + 2 * added + (several - 1) * (AHEAD + 2))
    if maps:
        # The maps, in pieces and whole, and those that wait to be written; mean and scale of every member, twice.
        waiting += 4 * ((1 + len(maps)) * (AHEAD + 3) + 4 * len(nets))
    # A library may bring weights into another order, or precision, for as long as they are used.
    fixed = FIXED + sum(weight.numel() * weight.element_size() for weight in nets[0].parameters())
    lines = _measured[key].lines
    return Footprint(tuple((MARGIN * stays + fixed, MARGIN * each + waiting) for stays, each in lines))


def cube(geometry: Geometry, voxels: int) -> tuple[int, ...]:
    """Return the shape of a tile of about so many voxels, equal sides along axes with a halo, one step along others."""
    looks = [h > 0 for h in geometry.halo]
    free = prod(s for s, look in zip(geometry.step, looks, strict=True) if not look)
    side = (voxels / free) ** (1 / max(1, sum(looks)))
    return tuple(up(int(side), s) if look else s for s, look in zip(geometry.step, looks, strict=True))


def _price(voxels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a voxel costs on the processor in a tile of so many, relative to a tile that fits its cache."""
    price: NDArray[np.float64] = 1 + 0.04 * np.log2(np.maximum(voxels / CACHE_VOXELS, 1))
    return price


def _precision(asked: str, device: str) -> str:
    if asked == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    if asked == "float16" and device == "cpu":
        raise InputError("predict.precision 'float16' needs a GPU; accepted on the processor: auto, float32, bfloat16")
    return asked

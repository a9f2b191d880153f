"""Apply a trained network to volumes, tile by tile. It receives a task and knows none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.config import Config
from deepcontrast.errors import ModelFileError
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.task import Task
from deepcontrast.tiles import core_shape, tiles


def load_nets(
    task: Task, members: Sequence[Mapping[str, Tensor]], fit: Any, config: Config, device: str = "cpu"
) -> list[nn.Module]:
    """Return the networks of an ensemble, ready to predict.

    Raises:
        ModelFileError: the weights are not those of the network that the settings describe.
    """
    nets = []
    for weights in members:
        net = task.build(fit, config)
        try:
            net.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ModelFileError(f"the weights do not fit the network: {error}") from None
        nets.append(channels_last(net.to(device)).eval())
    return nets


def predict_pass(
    task: Task,
    nets: Sequence[nn.Module],
    volume: NDArray[np.float32],
    fit: Any,
    config: Config,
    *,
    out: NDArray[np.float32],
    device: str = "cpu",
    progress: Progress = silent,
    stage: str = "predict",
) -> None:
    """Apply the networks once to a volume (Z, Y, X) in grey levels and write their mean into ``out``.

    Tiles are cut with the halo computed from the network, so that tiled equals whole to 1e-5 in float32. A
    volume is extended to a multiple of the network's step by mirroring at its far ends.
    """
    geometry = task.geometry(nets[0], fit, config)
    halo, step = geometry.halo, geometry.step
    core = core_shape(volume.shape, step, halo, config.predict.tile_voxels)
    work = list(tiles(volume.shape, core, halo, step))
    with torch.inference_mode():
        for done, tile in enumerate(work, 1):
            piece = torch.from_numpy(_read(volume, tile.read)).to(device)
            means = [task.restore(net, piece, fit, config)["mean"] for net in nets]
            mean = means[0] if len(means) == 1 else torch.stack(means).mean(0)
            out[tile.write] = mean[tile.crop].cpu().numpy()
            progress(Event(stage, done, len(work)))


def channels_last(net: nn.Module) -> nn.Module:
    """Return the network with its 2D convolutions in channels-last order, the faster one on every device."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _read(volume: NDArray[np.float32], box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return a box that may reach beyond the far ends of the volume, where it is mirrored."""
    piece = np.array(volume[box], dtype=np.float32)
    over = [(0, max(0, b.stop - n)) for b, n in zip(box, volume.shape, strict=True)]
    return np.pad(piece, over, mode="reflect") if any(high for _, high in over) else piece

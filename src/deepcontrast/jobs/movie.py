"""A movie of images that the predicted distribution takes for possible: what flickers is not known (CARE, video 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.model import Model
from deepcontrast.normalize import Norm
from deepcontrast.prediction import predict_apart
from deepcontrast.scale.members import normed, open_members, volumes_for
from deepcontrast.stack import Stack
from deepcontrast.uncertainty import draw
from deepcontrast.valid import Survey

FRAMES, PER_SECOND = 40, 8
SIDE = 512
"""Pixels of the middle of the plane that are shown."""
GAP = 4
MOVIES = (".mp4", ".gif")


def movie_suffix() -> str:
    """Return ``.mp4`` where the extra ``movie`` is installed, else ``.gif``."""
    return MOVIES[0] if find_spec("imageio_ffmpeg") else MOVIES[1]


def write_movie(
    path: Path,
    model: Model,
    stack: Stack,
    surveys: Mapping[tuple[int, int], Survey],
    norms: Mapping[tuple[int, int], Sequence[Norm | None]] | None,
    *,
    device: str = "cpu",
    seed: int = 0,
) -> str:
    """Write input, mean and draws of a plane side by side, and return in words what is shown.

    It is the middle plane of the first time point and channel, and of that the middle. Every pixel is drawn by itself.

    Args:
        path: ends in ``.gif`` or ``.mp4``.
        model: that predicts a scale.
        stack: the image.
        surveys: of every time point and channel (t, c).
        norms: with which norms of their own the models are applied, see :func:`deepcontrast.jobs.shards.norms_of`.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        seed: of the draws.
    """
    task: Any = registry.load("tasks", model.task)
    [member] = open_members(task, [model], 0, device)
    if norms is not None:
        [member] = normed(task, [member], [norms[0, n][:1] for n in range(stack.size("C"))], 0)
    raw = stack.frame(0, 0)
    planes, *field = raw.shape
    z = planes // 2
    y, x = (slice((n - min(n, SIDE)) // 2, (n - min(n, SIDE)) // 2 + min(n, SIDE)) for n in field)
    box = (slice(z, z + 1), y, x)
    [volume] = volumes_for(task, [member], 0, lambda one, n: task.cleaned(stack.frame(0, n), one.fit, surveys[0, n]))
    found = predict_apart(task, member.nets, volume, member.fit, member.config, box=box, device=device)
    means, scales = (torch.from_numpy(one[:, 0]) for one in found)
    generator = torch.Generator().manual_seed(seed)
    mean = means.mean(0).numpy()
    limits = _limits(mean)
    beside = [_grey(np.asarray(raw[box][0], np.float32), _limits(raw[box][0])), _grey(mean, limits)]
    frames = [_row([*beside, _grey(draw(means, scales, generator).numpy(), limits)]) for _ in range(FRAMES)]
    if path.suffix == ".mp4":
        iio.imwrite(path, np.stack(frames), fps=PER_SECOND, macro_block_size=2)
    else:
        iio.imwrite(path, np.stack(frames), duration=1000 / PER_SECOND, loop=0)
    return f"plane {z}: the image, the mean, and draws from what is predicted; what flickers is not known"


def _limits(plane: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(plane, (0.5, 99.8))
    return float(low), float(max(high, low + 1e-6))


def _grey(plane: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = limits
    return np.asarray((plane - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _row(panels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return panels side by side with white between them, of even sides, as videos want them."""
    between = np.full((panels[0].shape[0], GAP), 255, np.uint8)
    row = np.hstack([part for panel in panels for part in (between, panel)][1:])
    return row[: row.shape[0] // 2 * 2, : row.shape[1] // 2 * 2]

"""The planes that a fit looks at: some of all sources, evenly spaced, and few enough for the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from deepcontrast.cleaned import Cleaned
from deepcontrast.depth import middle
from deepcontrast.errors import InputError
from deepcontrast.patches import TOGETHER, evenly
from deepcontrast.progress import Event, Progress
from deepcontrast.task import KEPT, Source
from deepcontrast.valid import consecutive

FEWEST_RUNS = 4
"""Runs of planes that still show a stack from its first plane to its last; where fewer would be read, planes are."""


def sample_planes(
    sources: Sequence[Source], count: int, progress: Progress
) -> tuple[list[Source], list[NDArray[np.float32]], list[NDArray[np.bool_]], list[NDArray[np.float64]]]:
    """Read about ``count`` evenly spaced planes, empty voxels filled, by source, with their valid voxels and depths.

    At least four planes of a source are read; of more sources than ``count`` suffices for, some are not.
    """
    some = evenly(np.arange(len(sources)), count // 4)
    each = max(4, count // len(some))
    read, planes, valid, depth = [], [], [], []
    for n, i in enumerate(some):
        source = sources[i]
        window = middle(source.frame.shape[1:])
        filled = Cleaned(source.frame, source.survey)
        wanted = _shown(source, each)
        shape = (int(wanted.sum()), *(side.stop - side.start for side in window))
        images = np.empty(shape, np.float32)
        chosen: list[int] = []
        masks = np.broadcast_to(np.True_, shape) if source.survey.all_valid else np.empty(shape, bool)
        for z in consecutive(wanted, TOGETHER):
            known = source.valid((z, *window))
            for number, image in enumerate(filled[z, *window]):
                if known is None or known[number].mean() > 0.2:
                    images[len(chosen)] = image
                    if known is not None:
                        masks[len(chosen)] = known[number]
                    chosen.append(z.start + number)
        if chosen:
            read.append(source)
            planes.append(images[: len(chosen)])
            valid.append(masks[: len(chosen)])
            depth.append(source.depth[chosen])
        progress(Event("read", n + 1, len(some)))
    if not planes:
        raise InputError("no plane has enough valid voxels: all are empty or saturated")
    return read, planes, valid, depth


def _shown(source: Source, count: int) -> NDArray[np.bool_]:
    """Return which usable planes (Z,) of a source to read, evenly spaced; of a large one in runs, if not too few."""
    usable = source.survey.usable(0.2)
    together = TOGETHER if source.frame.size > KEPT and count >= FEWEST_RUNS * TOGETHER else 1
    places = np.flatnonzero(usable)
    wanted = np.zeros(len(usable), bool)
    for z in evenly(places[: max(1, len(places) - together + 1)], count // together).tolist():
        wanted[z : z + together] = True
    return wanted & usable


def each_plane(
    planes: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield plane by plane, with its valid voxels."""
    for some, known in zip(planes, valid, strict=True):
        yield from zip(some, known, strict=True)

"""CARE: planes between planes of noisy stacks, learned from pairs of coarse stacks and fine ones.

Weigert et al. 2018; CSBDeep's ``UpsamplingCARE``. Input is a noisy stack of few planes, interpolated to as many as its
target has, target a registered stack of all planes. But for the interpolation it is the task ``denoise``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.progress import Progress, silent
from deepcontrast.stack import Stack
from deepcontrast.task import Source
from deepcontrast.tasks import denoise
from deepcontrast.tasks.denoise import (
    BESIDE,
    DEEP,
    PAIRED,
    SIMULATED,
    Params,
    bounds,
    build,
    clean,
    cleaned,
    geometry,
    join,
    left,
    normed,
    of_pair,
    own_norm,
    prepare,
    restore,
    sample,
    unlike,
    windowed,
)
from deepcontrast.upsampled import Upsampled, count_of, upsampled

__all__ = [
    "BESIDE",
    "DEEP",
    "PAIRED",
    "SIMULATED",
    "Fit",
    "Params",
    "bounds",
    "build",
    "clean",
    "cleaned",
    "fit",
    "geometry",
    "join",
    "left",
    "normed",
    "of_pair",
    "on_grid",
    "own_norm",
    "paired",
    "prepare",
    "restore",
    "sample",
    "unlike",
    "windowed",
]


@dataclass(frozen=True)
class Fit(denoise.Fit):
    """Every number of one channel that training and prediction need.

    Attributes:
        factor: planes of a target for one of its input.
    """

    factor: float = 1.0


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Measure the norms of one channel of all pairs, and choose what is held out.

    Raises:
        InputError: the planes are too small, or the pairs differ in how many planes become how many.
    """
    found = denoise.fit(sources, config, progress=progress)
    factors = sorted({_factor(source.stack) for source in sources})
    if factors[-1] > 1.01 * factors[0]:
        raise InputError(
            f"targets have {factors[0]:g} to {factors[-1]:g} planes for one of their inputs; accepted: one number"
        )
    return Fit.decode({**asdict(found), "factor": factors[0]}, {})


def _factor(stack: Stack) -> float:
    return stack.array.factor if isinstance(stack.array, Upsampled) else 1.0


def paired(image: Stack, target: Stack, config: Config) -> tuple[Stack, Stack]:
    """Return a stack with the planes of its target, interpolated, and the target, whose first plane is the stack's.

    How many planes become of one is what the voxel sizes say, or else the numbers of planes; what the target has beyond
    the last plane of the stack is left out.

    Raises:
        InputError: the target does not have the planes that it would have then.
    """
    planes, wanted = image.size("Z"), target.size("Z")
    coarse, fine = image.optics.voxel_size[0], target.optics.voxel_size[0]
    factor = coarse / fine if coarse and fine else (wanted - 1) / max(1, planes - 1)
    if factor < 1 or not 0 <= wanted - count_of(planes, factor, first=True) < factor:
        raise InputError(
            f"'{target.source}' has {wanted} planes, its input '{image.source}' {planes}, {factor:.3g} times as far "
            f"apart; accepted: a target of {count_of(planes, max(1.0, factor), first=True)} planes or a few more"
        )
    made = upsampled(image, factor, first=True)
    place = [slice(None)] * len(target.axes)
    place[target.axes.index("Z")] = slice(0, made.size("Z"))
    kept = target if wanted == made.size("Z") else replace(target, array=np.asarray(target.array[tuple(place)]))
    return made, kept


def on_grid(stack: Stack, fit: Fit) -> Stack:
    """Return a stack on the grid of its result: its planes, and as many between them as in training."""
    return upsampled(stack, fit.factor, first=True)

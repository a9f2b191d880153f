"""CARE: planes between planes of noisy stacks, learned from pairs of coarse stacks and fine ones.

Weigert et al. 2018; CSBDeep's ``UpsamplingCARE``. Input is a noisy stack of few planes, interpolated to as many as its
target has, target a registered stack of all planes. But for the interpolation it is the task ``denoise``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

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
from deepcontrast.upsampled import Upsampled, upsampled

__all__ = [
    "BESIDE",
    "DEEP",
    "PAIRED",
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
    """Return a stack with as many planes as its target, interpolated, and the target.

    Raises:
        InputError: the target has fewer planes.
    """
    planes, wanted = image.size("Z"), target.size("Z")
    if wanted < planes:
        raise InputError(
            f"'{target.source}' has {wanted} planes, its input '{image.source}' {planes}; accepted: a target of more "
            "planes than its input"
        )
    return upsampled(image, wanted / planes), target


def on_grid(stack: Stack, fit: Fit) -> Stack:
    """Return a stack on the grid of its result: with as many planes for one as in training."""
    return upsampled(stack, fit.factor)

"""What is looked at of a stack that is too large to be looked at whole: runs of its planes, in one window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from deepcontrast.compute.memory import describe_bytes
from deepcontrast.depth import depths
from deepcontrast.errors import InputError
from deepcontrast.stack import Stack

BYTES = 60
"""Memory that choosing k and measuring takes for every voxel of a channel (docs/decisions.md)."""

RUNS, RUN = 10, 12
"""Runs of neighbouring planes that stand for a deep stack, one per depth bin, and their length."""

WIDE = 4
"""Patches that a window through all planes must be wide; narrower, it is of runs of planes only."""


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Some planes of the first time point of a stack, in one window.

    Attributes:
        stack: the excerpt, in memory, with the axes of the whole but T.
        depth: of its planes (Z,).
        planes: their numbers in the whole (Z,).
        y, x: the window.
        whole: shape (Z, Y, X) of what it is an excerpt of.
    """

    stack: Stack
    depth: NDArray[np.float64]
    planes: NDArray[np.int64]
    y: slice
    x: slice
    whole: tuple[int, int, int]

    @property
    def runs(self) -> list[slice]:
        """Runs of neighbouring planes, as slices of the excerpt; what lies beyond the end of one is from elsewhere."""
        ends = (np.flatnonzero(np.diff(self.planes) > 1) + 1).tolist()
        return [slice(first, last) for first, last in zip([0, *ends], [*ends, len(self.planes)], strict=True)]

    def describe(self) -> str:
        """Return, in a sentence, what was looked at."""
        z, y, x = self.whole
        return (
            f"k was chosen, and all figures and the fidelity map are, from {len(self.planes)} of {z} planes, "
            f"y {self.y.start} to {self.y.stop} of {y}, x {self.x.start} to {self.x.stop} of {x}, "
            "of the first time point"
        )


def fits(stack: Stack, memory: int) -> bool:
    """Return whether a stack, one time point and channel at a time, can be looked at whole."""
    return stack.frame().size * BYTES <= memory


def least(stack: Stack, patch: int) -> int:
    """Return the bytes without which a stack cannot be looked at: for one patch, through all planes or runs of them."""
    count, height, width = stack.frame().shape
    return BYTES * min(count, RUNS * RUN) * min(patch, height) * min(patch, width)


def excerpt(stack: Stack, squares: Sequence[tuple[int, int]], patch: int, memory: int) -> Excerpt:
    """Return an excerpt that takes at most ``memory`` bytes to look at, around a square training did not see.

    It goes through all planes where its window can then be several patches wide, else through 10 runs of planes,
    evenly spaced: planes of a run have their neighbours, which the choice of k asks for.

    Args:
        stack: that knows its surface.
        squares: held-out squares (y, x); of several, the one with the most structure; of none, the middle is taken.
        patch: side of a square.
        memory: in bytes.

    Raises:
        InputError: not even one patch fits; names the memory that is needed.
    """
    frame = stack.frame()
    count, height, width = frame.shape
    memory, planes = max(0, memory), np.arange(count)
    if isqrt(memory // (BYTES * count)) < min(WIDE * patch, height, width) and count > RUNS * RUN:
        starts = np.linspace(0, count - RUN, RUNS).round().astype(int)
        planes = (starts[:, None] + np.arange(RUN)).ravel()
    side = isqrt(memory // (BYTES * len(planes)))
    if side < patch:
        needed = describe_bytes(BYTES * len(planes) * patch**2)
        raise InputError(f"choosing k needs {needed} besides what is loaded; allow more --memory")
    top, left = _liveliest(stack, squares, patch)
    y, x = _around(top, patch, side, height), _around(left, patch, side, width)
    parts = [_read(stack, run, y, x) for run in np.split(planes, np.flatnonzero(np.diff(planes) > 1) + 1)]
    axes = stack.axes.replace("T", "")
    array = np.concatenate(parts, axis=axes.index("Z"))
    return Excerpt(replace(stack, array=array, axes=axes), depths(stack)[planes], planes, y, x, frame.shape)


def _liveliest(stack: Stack, squares: Sequence[tuple[int, int]], patch: int) -> tuple[int, int]:
    """Return the square whose middle plane varies most; the middle of the field where there are none."""
    frame = stack.frame()
    count, height, width = frame.shape
    if not squares:
        return (height - patch) // 2, (width - patch) // 2
    return max(squares, key=lambda at: float(np.std(frame[count // 2, at[0] : at[0] + patch, at[1] : at[1] + patch])))


def _around(start: int, patch: int, side: int, length: int) -> slice:
    """Return a window of ``side`` pixels, or the whole length, with a patch in its middle, or as near as can be."""
    side = min(side, length)
    low = min(max(0, start + patch // 2 - side // 2), length - side)
    return slice(low, low + side)


def _read(stack: Stack, run: NDArray[np.int64], y: slice, x: slice) -> NDArray[np.generic]:
    place = {"T": 0, "Z": slice(int(run[0]), int(run[-1]) + 1), "Y": y, "X": x}
    return np.asarray(stack.array[tuple(place.get(axis, slice(None)) for axis in stack.axes)])

"""From float results to what is written: the input's type where it fits, and a word where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.io.planes import slabs
from deepcontrast.io.view import Computed

CLIPPED = 0.001
"""Share of the voxels that may be clipped in silence."""
WIDE = np.dtype(np.uint16)


@dataclass(frozen=True)
class Counted:
    """What is known of the grey levels of a result; the sum of two is of both parts.

    Attributes:
        voxels: how many were looked at.
        lowest: grey level.
        highest: grey level.
        clipped: how many would be clipped in the type that is wanted.
        clipped_wide: how many as uint16.
    """

    voxels: int
    lowest: float
    highest: float
    clipped: int
    clipped_wide: int

    def __add__(self, other: Counted) -> Counted:
        # NumPy's minimum and maximum hand NaN on.
        return Counted(
            self.voxels + other.voxels,
            float(np.minimum(self.lowest, other.lowest)),
            float(np.maximum(self.highest, other.highest)),
            self.clipped + other.clipped,
            self.clipped_wide + other.clipped_wide,
        )


@dataclass(frozen=True)
class Encoding:
    """How grey levels are written: grey level = value * scale + offset.

    Attributes:
        dtype: of the values.
        note: what is done, in a sentence.
        offset: in grey levels.
        scale: in grey levels.
    """

    dtype: np.dtype[Any]
    note: str
    offset: float = 0.0
    scale: float = 1.0

    @property
    def attributes(self) -> dict[str, float]:
        """What the file has to keep: ``intensity_offset`` and ``intensity_scale`` where they are not 0 and 1."""
        if (self.offset, self.scale) == (0.0, 1.0):
            return {}
        return {"intensity_offset": self.offset, "intensity_scale": self.scale}

    def encode(self, image: NDArray[np.float32]) -> NDArray[Any]:
        """Return values of the type, clipped to its range; a float type is kept as it is."""
        if self.dtype.kind not in "iu":
            return image.astype(self.dtype, copy=False)
        info = np.iinfo(self.dtype)
        # float32 cannot hold the largest 32 bit integers; in float64 the clip is exact.
        levels = np.rint(self._levels(image), dtype=np.float64 if self.dtype.itemsize > 2 else None)
        return np.clip(levels, info.min, info.max, out=levels).astype(self.dtype)

    def clipped(self, image: NDArray[np.float32]) -> int:
        """Return how many voxels :meth:`encode` clips."""
        return _clipped(self._levels(image), self.dtype) if self.dtype.kind in "iu" else 0

    def _levels(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return (image - self.offset) / self.scale if self.attributes else image


@dataclass(frozen=True, eq=False)
class Written:
    """Grey levels ready to be written.

    Attributes:
        array: of the type that was chosen, computed where it is sliced.
        attributes: ``intensity_offset`` and ``intensity_scale`` where they are not 0 and 1: the float result
            is ``array * scale + offset``.
        note: what was done, in a sentence.
    """

    array: Any
    attributes: dict[str, float]
    note: str


def to_dtype(image: Any, dtype: np.dtype[Any]) -> Written:
    """Return an image in ``dtype``, promoted or shifted where more than 0.1 % of the voxels would be clipped.

    The image is read once to decide, and again where the result is sliced, in slabs.

    Args:
        image: float result in grey levels, the camera offset in it; anything that can be sliced.
        dtype: of the input; a float type is kept as it is.
    """
    if dtype.kind in "iu":
        parts = slabs(image.shape, image.dtype.itemsize)
        encoding = choose(reduce(Counted.__add__, (count(np.asarray(image[part]), dtype) for part in parts)), dtype)
    else:
        encoding = Encoding(dtype, f"written as {dtype.name}; nothing was clipped")
    return Written(Computed(image, encoding.encode, encoding.dtype), encoding.attributes, encoding.note)


def count(image: NDArray[np.float32], dtype: np.dtype[Any]) -> Counted:
    """Return what :func:`choose` must know of a result, or of a part of one, that is wanted in an integer type."""
    return Counted(image.size, float(image.min()), float(image.max()), _clipped(image, dtype), _clipped(image, WIDE))


def choose(counted: Counted, dtype: np.dtype[Any]) -> Encoding:
    """Return how a result is to be written that is wanted in an integer type."""
    share = counted.clipped / counted.voxels
    if share <= CLIPPED:
        return Encoding(dtype, f"written as {dtype.name}; {share:.2%} of the voxels were clipped")
    too_many = f"{share:.1%} of the voxels would have been clipped as {dtype.name}"
    if dtype.itemsize == 1 and counted.clipped_wide / counted.voxels <= CLIPPED:
        return Encoding(WIDE, f"{too_many}: written as uint16")
    target = WIDE if dtype.itemsize <= 2 else dtype
    low = float(np.floor(counted.lowest))
    scale = max(1.0, (counted.highest - low) / float(np.iinfo(target).max))
    return Encoding(
        target,
        f"{too_many}: written as {target.name}, shifted; grey level = value * {scale:.6g} + {low:g} "
        "(kept in the file's metadata)",
        low,
        scale,
    )


def _clipped(image: NDArray[np.float32], dtype: np.dtype[Any]) -> int:
    info = np.iinfo(dtype)
    return int(np.count_nonzero((image < info.min - 0.5) | (image > info.max + 0.5)))

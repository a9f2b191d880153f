"""From float results to what is written: the input's type where it fits, and a word where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIPPED = 0.001
"""Share of the voxels that may be clipped in silence."""


@dataclass(frozen=True, eq=False)
class Written:
    """Grey levels ready to be written.

    Attributes:
        array: of the type that was chosen.
        attributes: ``intensity_offset`` and ``intensity_scale`` where they are not 0 and 1: the float result
            is ``array * scale + offset``.
        note: what was done, in a sentence.
    """

    array: NDArray[Any]
    attributes: dict[str, float]
    note: str


def to_dtype(image: NDArray[np.float32], dtype: np.dtype[Any]) -> Written:
    """Return an image in ``dtype``, promoted or shifted where more than 0.1 % of the voxels would be clipped.

    Args:
        image: float result in grey levels, the camera offset in it.
        dtype: of the input; a float type is kept as it is.
    """
    if not np.issubdtype(dtype, np.integer):
        return Written(image.astype(dtype), {}, f"written as {dtype.name}; nothing was clipped")
    share = _clipped(image, dtype)
    if share <= CLIPPED:
        return Written(_round(image, dtype), {}, f"written as {dtype.name}; {share:.2%} of the voxels were clipped")
    wide = np.dtype(np.uint16)
    if dtype.itemsize == 1 and _clipped(image, wide) <= CLIPPED:
        return Written(
            _round(image, wide),
            {},
            f"{share:.1%} of the voxels would have been clipped as {dtype.name}: written as uint16",
        )
    target = wide if dtype.itemsize <= 2 else dtype
    top = float(np.iinfo(target).max)
    low, high = float(np.floor(image.min())), float(image.max())
    scale = max(1.0, (high - low) / top)
    attributes = {"intensity_offset": low, "intensity_scale": scale}
    return Written(
        _round((image - low) / scale, target),
        attributes,
        f"{share:.1%} of the voxels would have been clipped as {dtype.name}: written as {target.name}, "
        f"shifted; grey level = value * {scale:.6g} + {low:g} (kept in the file's metadata)",
    )


def _clipped(image: NDArray[np.float32], dtype: np.dtype[Any]) -> float:
    info = np.iinfo(dtype)
    return float(((image < info.min - 0.5) | (image > info.max + 0.5)).mean())


def _round(image: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    info = np.iinfo(dtype)
    # float32 cannot hold the largest 32 bit integers; in float64 the clip is exact.
    wide = image.astype(np.float64) if dtype.itemsize > 2 else image
    return np.clip(np.rint(wide), info.min, info.max).astype(dtype)

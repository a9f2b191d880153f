"""Voxels that hold no measurement: the empty borders of stitching, constant planes, saturation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EMPTY, SATURATED = 1, 2
REASONS = {EMPTY: "empty", SATURATED: "saturated"}


@dataclass(frozen=True, eq=False)
class Invalid:
    """Which voxels of a volume hold no measurement, and why.

    Attributes:
        codes: uint8 (Z, Y, X): 0 valid, 1 empty (filled border or constant plane), 2 saturated; ``None``
            where every voxel is valid.
        counts: voxels per plane (Z,) for each reason.
        at_zero: voxels per plane (Z,) that sit at a pile-up at the bottom of the range. They are counted and
            said, not left out: they do hold a measurement, "dark" (docs/decisions.md).
    """

    codes: NDArray[np.uint8] | None
    counts: dict[str, NDArray[np.int64]]
    at_zero: NDArray[np.int64]

    @property
    def valid(self) -> NDArray[np.bool_] | None:
        """Voxels that hold a measurement, (Z, Y, X), or ``None`` where all do."""
        return None if self.codes is None else self.codes == 0

    @property
    def empty(self) -> NDArray[np.bool_] | None:
        """Voxels that no light was recorded for, (Z, Y, X), or ``None`` where there are none."""
        return None if self.codes is None or not (self.codes == EMPTY).any() else self.codes == EMPTY


def find_invalid(volume: NDArray[Any]) -> Invalid:
    """Find empty and saturated voxels of a volume (Z, Y, X) as it was read, before any arithmetic.

    Empty is a plane of one value, or a border of one value: the lowest value of the volume, in a piece that
    touches the border of the plane and is at least 5 voxels thick, while that value is rare elsewhere (in a
    dim photon-counting stack zeros are common everywhere, and are measurements).
    Saturated is a pile-up at the highest value: the largest value of the type or of a 10 to 15 bit camera, or
    one that at least 20 voxels share and that is 20 times as frequent as the values just below it.
    """
    planes, codes = len(volume), np.zeros(volume.shape, np.uint8)
    low, high = volume.min(), volume.max()
    for z in range(planes):
        if (volume[z] == volume[z].flat[0]).all():
            codes[z] = EMPTY
    _mark_borders(volume, codes, low)
    if _piled_up(volume, high):
        codes[(volume == high) & (codes == 0)] = SATURATED
    counts = {
        reason: (codes == code).sum(axis=(1, 2)).astype(np.int64)
        for code, reason in REASONS.items()
        if (codes == code).any()
    }
    at_zero = np.zeros(planes, np.int64)
    bottom = (volume == low) & (codes == 0)
    if bottom.sum() >= 0.001 * volume.size and np.issubdtype(volume.dtype, np.integer):
        at_zero = bottom.sum(axis=(1, 2)).astype(np.int64)
    return Invalid(codes if counts else None, counts, at_zero)


def fill_empty(volume: NDArray[np.float32], invalid: Invalid, sigma: float = 4.0) -> NDArray[np.float32]:
    """Return the volume with empty voxels replaced by the normalised blur of their valid neighbours.

    An empty plane becomes a copy of the nearest plane that is not. The network and every filter then see no
    artificial edge; what they make of these voxels is thrown away on writing and left out of every figure.
    """
    empty = invalid.empty
    if empty is None:
        return volume
    filled = volume.copy()
    whole = empty.all(axis=(1, 2))
    for z in np.flatnonzero(empty.any(axis=(1, 2)) & ~whole):
        known = ~empty[z]
        level = float(volume[z][known].mean())
        weight = ndimage.gaussian_filter(known.astype(np.float32), sigma)
        value = ndimage.gaussian_filter(np.where(known, volume[z] - level, np.float32(0)), sigma)
        # Far from any valid voxel the weight underflows: there the plane's mean stands.
        near = np.where(weight > 1e-6, value / np.maximum(weight, 1e-6), 0) + level
        filled[z][empty[z]] = near[empty[z]]
    lit = np.flatnonzero(~whole)
    for z in np.flatnonzero(whole):
        if len(lit):
            filled[z] = filled[lit[np.argmin(np.abs(lit - z))]]
    return filled


def _mark_borders(volume: NDArray[Any], codes: NDArray[np.uint8], low: Any) -> None:
    """Mark border pieces of the lowest value, unless that value is common in the rest of the volume."""
    flat = (volume == low) & (codes == 0)
    if not flat.any():
        return
    pieces = np.zeros_like(flat)
    for z in np.flatnonzero(flat.any(axis=(1, 2))):
        thick = ndimage.binary_opening(np.pad(flat[z], 2, mode="edge"), np.ones((5, 5), bool))[2:-2, 2:-2]
        labels, _ = ndimage.label(thick)
        edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        pieces[z] = np.isin(labels, edge[edge > 0])
    inside = (codes == 0) & ~pieces
    if pieces.any() and (not inside.any() or (flat & inside).sum() < 0.01 * inside.sum()):
        codes[pieces] = EMPTY


def _piled_up(volume: NDArray[Any], high: Any) -> bool:
    """Return whether more voxels sit at the highest value than light alone would put there."""
    at_top = int((volume == high).sum())
    if at_top < 20:
        return False
    if np.issubdtype(volume.dtype, np.integer):
        tops = {int(np.iinfo(volume.dtype).max), *(2**bits - 1 for bits in range(10, 16))}
        if int(high) in tops:
            return True
        width = max(1, int(0.02 * (float(high) - float(volume.min()))))
        below = int(((volume < high) & (volume >= int(high) - width)).sum()) / width
    else:
        return at_top >= max(20, 1e-5 * volume.size)
    return at_top > 20 * max(below, 1.0)

"""Contrast-limited adaptive histogram equalisation over blocks of space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.baselines import Scene, clahe_2d

CHOICES = clahe_2d.CHOICES


def clahe_3d(
    volume: NDArray[np.float32], *, block: int = 127, bins: int = 256, slope: float = 3.0
) -> NDArray[np.float32]:
    """Return the volume equalised over three-dimensional blocks, the slope of the curve being limited.

    Each axis is cut into the fewest equal blocks no longer than ``block``. A block's histogram (over the
    range of the whole volume) is clipped at ``slope * voxels / bins``, what was cut off is spread evenly over
    the bins that have room, and its cumulative sum is the block's grey-level curve; a voxel takes the curves
    of the eight nearest block centres, linearly interpolated. scikit-image does the same but pads to whole
    blocks, which takes many times the memory of a deep stack; here it is the result, 16-bit bin numbers and a
    few planes.

    Args:
        volume: (Z, Y, X).
        block: longest side of a block in voxels.
        bins: of a block's histogram, at most 65536.
        slope: steepest slope of the grey-level curve; 1 changes next to nothing.

    Returns:
        (Z, Y, X) over the range of the input. A constant volume is left as it is.

    Source: Zuiderveld 1994, Graphics Gems IV; in three dimensions Stimper et al. 2019.
    """
    bottom, top = float(volume.min()), float(volume.max())
    if top <= bottom:
        return np.array(volume, np.float32)
    binned = np.empty(volume.shape, np.uint16)
    for z, plane in enumerate(volume):
        share = (np.asarray(plane, np.float64) - bottom) / (top - bottom)
        binned[z] = np.clip(share * bins, 0, bins - 1)
    edges = [np.linspace(0, n, -(-n // block) + 1).round().astype(int) for n in volume.shape]
    curves = _curves(binned, edges, bins, slope)

    (lower_y, upper_y, part_y), (lower_x, upper_x, part_x) = (_neighbours(e) for e in edges[1:])
    out = np.empty(volume.shape, np.float32)
    for z, (before, after, part) in enumerate(zip(*_neighbours(edges[0]), strict=True)):
        layer = (1 - part) * curves[before] + part * curves[after]
        plane = binned[z]
        rows_lower, rows_upper = (
            (1 - part_x) * layer[rows[:, None], lower_x, plane] + part_x * layer[rows[:, None], upper_x, plane]
            for rows in (lower_y, upper_y)
        )
        out[z] = (1 - part_y[:, None]) * rows_lower + part_y[:, None] * rows_upper
    out *= np.float32(top - bottom)
    out += np.float32(bottom)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return the settings of `clahe_2d`."""
    return clahe_2d.suggested(scene)


def _curves(binned: NDArray[np.uint16], edges: list[NDArray[np.int_]], bins: int, slope: float) -> NDArray[np.float64]:
    """Return the grey-level curve of every block, (blocks z, blocks y, blocks x, bins), in 0 .. 1."""
    curves = np.empty((*(len(e) - 1 for e in edges), bins))
    for index in np.ndindex(curves.shape[:3]):
        box = tuple(slice(e[i], e[i + 1]) for e, i in zip(edges, index, strict=True))
        counts = np.bincount(binned[box].ravel(), minlength=bins).astype(np.float64)
        total = counts.sum()
        counts = _clipped(counts, max(slope, 1.0) * total / bins)
        curves[index] = np.cumsum(counts) / total
    return np.minimum(curves, 1.0)


def _clipped(counts: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Return the histogram with no bin above ``limit`` and the same sum."""
    for _ in range(len(counts)):
        excess = np.maximum(counts - limit, 0).sum()
        counts = np.minimum(counts, limit)
        room = counts < limit
        if excess <= 1e-9 * limit or not room.any():
            break
        counts[room] += excess / room.sum()
    return np.minimum(counts, limit)


def _neighbours(edges: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float64]]:
    """Return per voxel of an axis the block centre before it, the one after, and the share of the latter."""
    centres = (edges[:-1] + edges[1:]) / 2
    place = np.interp(np.arange(edges[-1]), centres, np.arange(len(centres)))
    before = np.floor(place).astype(int)
    return before, np.minimum(before + 1, len(centres) - 1), place - before

"""Which planes and rows stand for the volumes, so that large ones cost no more than small, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Volumes = Sequence[NDArray[Any]]  # each (Z, Y, X), in grey levels
Masks = Sequence[Bools | None]  # usable voxels of the same shapes; None where all are

MAX_PLANES = 64
MAX_VOXELS = 24_000_000
BAND = 128  # rows read at once where a plane is too large to be read whole


def values_of(volumes: Volumes, masks: Masks) -> NDArray[Any]:
    """Return the usable values (n,) of planes, or of every few rows of them, spread evenly over the volumes."""
    planes = [(i, z) for i, volume in enumerate(volumes) for z in range(volume.shape[0])]
    planes = [planes[k] for k in _evenly(len(planes))]
    strides = [1 + volumes[i][z].size * len(planes) // MAX_VOXELS for i, z in planes]
    sizes = [volumes[i][z][::stride].size for (i, z), stride in zip(planes, strides, strict=True)]
    # One array from the start: parts that are put together afterwards take their memory twice.
    values, end = np.empty(sum(sizes), np.result_type(*volumes)), 0
    for (i, z), stride in zip(planes, strides, strict=True):
        part, mask = np.asarray(volumes[i][z])[::stride], masks[i]
        usable = np.isfinite(part) if mask is None else np.isfinite(part) & np.asarray(mask[z])[::stride]
        picked = part[usable]
        values[end : end + len(picked)] = picked
        end += len(picked)
    return values[:end]


def slabs(
    volumes: Volumes, masks: Masks, pattern: NDArray[np.float32] | None
) -> Iterator[tuple[float, Floats, Bools, Floats]]:
    """Yield relative depth, up to 5 planes around it, their usable voxels, a distant plane (NaN where unusable)."""
    centres = []
    for i, volume in enumerate(volumes):
        reach = min(2, (volume.shape[0] - 1) // 2)
        centres += [(i, z, reach) for z in range(reach, volume.shape[0] - reach)]
    centres = [centres[k] for k in _evenly(len(centres))]
    budget = MAX_VOXELS / len(centres)

    def read(i: int, planes: slice, rows: slice) -> tuple[Floats, Bools]:
        part = np.array(volumes[i][planes, rows], np.float64)
        good = np.isfinite(part)
        mask = masks[i]
        if mask is not None:
            good &= np.asarray(mask[planes, rows])
        if pattern is not None:
            part -= pattern[rows]
        return np.where(good, part, 0.0), good

    for i, z, reach in centres:
        depth, height, width = volumes[i].shape
        bands = [slice(0, height)]
        if height * width > budget and height > 2 * BAND:  # too large a plane: bands of rows stand for it
            count = min(max(1, int(budget / (BAND * width))), height // BAND)
            bands = [slice(int(y), int(y) + BAND) for y in np.linspace(0, height - BAND, count)]
        far = (z + depth // 2) % depth if depth >= 6 else None
        for rows in bands:
            part, good = read(i, slice(z - reach, z + reach + 1), rows)
            away = np.full(part.shape[1:], np.nan)
            if far is not None:
                distant, seen = read(i, slice(far, far + 1), rows)
                away = np.where(seen[0], distant[0], np.nan)
            yield z / max(depth - 1, 1), part, good, away


def _evenly(count: int) -> list[int]:
    """Return at most ``MAX_PLANES`` numbers below the count, evenly spread and rising."""
    chosen = np.linspace(0, count - 1, min(count, MAX_PLANES)).round().astype(int)
    return [int(k) for k in np.unique(chosen)]

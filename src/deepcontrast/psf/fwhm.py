"""How wide a point-spread function is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from deepcontrast.psf.debye import Array, Lengths


def fwhm(psf: ArrayLike, voxel_um: Lengths) -> tuple[float | None, float | None, float | None]:
    """Return the full widths at half maximum through the brightest voxel, (z, y, x) in micrometres.

    Along straight lines between voxels. ``None`` where the grid ends before the half.

    Args:
        psf: (Z, Y, X).
        voxel_um: size of a voxel (z, y, x).
    """
    spot = np.asarray(psf, np.float64)
    peak = np.unravel_index(int(np.argmax(spot)), spot.shape)
    found: list[float | None] = []
    for axis, size in enumerate(voxel_um):
        line = spot[tuple(slice(None) if a == axis else p for a, p in enumerate(peak))] / spot[peak]
        at = int(peak[axis])
        sides = [_to_half(line[at:]), _to_half(line[at::-1])]
        found.append(None if None in sides else size * sum(side for side in sides if side is not None))
    z, y, x = found
    return z, y, x


def _to_half(side: Array) -> float | None:
    """Return in how many voxels a line that starts at 1 is down to a half."""
    below = np.flatnonzero(side < 0.5)
    if not below.size:
        return None
    first = int(below[0])
    return float(first - (0.5 - side[first]) / (side[first - 1] - side[first]))

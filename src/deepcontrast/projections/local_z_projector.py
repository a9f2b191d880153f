"""Local z projection: the plane with the most contrast (or light) around every pixel, median filtered."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.projections import Projection
from deepcontrast.projections._read_out import Reading, checked, read_out

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"measure": measure, "window": side, "median": side, "reading": reading}
    for measure, side, reading in product(("spread", "mean"), (11, 31), ("maximum", "mean"))
)


def local_z_projector(
    stack: NDArray[np.float32],
    *,
    measure: Literal["spread", "mean"] = "spread",
    smooth: float = 1.0,
    window: int = 21,
    median: int = 21,
    thickness: int = 1,
    offset: float = 0.0,
    reading: Reading = "maximum",
) -> Projection:
    """Return the stack around the height at which its planes have the largest local spread or mean.

    Each plane is smoothed by a Gaussian; the standard deviation or the mean over a square window is the measure;
    the plane where it is largest is the height, whose median over another square is the surface.

    Args:
        stack: (Z, Y, X), any unit.
        measure: ``spread``, the standard deviation, for structures on a background of any brightness, or ``mean``.
        smooth: standard deviation of the Gaussian in pixels, 0 or more.
        window: side of the square of the measure, in pixels, 1 or more; larger than a cell.
        median: side of the square of the median, in pixels, 1 or more.
        thickness: planes on either side of the surface that are read.
        offset: planes from the surface to where it is read; positive towards the last plane.
        reading: ``maximum`` or ``mean`` of what is read.

    Raises:
        InputError: not three axes, values that are not finite, or a setting that is not accepted.

    Source: Herbert et al. 2021, BMC Biology 19:136 (LocalZProjector and DeProj). Simplified: no binning before the
    filters and no Gaussian after the median.
    """
    volume = checked(stack)
    if measure not in ("spread", "mean"):
        raise InputError(f"measure '{measure}' of the local z projector; accepted: spread, mean")
    if smooth < 0 or min(window, median) < 1:
        raise InputError(
            f"smooth {smooth}, window {window} and median {median} of the local z projector; "
            "accepted: 0 or more, and twice 1 or more pixels"
        )
    level = volume.mean(dtype=np.float64).astype(np.float32)
    largest = np.full(volume.shape[1:], -np.inf, np.float32)
    height = np.zeros(volume.shape[1:], np.float32)
    for z, plane in enumerate(volume):
        # Around 0, so that an offset takes no digits from the variance.
        even = ndimage.gaussian_filter(plane - level, smooth)
        found = ndimage.uniform_filter(even, window)
        if measure == "spread":
            found = ndimage.uniform_filter(even**2, window) - found**2
        height[found > largest] = z
        largest = np.maximum(largest, found)
    surface = np.asarray(ndimage.median_filter(height, median), np.float32)
    return Projection(read_out(volume, surface, thickness=thickness, offset=offset, reading=reading), surface)

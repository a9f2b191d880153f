"""How much finest detail a plane has, noise and all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def detail(plane: NDArray[np.float64]) -> float:
    """Return the finest detail of a plane (Y, X), noise and all, as a share of its contrast; 0 of a flat one.

    Detail is the diagonal second difference of 2 x 2 pixels, in which smooth structure cancels; contrast the standard
    deviation of what a Gaussian of 1.5 pixels leaves.
    """
    even = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]
    finest = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    contrast = ndimage.gaussian_filter(plane, 1.5).std()
    return float(np.sqrt(np.mean(finest**2)) / contrast) if contrast > 0 else 0.0

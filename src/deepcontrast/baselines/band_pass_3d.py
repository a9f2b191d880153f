"""Difference of two Gaussians in space: the strong form of the band-pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def band_pass_3d(volume: NDArray[np.float32], *, low: float = 1.0, high: float = 20.0) -> NDArray[np.float32]:
    """Return the volume blurred by ``low`` minus the volume blurred by ``high``, in all three axes.

    Args:
        volume: (Z, Y, X).
        low: standard deviation of the Gaussian that takes the noise away, in voxels of every axis.
        high: standard deviation of the Gaussian that estimates the background, in voxels of every axis.

    Returns:
        (Z, Y, X) in the unit of the input, around 0. Edges are mirrored. Memory: three volumes.

    Source: Marr & Hildreth 1980, difference of Gaussians.
    """
    volume = np.asarray(volume, np.float32)
    out = ndimage.gaussian_filter(volume, low)
    out -= ndimage.gaussian_filter(volume, high)
    return np.asarray(out, np.float32)

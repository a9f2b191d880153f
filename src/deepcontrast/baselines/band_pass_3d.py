"""Difference of two Gaussians in space: the strong form of the band-pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.baselines import Scene, band_pass_2d
from deepcontrast.errors import InputError

CHOICES = band_pass_2d.CHOICES


def band_pass_3d(
    volume: NDArray[np.float32], *, low: float = 1.0, high: float = 20.0, anisotropy: float = 1.0
) -> NDArray[np.float32]:
    """Return the volume blurred by ``low`` minus the volume blurred by ``high``, in all three axes.

    Args:
        volume: (Z, Y, X).
        low: standard deviation of the Gaussian that takes the noise away, in pixels.
        high: standard deviation of the Gaussian that estimates the background, in pixels.
        anisotropy: spacing of planes over that of pixels; along z both Gaussians are that much narrower in planes.

    Returns:
        (Z, Y, X) in the unit of the input, around 0. Edges are mirrored. Memory: three volumes.

    Raises:
        InputError: an anisotropy that is not positive.

    Source: Marr & Hildreth 1980, difference of Gaussians.
    """
    if not anisotropy > 0:
        raise InputError(f"anisotropy {anisotropy}; accepted: a spacing of planes over that of pixels, above 0")
    volume = np.asarray(volume, np.float32)
    out = ndimage.gaussian_filter(volume, (low / anisotropy, low, low))
    out -= ndimage.gaussian_filter(volume, (high / anisotropy, high, high))
    return np.asarray(out, np.float32)


def suggested(scene: Scene) -> dict[str, Any]:
    """Return the widths of `band_pass_2d`, and the stack's anisotropy."""
    return {**band_pass_2d.suggested(scene), "anisotropy": scene.anisotropy}

"""Difference of two Gaussians in every plane: the two lines any method has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.baselines import Scene

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"low": low, "high": high} for low, high in product((1.0, 2.0), (5.0, 10.0, 20.0, 40.0))
)


def band_pass_2d(volume: NDArray[np.float32], *, low: float = 1.0, high: float = 20.0) -> NDArray[np.float32]:
    """Return each plane blurred by ``low`` minus the same plane blurred by ``high``.

    Args:
        volume: (Z, Y, X).
        low: standard deviation of the Gaussian that takes the noise away, in pixels.
        high: standard deviation of the Gaussian that estimates the background, in pixels.

    Returns:
        (Z, Y, X) in the unit of the input, around 0: the background is negative or near it. Edges are
        mirrored. Memory: the result and two planes.

    Source: Marr & Hildreth 1980, difference of Gaussians; ``high`` is the haze width of DeepContrast.
    """
    out = np.empty(volume.shape, np.float32)
    for z, plane in enumerate(volume):
        plane = np.asarray(plane, np.float32)
        out[z] = ndimage.gaussian_filter(plane, low) - ndimage.gaussian_filter(plane, high)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return a blur of 1 pixel minus one of 20 pixels, or of five times the structures' half width where that is more.

    As for ImageJ's "Bandpass Filter": what is filtered away is clearly smaller than the smallest and clearly
    larger than the largest structure. Noise has the size of a pixel.
    """
    return {"low": 1.0, "high": max(20.0, 5 * scene.radius)}

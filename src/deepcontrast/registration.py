"""By how much two images of the same place are shifted against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

FINE, COARSE = 1.5, 15.0
"""Widths in pixels of the Gaussians between which the structures lie that are compared."""
UPSAMPLED = 50
"""Parts of a pixel that a shift is found to."""
LEAST = 32
"""Pixels of the shortest side of a part that is compared by itself."""


@dataclass(frozen=True)
class Shift:
    """How far one image lies from another.

    Attributes:
        pixels: along Y and X.
        error: standard error of each, from parts of the image; infinite where it is too small for parts.
    """

    pixels: tuple[float, float]
    error: tuple[float, float]

    def beyond(self, limit: float) -> bool:
        """Say whether it is surely more than a limit along an axis: by three standard errors."""
        return any(abs(p) - 3 * e > limit for p, e in zip(self.pixels, self.error, strict=True))

    def describe(self) -> str:
        """Return it in words."""
        y, x = self.pixels
        return f"{y:+.2f} px along y and {x:+.2f} px along x"


def shift_between(image: NDArray[np.generic], target: NDArray[np.generic]) -> Shift:
    """Return how far the structures of a plane (Y, X) lie from those of a target, in pixels.

    The median over four quarters, each by cross-correlation of its structures, whose scatter gives the error; noise of
    the image makes no shift, it only makes it uncertain.

    Args:
        image: that may be noisy.
        target: of the same shape.

    Source: Guizar-Sicairos et al. 2008, upsampled cross-correlation (scikit-image).
    """
    one, other = (_structures(plane) for plane in (image, target))
    halves = [[slice(0, n // 2), slice(n // 2, n)] if n >= 2 * LEAST else [slice(0, n)] for n in one.shape]
    parts = np.array([_shift(one[y, x], other[y, x]) for y in halves[0] for x in halves[1]])
    if len(parts) < 4:
        return Shift(_pair(np.median(parts, axis=0)), (np.inf, np.inf))
    # The median of four is nearly their mean.
    return Shift(_pair(np.median(parts, axis=0)), _pair(parts.std(axis=0, ddof=1) / 2))


def _structures(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    image = np.asarray(plane, np.float64)
    return np.asarray(ndimage.gaussian_filter(image, FINE) - ndimage.gaussian_filter(image, COARSE))


def _shift(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in one.shape))
    # The normalised form, phases alone, finds noise as worthy as structure.
    found = phase_cross_correlation(  # type: ignore[no-untyped-call]
        other * window, one * window, upsample_factor=UPSAMPLED, normalization=None
    )[0]
    return -np.asarray(found, np.float64)


def _pair(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values[0]), float(values[1])

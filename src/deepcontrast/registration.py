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
CERTAIN = 6.0
"""Standard errors by which two images must agree beyond chance for their shift to mean something."""
UNSURE = 0.25
"""Pixels of the standard error where too few parts of the image have structure to tell."""


@dataclass(frozen=True)
class Shift:
    """How far one image lies from another.

    Attributes:
        pixels: along Y and X.
        error: standard error of each; infinite where the images share too little structure to tell.
    """

    pixels: tuple[float, float]
    error: tuple[float, float]

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.error).all())

    def beyond(self, limit: float) -> bool:
        """Say whether it is surely more than a limit along an axis: by three standard errors."""
        return any(abs(p) - 3 * e > limit for p, e in zip(self.pixels, self.error, strict=True))

    def describe(self) -> str:
        """Return it in words."""
        y, x = self.pixels
        return f"{y:+.2f} px along y and {x:+.2f} px along x"


def shift_between(image: NDArray[np.generic], target: NDArray[np.generic]) -> Shift:
    """Return how far the structures of a plane (Y, X) lie from those of a target, in pixels.

    By cross-correlation of what is finer than 15 px, twice: of the planes, then of what they have in common once they
    are shifted by whole pixels. The error is the scatter over those quarters that agree with the target beyond chance,
    or, where it is larger, what the noise of the image leaves: a few quarters may scatter little by chance.

    Args:
        image: that may be noisy.
        target: of the same shape.

    Source: Guizar-Sicairos et al. 2008, upsampled cross-correlation (scikit-image).
    """
    one, other = (_structures(plane) for plane in (image, target))
    whole, certain = _found(one, other)
    if not certain:
        return Shift((0.0, 0.0), (np.inf, np.inf))
    coarse = np.round(whole).astype(int)
    one, other = _overlap(one, other, coarse)
    fine = _found(one, other)[0]
    parts = []
    for y in (slice(0, one.shape[0] // 2), slice(one.shape[0] // 2, None)):
        for x in (slice(0, one.shape[1] // 2), slice(one.shape[1] // 2, None)):
            shift, certain = _found(one[y, x], other[y, x])
            if certain:
                parts.append(shift)
    error = np.full(2, UNSURE)
    if len(parts) > 2:
        error = np.std(parts, axis=0, ddof=1) / np.sqrt(len(parts))
    y_x, errors = coarse + fine, np.maximum.reduce([error, _noise_error(one, other), np.full(2, 1 / UPSAMPLED)])
    return Shift((float(y_x[0]), float(y_x[1])), (float(errors[0]), float(errors[1])))


def _noise_error(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard errors along Y and X of a shift found between a noisy plane and one without noise.

    To first order the noise moves the peak of the cross-correlation by its product with the slope of the structures
    over the square of that slope, both planes being weighed by the window; the noise is what is left of the noisy plane
    without the other, with the spectrum that it has.
    """
    window = _window(one.shape) ** 2
    share = float(np.mean(one * other) / np.mean(other**2))
    noise = np.abs(np.fft.fft2(one - share * other)) ** 2
    errors = []
    for axis in (0, 1):
        slope = np.gradient(other, axis=axis)
        moved = np.sqrt(np.sum(noise * np.abs(np.fft.fft2(window * slope)) ** 2)) / one.size
        errors.append(float(moved / max(abs(share) * np.sum(window * slope**2), 1e-30)))
    return np.array(errors)


def _window(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return what weighs the pixels of a plane: the borders, across which it is not continued, least."""
    return np.outer(*(np.hanning(n + 2)[1:-1] for n in shape))


def _pieces(plane: NDArray[np.float64]) -> float:
    """Return how many independent pieces a plane of structures has: they are alike over so many pixels."""
    return float(plane.size / (4 * np.pi * FINE**2))


def _structures(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    image = np.asarray(plane, np.float64)
    return np.asarray(ndimage.gaussian_filter(image, FINE) - ndimage.gaussian_filter(image, COARSE))


def _found(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Return the shift of two planes, and whether they then agree beyond chance."""
    window = _window(one.shape)
    # The normalised form, phases alone, finds noise as worthy as structure.
    found = -np.asarray(
        phase_cross_correlation(  # type: ignore[no-untyped-call]
            other * window, one * window, upsample_factor=UPSAMPLED, normalization=None
        )[0],
        np.float64,
    )
    a, b = _overlap(one, other, np.round(found).astype(int))
    if min(a.shape) < 8 or not (a.std() and b.std()):
        return found, False
    return found, bool(np.corrcoef(a.ravel(), b.ravel())[0, 1] * np.sqrt(_pieces(a)) > CERTAIN)


def _overlap(
    one: NDArray[np.float64], other: NDArray[np.float64], shift: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what two planes have in common, the first being shifted by whole pixels against the second."""
    ahead = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift.tolist(), one.shape, strict=True))
    behind = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift.tolist(), one.shape, strict=True))
    return one[ahead], other[behind]

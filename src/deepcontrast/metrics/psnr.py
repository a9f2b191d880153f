"""Peak signal-to-noise ratio of a plane and its truth, after CARE's normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._care import mean_squared_errors, suffixed

ROUNDING = 1e-24
"""Mean squared error that is nothing but the rounding of float64."""


def psnr(
    image: NDArray[Any], truth: NDArray[Any], *, region: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the peak signal-to-noise ratio of one plane (Y, X) in dB; higher is better.

    The truth is scaled so that its percentiles 0.1 and 99.9 become 0 and 1, without clipping; the image is
    replaced by the a * image + b that fits it best in least squares over the whole plane; with their mean
    squared difference and a data range of 1 the ratio is -10 log10(MSE). It does not change under an affine
    change of either.

    Args:
        image: one plane (Y, X), any unit.
        truth: what the plane should be (Y, X), any unit.
        region: pixels (Y, X) over which the squares are averaged for ``psnr_foreground``; the fit stays that of
            the whole plane.

    Returns:
        ``psnr`` and, where ``region`` is given, ``psnr_foreground``; ``None`` with a reason where the truth is
        constant, the region empty, or the image the truth itself up to an affine change.

    Source: normalisation: CARE, supplement, equations 2.1 and 2.2; ``skimage.metrics.peak_signal_noise_ratio``.
    """
    errors = mean_squared_errors(image, truth, region)
    return tuple(_decibels(name, error) for name, error in zip(suffixed("psnr", region), errors, strict=True))


def _decibels(name: str, error: float | str) -> Measurement:
    if isinstance(error, str):
        return Measurement(name, None, error)
    if error <= ROUNDING:
        return Measurement(name, None, "the image is the truth up to an affine change: the ratio has no bound")
    return Measurement(name, -10 * math.log10(error))

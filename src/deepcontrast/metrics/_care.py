"""CARE's normalisation of an image and its truth, on which nrmse, psnr, ssim and ms_ssim rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]


def normalised(image: NDArray[Any], truth: NDArray[Any]) -> tuple[Plane, Plane] | str:
    """Return the image and its truth on the truth's scale, in float64, or the reason why there is none.

    The truth is scaled so that its percentiles 0.1 and 99.9 become 0 and 1, without clipping; the image is
    replaced by the a * image + b that fits it best in least squares. A constant image becomes the truth's mean.

    Source: CARE, supplement, equations 2.1 and 2.2.
    """
    image, truth = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    if image.size == 0:
        return "the plane has no pixel"
    if not (np.isfinite(image).all() and np.isfinite(truth).all()):
        return "the plane has values that are not finite"
    low, high = np.percentile(truth, (0.1, 99.9))
    if high <= low:
        return "the truth is constant from its percentile 0.1 to 99.9"
    target = (truth - low) / (high - low)
    if image.min() == image.max():
        return np.full_like(target, target.mean()), target
    # Scaled first, so that the squares of neither tiny nor huge units leave the range of a float.
    image = image / np.abs(image).max()
    centred = image - image.mean()
    centred /= np.abs(centred).max()
    slope = float(np.mean(centred * (target - target.mean())) / np.mean(centred**2))
    return slope * centred + target.mean(), target


def suffixed(name: str, region: object | None) -> tuple[str, ...]:
    """Return the names of a metric's rows: over the plane and, where a region is given, over the foreground."""
    return (name,) if region is None else (name, f"{name}_foreground")


def mean_squared_errors(
    image: NDArray[Any], truth: NDArray[Any], region: NDArray[np.bool_] | None
) -> tuple[float | str, ...]:
    """Return the mean squared error of the normalised pair over the plane and the region, or why there is none."""
    pair = normalised(image, truth)
    if isinstance(pair, str):
        return (pair,) * len(suffixed("", region))
    squares = (pair[0] - pair[1]) ** 2
    whole = float(squares.mean())
    if region is None:
        return (whole,)
    return whole, float(squares[region].mean()) if region.any() else "the region is empty"

"""Pearson correlation of a plane and its truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement


def pearson(
    image: NDArray[Any], truth: NDArray[Any], *, region: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the correlation coefficient of one plane (Y, X) and its truth.

    Covariance over the product of the standard deviations, in float64; it does not change under a positive
    affine change of either.

    Args:
        image: one plane (Y, X), any unit.
        truth: what the plane should be (Y, X), any unit.
        region: voxels (Y, X) for ``pearson_foreground``, with means and deviations of that region alone.

    Returns:
        ``pearson`` and, where ``region`` is given, ``pearson_foreground``, in -1 .. 1; ``None`` with a reason
        where either image is constant or the region has fewer than two voxels.

    Source: Pearson 1895; among CARE's figures of merit.
    """
    rows = [_correlation("pearson", image.ravel(), truth.ravel())]
    if region is not None:
        rows.append(_correlation("pearson_foreground", image[region], truth[region]))
    return tuple(rows)


def _correlation(name: str, image: NDArray[Any], truth: NDArray[Any]) -> Measurement:
    if image.size < 2:
        return Measurement(name, None, "fewer than two voxels")
    if not (np.isfinite(image).all() and np.isfinite(truth).all()):
        return Measurement(name, None, "the plane has values that are not finite")
    if image.min() == image.max() or truth.min() == truth.max():
        return Measurement(name, None, "the image or the truth is constant")
    x, y = (v.astype(np.float64) - v.mean(dtype=np.float64) for v in (image, truth))
    # Scaled first, so that neither tiny nor huge units leave the range of a float.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    value = float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))
    return Measurement(name, min(1.0, max(-1.0, value)))

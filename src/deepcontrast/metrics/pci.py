"""Percentile contrast index: how far the bright voxels of a plane stand above the usual ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement


def pci(image: NDArray[Any], *, valid: NDArray[np.bool_] | None = None) -> tuple[Measurement, ...]:
    """Return log(I95 / I50) of the intensities of one plane (Y, X), as they are given.

    Percentiles with linear interpolation in float64, natural logarithm. The index does not change when the
    image is multiplied; it does when it is shifted, so the camera's offset and every normalisation matter:
    compare only images with the same zero.

    Args:
        image: one plane (Y, X).
        valid: voxels to use (Y, X); all where ``None``.

    Returns:
        ``pci``; ``None`` with a reason where the median is not positive, as it is in an image whose
        background was taken away.

    Source: DeepContrast, section 4.7, equation 4.
    """
    values = np.asarray(image if valid is None else image[valid], np.float64)
    if values.size == 0:
        return (Measurement("pci", None, "no valid voxel"),)
    if not np.isfinite(values).all():
        return (Measurement("pci", None, "the plane has values that are not finite"),)
    high, median = np.percentile(values, (95, 50))
    if median <= 0 or not math.isfinite(high / median):
        return (Measurement("pci", None, f"the median intensity is {median:.4g}, not positive"),)
    return (Measurement("pci", math.log(high / median)),)

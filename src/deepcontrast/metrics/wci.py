"""Wavelet contrast index: how far the strong details of a plane stand above the usual ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pywt
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement


def wci(image: NDArray[Any], *, valid: NDArray[np.bool_] | None = None, levels: int = 4) -> tuple[Measurement, ...]:
    """Return log(P95 / P50) of the absolute Haar detail coefficients of one plane (Y, X).

    The orthonormal Haar transform (``pywt.wavedec2(image, "haar")``, in float64) starts at pixel (0, 0); the
    horizontal, vertical and diagonal details of levels 1 to ``levels`` are pooled, each coefficient counting
    once, so that the fine levels carry most of the weight. P95 and P50 are percentiles with linear
    interpolation, the logarithm is natural. A coefficient of level n rests on 2^n x 2^n pixels; those that
    rest on a pixel outside ``valid`` or beyond the edge of the plane are left out, so no padding matters.

    The index does not change when the image is multiplied or shifted. The paper does not say which sign,
    levels or padding it used: with signed coefficients the median is about 0 and the ratio has no meaning.

    Args:
        image: one plane (Y, X), any unit.
        valid: voxels to use (Y, X); all where ``None``.
        levels: levels of the decomposition; levels that do not fit into the plane are left out of the pool.

    Returns:
        ``wci`` over all levels, then ``wci_level_1`` .. for each alone; ``None`` with a reason where no
        coefficient is left, the plane is not finite there, or the median coefficient is 0.

    Source: DeepContrast, section 4.7, equation 3.
    """
    values = image if valid is None else image[valid]
    if not np.isfinite(values).all():
        names = ["wci", *(f"wci_level_{n}" for n in range(1, levels + 1))]
        return tuple(Measurement(name, None, "the plane has values that are not finite") for name in names)
    usable = np.ones(image.shape, bool) if valid is None else np.asarray(valid, bool)
    approximation = np.where(usable, image, 0).astype(np.float64)
    # The transform's factors of 1 / sqrt 2 leave 1e-16 where integers cancel: that is a 0 and no contrast.
    zero = 1e-12 * float(np.abs(approximation).max(initial=0.0))
    pooled: list[NDArray[np.float64]] = []
    rows: list[Measurement] = []
    for level in range(1, levels + 1):
        name = f"wci_level_{level}"
        rows_left, columns_left = usable.shape[0] // 2, usable.shape[1] // 2
        if rows_left == 0 or columns_left == 0:
            rows.append(Measurement(name, None, f"the plane is smaller than {2**level} pixels"))
            usable = usable[:0, :0]
            continue
        # An odd last row or column has no partner: what rests on it would rest on padding.
        even = (slice(0, 2 * rows_left), slice(0, 2 * columns_left))
        usable = np.asarray(usable[even].reshape(rows_left, 2, columns_left, 2).all(axis=(1, 3)))
        approximation, details = pywt.dwt2(approximation[even], "haar")
        found = np.abs(np.stack(details))[:, usable].ravel()
        pooled.append(found)
        rows.append(_contrast(name, found, zero))
    return (_contrast("wci", np.concatenate([*pooled, np.empty(0)]), zero), *rows)


def _contrast(name: str, coefficients: NDArray[np.float64], zero: float) -> Measurement:
    """Return log(P95 / P50), or ``None`` and why there is none; a median up to ``zero`` is none."""
    if coefficients.size == 0:
        return Measurement(name, None, "no coefficient rests on valid voxels alone")
    high, median = np.percentile(coefficients, (95, 50))
    if median <= zero:
        return Measurement(name, None, "the median detail coefficient is 0")
    return Measurement(name, math.log(high / median))

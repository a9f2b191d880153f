"""Normalised root-mean-square error of a plane or a volume and its truth, after CARE's normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._care import mean_squared_errors, suffixed


def nrmse(
    image: NDArray[Any], truth: NDArray[Any], *, region: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the normalised root-mean-square error of one plane (Y, X), or of a volume; lower is better.

    The truth is scaled so that its percentiles 0.1 and 99.9 become 0 and 1, without clipping; the image is
    replaced by the a * image + b that fits it best in least squares over the whole of it; the root of the mean
    squared difference is the error, in float64. It does not change under an affine change of either.

    Args:
        image: one plane (Y, X) or a volume (Z, Y, X), any unit.
        truth: what it should be, of the same shape, any unit.
        region: pixels of that shape over which the squares are averaged for ``nrmse_foreground``; the fit stays that
            of the whole plane.

    Returns:
        ``nrmse`` and, where ``region`` is given, ``nrmse_foreground``, from 0; ``None`` with a reason where the
        truth is constant or the region empty.

    Source: CARE, supplement, equations 2.1 to 2.3.
    """
    errors = mean_squared_errors(image, truth, region)
    return tuple(
        Measurement(name, None, error) if isinstance(error, str) else Measurement(name, math.sqrt(error))
        for name, error in zip(suffixed("nrmse", region), errors, strict=True)
    )

"""The noise that a filter assumes where the user names none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import estimate_sigma

from deepcontrast.errors import InputError


def noise_or_estimate(volume: NDArray[np.float32], noise: float | None) -> float:
    """Return the given standard deviation in grey levels, or the median over planes of scikit-image's estimate.

    The estimate is the median absolute deviation of the finest wavelets (Donoho & Johnstone 1994).

    Args:
        volume: (Z, Y, X).
        noise: in grey levels; ``None`` to estimate it.

    Raises:
        InputError: a negative noise.
    """
    if noise is not None:
        if not noise >= 0:
            raise InputError(f"noise of {noise} grey levels; accepted: 0 or more, or none to have it estimated")
        return float(noise)
    planes = volume[:: max(1, len(volume) // 16)]
    # Zeros are left out of that median, so that a plane without texture has no estimate of its own.
    found = [
        float(estimate_sigma(plane.astype(np.float64))) if np.ptp(plane) else 0.0  # type: ignore[no-untyped-call]
        for plane in planes
    ]
    return float(np.median(np.nan_to_num(found)))

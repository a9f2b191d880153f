"""Cubic interpolation, then Richardson-Lucy on the planes so made, with the blur sampled as finely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.upsamplers._axial_lucy import axial_lucy
from deepcontrast.upsamplers.cubic import cubic

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"iterations": n} for n in (3, 5, 20, 50))


def richardson_lucy_fine(
    volume: NDArray[np.float32],
    *,
    factor: float,
    sigma: float,
    offset: float = 0.0,
    iterations: int = 10,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return a volume with planes between its planes by cubic splines, deconvolved along the axis.

    Args:
        volume: (Z, Y, X), grey levels.
        factor: distance of planes in pixels, 1 or more.
        sigma: standard deviation of the axial blur on top of the lateral one, in pixels, 0 or more.
        offset: grey level without light.
        iterations: of Richardson-Lucy, 1 or more.
        device: "cpu" or "cuda".

    Returns:
        (round(Z factor), Y, X), at :func:`deepcontrast.upsampled.places`, in the volume's grey levels. Memory: about 16
        times the result.

    Raises:
        InputError: a setting out of its range, or not a volume of two planes or more.

    Source: CARE, supplement, section 2.4 (deconvolution of the upsampled stack with the upsampled PSF); Richardson
    1972; Lucy 1974.
    """
    return axial_lucy(cubic(volume, factor=factor), sigma, offset, iterations, device)

"""Richardson-Lucy on the planes as they were taken, with the blur sampled there; then cubic interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.upsamplers._axial_lucy import axial_lucy
from deepcontrast.upsamplers._checked import checked
from deepcontrast.upsamplers.cubic import cubic

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"iterations": n} for n in (3, 5, 20, 50))


def richardson_lucy_planes(
    volume: NDArray[np.float32],
    *,
    factor: float,
    sigma: float,
    offset: float = 0.0,
    iterations: int = 10,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return a volume whose planes were deconvolved along the axis, with planes between them by cubic splines.

    Args:
        volume: (Z, Y, X), grey levels.
        factor: distance of planes in pixels, 1 or more.
        sigma: standard deviation of the axial blur on top of the lateral one, in pixels, 0 or more; on the planes it
            is the Gaussian of ``sigma / factor`` at whole planes.
        offset: grey level without light.
        iterations: of Richardson-Lucy, 1 or more.
        device: "cpu" or "cuda".

    Returns:
        (round(Z factor), Y, X), at :func:`deepcontrast.upsampled.places`, in the volume's grey levels.

    Raises:
        InputError: a setting out of its range, or not a volume of two planes or more.

    Source: CARE, supplement, section 2.4 (deconvolution with the PSF of the stack's own planes); Richardson 1972; Lucy
    1974.
    """
    given = checked(volume, factor)
    return cubic(axial_lucy(given, sigma / factor, offset, iterations, device), factor=factor)

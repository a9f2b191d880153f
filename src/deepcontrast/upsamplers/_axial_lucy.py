"""Richardson-Lucy against a blur along the axis alone, on the planes of any grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepcontrast.axial_blur import gaussian
from deepcontrast.baselines.richardson_lucy import richardson_lucy
from deepcontrast.errors import InputError


def axial_lucy(
    volume: NDArray[np.float32], sigma: float, offset: float, iterations: int, device: str
) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) whose planes are no longer mixed, in its own grey levels.

    Args:
        volume: (Z, Y, X).
        sigma: standard deviation of the Gaussian along Z, in planes, 0 or more.
        offset: grey level without light.
        iterations: 1 or more.
        device: "cpu" or "cuda".

    Raises:
        InputError: a setting out of its range.
    """
    if not sigma >= 0:
        raise InputError(f"a blur of {sigma} pixels along the axis; accepted: 0 or more")
    spot = gaussian(sigma)[:, :, None]
    made = richardson_lucy(volume, psf=spot, offset=offset, iterations=iterations, tolerance=0.0, device=device)
    return made + np.float32(offset)

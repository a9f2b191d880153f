"""BM3D, plane by plane, where the user has the package ``bm3d``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.baselines import Scene
from deepcontrast.baselines._noise import noise_or_estimate
from deepcontrast.baselines._own_package import own_package

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"strength": strength} for strength in (0.5, 0.75, 1.0, 1.5, 2.0))


def bm3d(volume: NDArray[np.float32], *, noise: float | None = None, strength: float = 1.0) -> NDArray[np.float32]:
    """Return each plane denoised by block matching and 3D filtering, with the package's own settings.

    Args:
        volume: (Z, Y, X).
        noise: standard deviation in grey levels; ``None`` to estimate it.
        strength: factor of the noise that the filter is told.

    Returns:
        (Z, Y, X) in grey levels.

    Raises:
        InputError: the package is not installed; its licence allows non-commercial use only. A negative noise.

    Source: Dabov, Foi, Katkovnik & Egiazarian 2007; Mäkinen, Azzari & Foi 2020.
    """
    denoise = own_package("bm3d")
    out = np.array(volume, np.float32)
    sigma = strength * noise_or_estimate(out, noise)
    for plane in out:
        bottom, span = plane.min(), np.ptp(plane)
        if sigma and span:
            plane[:] = bottom + span * denoise(((plane - bottom) / span).astype(np.float64), sigma / float(span))
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return the known noise, as the authors' examples do."""
    return {"noise": scene.noise, "strength": 1.0}

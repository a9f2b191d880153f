"""BM4D, in space, where the user has the package ``bm4d``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.baselines import Scene
from deepcontrast.baselines._noise import noise_or_estimate
from deepcontrast.baselines._own_package import own_package

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"strength": strength} for strength in (0.5, 0.75, 1.0, 1.5, 2.0))


def bm4d(volume: NDArray[np.float32], *, noise: float | None = None, strength: float = 1.0) -> NDArray[np.float32]:
    """Return the volume denoised by block matching and 4D filtering, with the package's own settings.

    Args:
        volume: (Z, Y, X).
        noise: standard deviation in grey levels; ``None`` to estimate it.
        strength: factor of the noise that the filter is told.

    Returns:
        (Z, Y, X) in grey levels.

    Raises:
        InputError: the package is not installed; its licence allows non-commercial use only. A negative noise.

    Source: Maggioni, Katkovnik, Egiazarian & Foi 2013; Mäkinen, Marchesini & Foi 2022.
    """
    denoise = own_package("bm4d")
    out = np.array(volume, np.float32)
    sigma = strength * noise_or_estimate(out, noise)
    bottom, span = out.min(), np.ptp(out)
    if not sigma or not span:
        return out
    unit = denoise(((out - bottom) / span).astype(np.float64), sigma / float(span))
    return np.asarray(bottom + span * np.reshape(unit, out.shape), np.float32)


def suggested(scene: Scene) -> dict[str, Any]:
    """Return the known noise, as the authors' examples do."""
    return {"noise": scene.noise, "strength": 1.0}

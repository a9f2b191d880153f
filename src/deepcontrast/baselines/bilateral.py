"""Bilateral filter, plane by plane: a mean over near pixels of similar grey level."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_bilateral

from deepcontrast.baselines import Scene
from deepcontrast.baselines._noise import noise_or_estimate

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"radius": radius, "strength": strength} for radius, strength in product((1.0, 2.0), (1.0, 2.0, 4.0, 8.0))
)


def bilateral(
    volume: NDArray[np.float32], *, noise: float | None = None, strength: float = 2.0, radius: float = 1.5
) -> NDArray[np.float32]:
    """Return each plane averaged over pixels that are near and of similar grey level.

    ``skimage.restoration.denoise_bilateral`` with ``sigma_spatial = radius``, ``sigma_color = strength *
    noise``, mirrored edges and a window of three standard deviations. Fiji's "Bilateral Filter" calls them
    spatial radius and range radius.

    Args:
        volume: (Z, Y, X).
        noise: standard deviation in grey levels; ``None`` to estimate it.
        strength: grey levels that count as similar, in standard deviations of the noise.
        radius: standard deviation of the spatial Gaussian in pixels.

    Returns:
        (Z, Y, X) in grey levels. Memory: the result and a few planes.

    Raises:
        InputError: a negative noise.

    Source: Tomasi & Manduchi 1998.
    """
    out = np.array(volume, np.float32)
    level = strength * noise_or_estimate(out, noise)
    if level == 0:
        return out
    for plane in out:
        bottom = plane.min()
        span = np.ptp(plane)
        if span:
            # scikit-image tabulates similarity over 0 .. maximum, coarsely where an offset fills that range.
            unit = ((plane - bottom) / span).astype(np.float64)
            smooth = denoise_bilateral(unit, sigma_color=level / span, sigma_spatial=radius, mode="symmetric")
            plane[:] = bottom + span * smooth.reshape(plane.shape)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return a range of twice the known noise and a spatial radius of half the structures' half width, 1 to 2 px.

    Zhang & Gunturk 2008: the best range is 2 to 3 times the noise, the best spatial deviation 1.5 to 2.1 pixels
    whatever the noise.
    """
    return {"noise": scene.noise, "strength": 2.0, "radius": min(2.0, max(1.0, scene.radius / 2))}

"""From a density of fluorophores to photons, and from photons to grey levels; shared by the phantoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.stack import Optics


def photon_scale(truth: NDArray[np.float32], light: float) -> float:
    """Return the factor that gives the brightest structures of truth (percentile 99.9) ``light`` photons.

    Raises:
        InputError: so little glows that a percentile has no meaning.
    """
    brightest = float(np.percentile(truth, 99.9))
    if brightest <= 0:
        raise InputError(f"a tissue {truth.shape} of which less than 0.1 % glows; accepted: larger or denser ones")
    return light / brightest


def expose(rng: np.random.Generator, photons: NDArray[np.float32], parameters: Mapping[str, Any]) -> NDArray[np.uint16]:
    """Return the grey levels (Z, Y, X) of expected photons: Poisson noise, gain, offset, read noise, 16 bits."""
    p = parameters
    raw = np.empty(photons.shape, np.uint16)
    for z, plane in enumerate(photons):
        grey = p["gain"] * rng.poisson(plane) + p["offset"] + rng.normal(0, p["read_noise"], plane.shape)
        raw[z] = np.clip(np.rint(grey), 0, np.iinfo(np.uint16).max)
    return raw


def optics_of(parameters: Mapping[str, Any], voxel_um: tuple[float, float, float]) -> Optics:
    """Return what a microscopist would know of a phantom with voxels (z, y, x) of this size."""
    p = parameters
    return Optics(voxel_size=voxel_um, surface="first", gain=p["gain"], offset=p["offset"], read_noise=p["read_noise"])

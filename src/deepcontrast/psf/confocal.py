"""The point-spread function of a confocal microscope."""

from __future__ import annotations

from math import ceil, pi

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_legendre

from deepcontrast.errors import InputError
from deepcontrast.psf.debye import AIRY, Array, Lengths, Wave, focus, middle_of, wave_of
from deepcontrast.psf.voxels import Shape, along_radius, round_means


def confocal(
    shape: Shape,
    *,
    na: float,
    excitation_um: float,
    emission_um: float,
    index: float,
    voxel_um: Lengths,
    pinhole: float = 1.0,
    sample_index: float | None = None,
    depth_um: float = 0.0,
    centre: str = "brightest",
) -> NDArray[np.float32]:
    """Return the point-spread function of a confocal microscope: excitation times detection.

    Both are `widefield` spots at their wavelengths; detection is averaged over the pinhole (Wilson 1990,
    Confocal Microscopy, chapter 3).

    Args:
        shape: (Z, Y, X), odd sizes.
        na: numerical aperture, below ``index``.
        excitation_um: wavelength of the laser in vacuum.
        emission_um: wavelength of the detected light in vacuum.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).
        pinhole: diameter in Airy units of the emission (1.22 emission / na); 0 is a point.
        sample_index, depth_um, centre: as in `widefield`; the brightest focus is that of the excitation.

    Returns:
        (Z, Y, X), centred, sum 1.

    Raises:
        InputError: as `widefield`; a pinhole that cannot be.
    """
    excitation, emission = (wave_of(na, wave, index, sample_index, depth_um) for wave in (excitation_um, emission_um))
    if not 0 <= pinhole <= 100:
        raise InputError(f"pinhole of {pinhole} Airy units; accepted: 0 (a point) to 100")
    middle = middle_of(centre, excitation)

    def profile(r: Array, z: Array) -> Array:
        return focus(r, z + middle, excitation) * _through(emission, pinhole * AIRY * emission_um / na, r, z + middle)

    axial, lateral = (a + b for a, b in zip(excitation.band, emission.band, strict=True))
    return round_means(profile, shape, voxel_um, (axial, lateral), even=emission.is_even)


def _through(wave: Wave, radius: float, r: Array, z: Array) -> Array:
    """Return the mean of a spot over a disc around every radius, (R, Z): what a pinhole lets through."""
    if radius == 0:
        return focus(r, z, wave)
    step = 1 / (16 * wave.band[1])
    count = 8 + ceil(radius / (5 * step))
    nodes, weights = roots_legendre(count)
    rings = radius * (1 + nodes) / 2
    # An integral over a disc weighs every ring by its length; around a ring the midpoint rule is exact.
    weights = (weights * rings / (weights * rings).sum())[:, None] / (2 * count)
    angles = pi * (np.arange(2 * count) + 0.5) / (2 * count)
    across = np.hypot(r[:, None, None] + rings[:, None] * np.cos(angles), rings[:, None] * np.sin(angles))
    fine = np.arange(0, r.max() + radius + 2 * step, step)
    planes = [(along_radius(fine, plane)(across) * weights).sum(axis=(1, 2)) for plane in focus(fine, z, wave).T]
    return np.stack(planes, axis=1)

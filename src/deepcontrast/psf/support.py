"""How large a grid a point-spread function needs, and how fine."""

from __future__ import annotations

from math import ceil, sqrt

from deepcontrast.psf.debye import AIRY, Lengths, wave_of
from deepcontrast.psf.voxels import Shape, check_voxel

MEDIA = {0.95: 1.0, 1.2: 1.33, 1.3: 1.45}
"""Refractive indices of air, water and glycerol by the largest numerical aperture of their objectives."""
OIL = 1.515


def support(*, na: float, wavelength_um: float, index: float, voxel_um: Lengths) -> Shape:
    """Return odd sizes (Z, Y, X) of a grid that holds the focus out to the third axial zero, and its cone of light.

    Args:
        na: numerical aperture, below ``index``.
        wavelength_um: the longest wavelength.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).

    Raises:
        InputError: a length that is not positive, an aperture the index does not allow.
    """
    wave = wave_of(na, wavelength_um, index)
    check_voxel(voxel_um)
    depth = 3 / wave.band[0]
    width = depth * na / sqrt(index**2 - na**2) + 2 * AIRY * wavelength_um / na
    z, y, x = (2 * ceil(half / size) + 1 for half, size in zip((depth, width, width), voxel_um, strict=True))
    return z, y, x


def nyquist(*, na: float, wavelength_um: float, index: float) -> tuple[float, float]:
    """Return the largest voxel (axial, lateral) in micrometres that keeps all that a widefield microscope shows.

    wavelength / (2 (index - sqrt(index^2 - na^2))) and wavelength / (4 na): half a period at the end of the band.

    Raises:
        InputError: as :func:`support`.
    """
    axial, lateral = wave_of(na, wavelength_um, index).band
    return 1 / (2 * axial), 1 / (2 * lateral)


def medium(na: float) -> float:
    """Return the refractive index of the immersion that an objective of this numerical aperture is likely made for."""
    return next((index for largest, index in MEDIA.items() if na <= largest), OIL)

"""The point-spread function of a light-sheet microscope."""

from __future__ import annotations

from math import isfinite, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.psf.debye import Array, Lengths, focus, middle_of, wave_of
from deepcontrast.psf.voxels import Shape, round_means


def light_sheet(
    shape: Shape,
    *,
    na: float,
    wavelength_um: float,
    index: float,
    voxel_um: Lengths,
    sheet_um: float,
    sample_index: float | None = None,
    depth_um: float = 0.0,
    centre: str = "brightest",
) -> NDArray[np.float32]:
    """Return the point-spread function of a light-sheet microscope: `widefield` detection times a Gaussian along z.

    The sheet lies in the focal plane and is as thick wherever the spot reaches.

    Args:
        shape: (Z, Y, X), odd sizes.
        na: numerical aperture of the detection, below ``index``.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).
        sheet_um: thickness of the sheet, its full width at half maximum; :func:`sheet_width` gives that of a beam.
        sample_index, depth_um, centre: as in `widefield`.

    Returns:
        (Z, Y, X), centred, sum 1.

    Raises:
        InputError: as `widefield`; a thickness that cannot be.
    """
    wave = wave_of(na, wavelength_um, index, sample_index, depth_um)
    check_sheet(sheet_um)
    middle = middle_of(centre, wave)

    def profile(r: Array, z: Array) -> Array:
        return focus(r, z + middle, wave) * sheet(z, sheet_um)

    axial, lateral = wave.band
    return round_means(profile, shape, voxel_um, (axial + sheet_band(sheet_um), lateral), even=wave.is_even)


def sheet_width(*, na: float, wavelength_um: float) -> float:
    """Return the full width at half maximum, in micrometres, of the waist of a sheet that a beam is focused to.

    A Gaussian beam of 1/e^2 radius wavelength / (pi na), whose intensity falls to 1/e^2 at the angle of ``na``
    (Siegman 1986, Lasers, section 17.1): sqrt(2 ln 2) of it, .375 wavelength / na.

    Args:
        na: numerical aperture of the illumination.
        wavelength_um: of the illumination in vacuum.

    Raises:
        InputError: as `widefield`.
    """
    wave_of(na, wavelength_um, max(1.0, 2 * na) if isfinite(na) else na)
    return sqrt(2 * log(2)) * wavelength_um / (pi * na)


def check_sheet(sheet_um: float) -> None:
    """Refuse a thickness that cannot be.

    Raises:
        InputError: thinner than light can be made.
    """
    if not (isfinite(sheet_um) and sheet_um >= 0.05):
        raise InputError(f"sheet {sheet_um} um thick; accepted: .05 or more")


def sheet(z: Array, sheet_um: float) -> Array:
    """Return the light in a sheet at distances from its middle, 1 in the middle."""
    return np.asarray(np.exp(-4 * log(2) * (z / sheet_um) ** 2))


def sheet_band(sheet_um: float) -> float:
    """Return the axial frequency, per micrometre, at three standard deviations of a sheet's spectrum."""
    return 3 * sqrt(8 * log(2)) / (2 * pi * sheet_um)

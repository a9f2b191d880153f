"""The point-spread function of a widefield microscope."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepcontrast.psf.debye import Array, Lengths, focus, middle_of, wave_of
from deepcontrast.psf.voxels import Shape, round_means


def widefield(
    shape: Shape,
    *,
    na: float,
    wavelength_um: float,
    index: float,
    voxel_um: Lengths,
    sample_index: float | None = None,
    depth_um: float = 0.0,
    centre: str = "brightest",
) -> NDArray[np.float32]:
    """Return the point-spread function of a widefield microscope, |U|^2 with U the scalar Debye integral.

    See :func:`deepcontrast.psf.debye.focus` for the integral and its source. Intensities are averaged over each voxel,
    so that coarse voxels see what an object of such voxels gives. Neither polarisation nor apodisation: above an
    aperture of about 1.2 the true spot is a few per cent wider along the polarisation.

    A point at depth in a sample of another index than the immersion's is seen through a wave with spherical
    aberration; light that the sample does not let out, an aperture above its index, is left out. Z is the movement of
    the stage: towards higher z the focus lies deeper in the sample.

    Args:
        shape: (Z, Y, X), odd sizes; `support` gives one that holds the light.
        na: numerical aperture, below ``index``.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium, that which the objective is made for.
        voxel_um: size of a voxel (z, y, x).
        sample_index: refractive index of the sample; that of the immersion by default.
        depth_um: of the point below the coverslip.
        centre: what lies in the middle of the grid: "brightest", the brightest focus on the axis, or "nominal", where
            the rays near the axis meet, after the stage moved by depth times index / sample_index.

    Returns:
        (Z, Y, X), centred, sum 1.

    Raises:
        InputError: an even size, a length that is not positive, an aperture the index does not allow, a depth that
            cannot be.
    """
    wave = wave_of(na, wavelength_um, index, sample_index, depth_um)
    middle = middle_of(centre, wave)

    def profile(r: Array, z: Array) -> Array:
        return focus(r, z + middle, wave)

    return round_means(profile, shape, voxel_um, wave.band, even=wave.is_even)

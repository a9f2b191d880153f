"""The point-spread function of a two-photon microscope."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepcontrast.psf.debye import Array, Lengths, focus, middle_of, wave_of
from deepcontrast.psf.voxels import Shape, round_means


def two_photon(
    shape: Shape,
    *,
    na: float,
    excitation_um: float,
    index: float,
    voxel_um: Lengths,
    sample_index: float | None = None,
    depth_um: float = 0.0,
    centre: str = "brightest",
) -> NDArray[np.float32]:
    """Return the point-spread function of a two-photon microscope that detects all light: the squared excitation.

    The excitation is the `widefield` spot at the laser's wavelength; two of its photons are absorbed at once (Denk et
    al. 1990, Science 248, 73).

    Args:
        shape: (Z, Y, X), odd sizes.
        na: numerical aperture that the laser fills, below ``index``.
        excitation_um: wavelength of the laser in vacuum, e.g. 0.92.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).
        sample_index, depth_um, centre: as in `widefield`.

    Returns:
        (Z, Y, X), centred, sum 1.

    Raises:
        InputError: as `widefield`.
    """
    wave = wave_of(na, excitation_um, index, sample_index, depth_um)
    middle = middle_of(centre, wave)

    def profile(r: Array, z: Array) -> Array:
        return focus(r, z + middle, wave) ** 2

    axial, lateral = wave.band
    return round_means(profile, shape, voxel_um, (2 * axial, 2 * lateral), even=wave.is_even)

"""The point-spread function of an objective whose wave is aberrated, which need not be round."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf, isfinite, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_legendre

from deepcontrast.errors import InputError
from deepcontrast.psf.debye import Array, Lengths, wave_of
from deepcontrast.psf.light_sheet import check_sheet, sheet, sheet_band
from deepcontrast.psf.voxels import Shape, check_shape, check_voxel, inside
from deepcontrast.psf.zernike import orders, zernike


def aberrated(
    shape: Shape,
    *,
    na: float,
    wavelength_um: float,
    index: float,
    voxel_um: Lengths,
    aberrations: Mapping[int, float],
    sheet_um: float | None = None,
    photons: int = 1,
) -> NDArray[np.float32]:
    """Return the point-spread function of a microscope whose wave is ahead by a sum of Zernike polynomials.

    |U|^2, U(x, y, z) the integral of exp(i W(p) - i k na (p_x x + p_y y) + i k index z cos t) / cos t over the unit
    disc of the pupil p, with sin t = na |p| / index, k = 2 pi / wavelength: what :func:`deepcontrast.psf.widefield`
    integrates, times exp(i W). The disc is integrated by Gauss-Chebyshev across and Gauss-Legendre along its chords,
    exact for the waves that the grid can see, as products of matrices: no grid of frequencies, nothing wraps around.
    Means over voxels as there.

    Args:
        shape: (Z, Y, X), odd sizes.
        na: numerical aperture, below ``index``.
        wavelength_um: wavelength in vacuum.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).
        aberrations: OSA/ANSI index to root mean square over the pupil, in radians; see
            :func:`deepcontrast.psf.zernike`. Piston (0) changes nothing. Tilts (1 along y, 2 along x) and defocus (4)
            are taken too: where positive they move the spot to higher y, x and z, off the middle of the grid.
        sheet_um: thickness of a light sheet, as in :func:`deepcontrast.psf.light_sheet`; ``None`` for none.
        photons: 2 for two-photon excitation, whose ``wavelength_um`` is the laser's: the square.

    Returns:
        (Z, Y, X), sum 1.

    Raises:
        InputError: as `widefield`; an aberration, a sheet or a number of photons that cannot be.
    """
    check_shape(shape)
    check_voxel(voxel_um)
    wave = wave_of(na, wavelength_um, index)
    for j, amount in aberrations.items():
        orders(j)
        if not isfinite(amount) or abs(amount) > 50:
            raise InputError(f"{amount} radians of Zernike {j}; accepted: -50 to 50 (root mean square)")
    if photons not in (1, 2):
        raise InputError(f"excitation by {photons} photons; accepted: 1 or 2")
    axial, lateral = wave.band
    thickness = inf if sheet_um is None else sheet_um
    if sheet_um is not None:
        check_sheet(sheet_um)
    (dz, z_weights), (dy, y_weights), (dx, x_weights) = (
        inside(size, photons * end)
        for size, end in zip(voxel_um, (axial + sheet_band(thickness), lateral, lateral), strict=True)
    )
    z, y, x = ((np.arange(n) - n // 2) * size for n, size in zip(shape, voxel_um, strict=True))
    k = 2 * pi / wavelength_um
    # A wave needs half as many nodes as the phase across the pupil; a polynomial swings about n times.
    turns = 2 * pi * axial * (np.abs(z).max() + voxel_um[0] / 2)
    turns += sum(
        abs(amount) * sqrt(2 * (n + 1)) * n for n, amount in ((orders(j)[0], a) for j, a in aberrations.items())
    )
    rows, columns = (
        24 + ceil((turns + pi * lateral * n * size / 2) / 2) for n, size in zip(shape[1:], voxel_um[1:], strict=True)
    )
    p_y, p_x, area = _disc(rows, columns)
    cosine = np.sqrt(1 - (na / index) ** 2 * (p_y[:, None] ** 2 + p_x**2))
    rho, theta = np.hypot(p_y[:, None], p_x), np.arctan2(p_y[:, None], p_x)
    lead = sum((amount * zernike(j, rho, theta) for j, amount in aberrations.items()), np.zeros_like(rho))
    pupil = area / cosine * np.exp(1j * lead)
    along_y = np.exp(-1j * k * na * np.outer((y[:, None] + dy).ravel(), p_y))
    along_x = np.exp(-1j * k * na * (x[:, None] + dx).reshape(-1, 1) * p_x[:, None, :])
    out = np.empty(shape)
    for plane, distance in zip(out, z, strict=True):
        refocused = pupil[..., None] * np.exp(1j * k * index * (cosine[..., None] - 1) * (distance + dz))
        # (rows of the pupil, x, planes), then (y, x, planes).
        chords = along_x @ refocused
        field = np.tensordot(along_y, chords, (1, 0))
        intensity = (field.real**2 + field.imag**2) ** photons @ (z_weights * sheet(distance + dz, thickness))
        fine = intensity.reshape(len(y), len(dy), len(x), len(dx))
        plane[:] = np.einsum("aibj,i,j->ab", fine, y_weights, x_weights)
    return np.asarray(out / out.sum(), np.float32)


def _disc(rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Return places in the unit disc, (J,) along y and (J, I) along x, and their weights (J, I), sum pi."""
    angle = pi * np.arange(1, rows + 1) / (rows + 1)
    nodes, weights = roots_legendre(columns)
    half = np.sin(angle)
    return np.cos(angle), np.outer(half, nodes), np.outer(pi / (rows + 1) * half**2, weights)

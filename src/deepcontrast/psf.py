"""Point-spread functions from the numbers of the optics; lengths in micrometres, axes (Z, Y, X).

The scalar Debye integral of a circular pupil, not its paraxial (Born-Wolf) limit, so that the axial extent holds
at high aperture. Neither polarisation nor aberrations: above an aperture of about 1.2 the true spot is a few per
cent wider along the polarisation, and deep in tissue it is wider still.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline
from scipy.special import j0, roots_legendre

from deepcontrast.errors import InputError

Shape = tuple[int, int, int]
Lengths = tuple[float, float, float]
Profile = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Intensity at every radius and every distance from focus, (R,) and (Z,) to (R, Z)."""

AIRY = 0.61
"""Radius of the first dark ring in units of wavelength / aperture; an Airy unit is twice that."""


def widefield(shape: Shape, *, na: float, wavelength_um: float, index: float, voxel_um: Lengths) -> NDArray[np.float32]:
    """Return the point-spread function of a widefield microscope, |U|^2 with U the scalar Debye integral.

    U(r, z) is the integral of J0(k r sin t) exp(i k z cos t) over cos t within the aperture, k = 2 pi index /
    wavelength: Born & Wolf, Principles of Optics, section 8.8, without their small-angle step; no apodisation.
    Intensities are averaged over each voxel, so that coarse voxels see what an object of such voxels gives.

    Args:
        shape: (Z, Y, X), odd sizes; `support` gives one that holds the light.
        na: numerical aperture, below ``index``.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).

    Returns:
        (Z, Y, X), centred, sum 1.

    Raises:
        InputError: an even size, a length that is not positive, an aperture the index does not allow.
    """
    _check_optics(na, index, voxel_um, wavelength_um)
    return _on_grid(
        partial(_focus, na=na, wavelength=wavelength_um, index=index), shape, na, wavelength_um, index, voxel_um
    )


def confocal(
    shape: Shape,
    *,
    na: float,
    excitation_um: float,
    emission_um: float,
    index: float,
    voxel_um: Lengths,
    pinhole: float = 1.0,
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

    Returns:
        (Z, Y, X), centred, sum 1.

    Raises:
        InputError: as `widefield`; a negative pinhole.
    """
    _check_optics(na, index, voxel_um, excitation_um, emission_um)
    if not pinhole >= 0:
        raise InputError(f"pinhole of {pinhole} Airy units; accepted: 0 (a point) or more")
    radius = pinhole * AIRY * emission_um / na

    def profile(r: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
        detection = partial(_focus, na=na, wavelength=emission_um, index=index)
        step = _steps(na, emission_um, index)[0]
        return _focus(r, z, na=na, wavelength=excitation_um, index=index) * _through(detection, radius, r, z, step)

    return _on_grid(profile, shape, na, excitation_um, index, voxel_um)


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
    _check_optics(na, index, voxel_um, wavelength_um)
    axial = sqrt(index**2 - na**2)
    depth = 3 * wavelength_um / (index - axial)
    width = depth * na / axial + 2 * AIRY * wavelength_um / na
    z, y, x = (2 * ceil(half / size) + 1 for half, size in zip((depth, width, width), voxel_um, strict=True))
    return z, y, x


def of_bead(image: ArrayLike) -> NDArray[np.float64]:
    """Return the point-spread function that the image of a bead shows, or a point-spread function as it is.

    Less the median of all voxels; what does not hang together with the brightest voxel above three standard deviations
    of the noise (of the smoothed image, from its median absolute deviation), and two voxels around it, is 0. The size
    of the bead stays in it.

    Args:
        image: (Z, Y, X), one bead in it, most of it background.

    Raises:
        InputError: not three axes, values that are not finite, or nothing above the background.
    """
    given = np.asarray(image, np.float64)
    accepted = "accepted: the image of one bead, or a PSF, (Z, Y, X), of finite values"
    if given.ndim != 3 or not given.size:
        raise InputError(f"the PSF has shape {given.shape}; {accepted}")
    if bad := int(given.size - np.isfinite(given).sum()):
        raise InputError(f"{bad} of {given.size} values of the PSF are NaN or infinite; {accepted}")
    spot = given - np.median(given)
    smooth = ndimage.gaussian_filter(spot, 1.0)
    noise = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth))))
    parts, _ = ndimage.label(smooth > 3 * noise)
    own = parts[np.unravel_index(int(np.argmax(smooth)), spot.shape)]
    if not own:
        raise InputError(f"the PSF has nothing above its background; {accepted}")
    near = ndimage.binary_dilation(parts == own, iterations=2)
    return np.where(near, np.maximum(spot, 0), 0.0)


def check_psf(psf: ArrayLike) -> NDArray[np.float32]:
    """Return a measured point-spread function ready for use: odd sizes, centred, non-negative, sum 1.

    The centre is the brightest voxel after a mean over 3 voxels; the largest box around it is kept. Negative
    values, which background subtraction leaves, become 0. The background itself is for the caller to subtract.

    Args:
        psf: (Z, Y, X), or (Y, X) for planes.

    Raises:
        InputError: another number of axes, values that are not finite, no light, more negative than positive.
    """
    given = np.asarray(psf)
    accepted = "accepted: a PSF (Z, Y, X) or (Y, X) of finite values, background subtracted, with a positive sum"
    if given.ndim not in (2, 3) or not given.size:
        raise InputError(f"the PSF has shape {given.shape}; {accepted}")
    spot = np.asarray(given if given.ndim == 3 else given[None], np.float64)
    bad = int(spot.size - np.isfinite(spot).sum())
    if bad:
        raise InputError(f"{bad} of {spot.size} values of the PSF are NaN or infinite; {accepted}")
    if not spot.sum() > 0:
        raise InputError(f"the values of the PSF add up to {spot.sum():.4g}; {accepted}")
    smooth = ndimage.uniform_filter(spot, 3, mode="constant")
    # Of a spot narrower than the mean is wide, many voxels are as bright after it.
    brightest = np.where(smooth >= (1 - 1e-6) * smooth.max(), spot, -np.inf)
    peak = np.unravel_index(int(np.argmax(brightest)), spot.shape)
    reach = [min(int(p), n - 1 - int(p)) for p, n in zip(peak, spot.shape, strict=True)]
    box = tuple(slice(int(p) - k, int(p) + k + 1) for p, k in zip(peak, reach, strict=True))
    kept = np.maximum(spot[box], 0)
    return np.asarray(kept / kept.sum(), np.float32)


def _check_optics(na: float, index: float, voxel_um: Lengths, *wavelengths_um: float) -> None:
    lengths = (*voxel_um, *wavelengths_um)
    if not all(np.isfinite(length) and length > 0 for length in lengths):
        raise InputError(f"voxel {tuple(voxel_um)} um, wavelength {wavelengths_um} um; accepted: lengths above 0")
    if max(wavelengths_um) > 20:
        raise InputError(f"wavelength {wavelengths_um} um; accepted: micrometres, e.g. 0.52 for 520 nm")
    if not 0 < na < index:
        raise InputError(f"numerical aperture {na} in a medium of index {index}; accepted: above 0, below the index")


def _focus(
    r: NDArray[np.float64], z: NDArray[np.float64], *, na: float, wavelength: float, index: float
) -> NDArray[np.float64]:
    """Return |U|^2 at radii (R,) and distances from focus (Z,), as (R, Z); 1 at the focus."""
    k = 2 * pi * index / wavelength
    lowest = sqrt(1 - (na / index) ** 2)
    phase = k * (np.abs(z).max() * (1 - lowest) + np.abs(r).max() * na / index)
    # Gauss-Legendre is exact for a wave once it has more nodes than half the phase across the interval.
    nodes, weights = roots_legendre(32 + ceil(phase / 2))
    cosine = (1 + lowest + (1 - lowest) * nodes) / 2
    bessel = j0(k * np.outer(r, np.sqrt(1 - cosine**2))) * (weights / 2)
    field = bessel @ np.exp(1j * k * np.outer(cosine - 1, z))
    intensity: NDArray[np.float64] = np.abs(field) ** 2
    return intensity


def _through(
    spot: Profile, radius: float, r: NDArray[np.float64], z: NDArray[np.float64], step: float
) -> NDArray[np.float64]:
    """Return the mean of a spot over a disc around every radius, (R, Z): what a pinhole lets through."""
    if radius == 0:
        return spot(r, z)
    count = 8 + ceil(radius / (5 * step))
    nodes, weights = roots_legendre(count)
    rings = radius * (1 + nodes) / 2
    # An integral over a disc weighs every ring by its length; around a ring the midpoint rule is exact.
    weights = (weights * rings / (weights * rings).sum())[:, None] / (2 * count)
    angles = pi * (np.arange(2 * count) + 0.5) / (2 * count)
    across = np.hypot(r[:, None, None] + rings[:, None] * np.cos(angles), rings[:, None] * np.sin(angles))
    fine = np.arange(0, r.max() + radius + 2 * step, step)
    values = spot(fine, z)
    planes = [(_spline(fine, values[:, i])(across) * weights).sum(axis=(1, 2)) for i in range(len(z))]
    return np.stack(planes, axis=1)


def _on_grid(
    profile: Profile, shape: Shape, na: float, wavelength: float, index: float, voxel_um: Lengths
) -> NDArray[np.float32]:
    """Return the voxel means of a profile that is round about the axis and even about the focus."""
    if len(shape) != 3 or any(n < 1 or n % 2 == 0 for n in shape):
        raise InputError(f"shape {tuple(shape)} of a PSF; accepted: three odd sizes, Z, Y, X")
    lateral, axial = _steps(na, wavelength, index)
    places = []
    for n, size, step in zip(shape, voxel_um, (axial, 2 * lateral, 2 * lateral), strict=True):
        parts = ceil(size / step)
        inside = (np.arange(parts) + 0.5) / parts - 0.5
        places.append(np.abs(np.arange(n // 2 + 1)[:, None] + inside) * size)
    z, y, x = places
    radius = np.hypot(y.reshape(-1, 1), x.reshape(1, -1))
    r = np.arange(0, radius.max() + 2 * lateral, lateral)
    values = profile(r, z.ravel()).reshape(len(r), *z.shape).mean(axis=2)
    corner = np.empty((len(z), len(y), len(x)))
    for plane, curve in zip(corner, values.T, strict=True):
        fine = _spline(r, curve)(radius).reshape(*y.shape, *x.shape)
        plane[:] = np.maximum(fine.mean(axis=(1, 3)), 0)
    whole = corner
    for axis in range(3):
        mirrored = np.flip(whole, axis)
        half = mirrored[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]
        whole = np.concatenate([half, whole], axis)
    return np.asarray(whole / whole.sum(), np.float32)


def _steps(na: float, wavelength: float, index: float) -> tuple[float, float]:
    """Return radial and axial steps at which the intensity is smooth: a tenth and a fifth of its shortest wave."""
    return wavelength / (20 * na), wavelength / (5 * (index - sqrt(index**2 - na**2)))


def _spline(
    r: NDArray[np.float64], values: NDArray[np.float64]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    spline: Callable[[NDArray[np.float64]], NDArray[np.float64]] = CubicSpline(
        r, values, bc_type=("clamped", "not-a-knot")
    )
    return spline

"""Means over voxels of intensities that are known everywhere; lengths in micrometres, axes (Z, Y, X)."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isfinite, pi

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import roots_legendre

from deepcontrast.errors import InputError
from deepcontrast.psf.debye import Array, Lengths

Shape = tuple[int, int, int]
COARSEST = 50
"""Voxels in periods of the finest detail."""
Profile = Callable[[Array, Array], Array]
"""Intensity at every radius and every distance from focus, (R,) and (Z,) to (R, Z)."""


def check_shape(shape: Shape) -> None:
    """Refuse sizes that have no middle voxel.

    Raises:
        InputError: not three odd sizes.
    """
    if len(shape) != 3 or any(n < 1 or n % 2 == 0 for n in shape):
        raise InputError(f"shape {tuple(shape)} of a PSF; accepted: three odd sizes, Z, Y, X")


def check_voxel(voxel_um: Lengths) -> None:
    """Refuse a voxel that cannot be.

    Raises:
        InputError: not three lengths above 0.
    """
    if len(voxel_um) != 3 or not all(isfinite(size) and size > 0 for size in voxel_um):
        raise InputError(f"voxel {tuple(voxel_um)} um; accepted: three lengths above 0, Z, Y, X")


def inside(size: float, band: float) -> tuple[Array, Array]:
    """Return places within a voxel, from -size / 2 to size / 2, and their weights, sum 1: Gauss-Legendre.

    The error of the mean is below .04 of a wave at the end of the band, below .002 at half of it.

    Args:
        size: of the voxel.
        band: the highest frequency of the intensity.

    Raises:
        InputError: a voxel that is far larger than all detail, as nanometres taken for micrometres are.
    """
    if size * band > COARSEST:
        raise InputError(
            f"voxels of {size:g} um where the finest detail is {1 / band:.3g} um; accepted: micrometres, up to "
            f"{COARSEST} times that"
        )
    nodes, weights = roots_legendre(1 + ceil(pi * band * size / 1.6))
    return nodes * size / 2, weights / 2


def round_means(
    profile: Profile, shape: Shape, voxel_um: Lengths, band: tuple[float, float], *, even: bool
) -> NDArray[np.float32]:
    """Return the means over voxels of a profile that is round about the axis.

    Args:
        profile: its intensity at distances from the middle of the grid.
        shape: (Z, Y, X), odd sizes.
        voxel_um: size of a voxel (z, y, x).
        band: axial and lateral frequency at which its spectrum ends, per micrometre.
        even: whether it is the same on both sides of the focus, so that half of it need be computed.

    Returns:
        (Z, Y, X), sum 1.

    Raises:
        InputError: a shape or a voxel that cannot be.
    """
    check_shape(shape)
    check_voxel(voxel_um)
    (z, z_weights), (y, y_weights), (x, x_weights) = (
        _places(n, size, end, half)
        for n, size, end, half in zip(shape, voxel_um, (band[0], band[1], band[1]), (even, True, True), strict=True)
    )
    step = 1 / (16 * band[1])
    radius = np.hypot(y.reshape(-1, 1), x.reshape(1, -1))
    r = np.arange(0, radius.max() + 2 * step, step)
    values = profile(r, z.ravel()).reshape(len(r), *z.shape) @ z_weights
    whole = np.empty((len(z), len(y), len(x)))
    for plane, curve in zip(whole, values.T, strict=True):
        fine = along_radius(r, curve)(radius).reshape(*y.shape, *x.shape)
        plane[:] = np.maximum(np.einsum("aibj,i,j->ab", fine, y_weights, x_weights), 0)
    for axis in (0, 1, 2) if even else (1, 2):
        mirrored = np.flip(whole, axis)
        half = mirrored[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]
        whole = np.concatenate([half, whole], axis)
    return np.asarray(whole / whole.sum(), np.float32)


def along_radius(r: Array, values: Array) -> Callable[[Array], Array]:
    """Return the curve through values at radii from 0, which is flat at 0."""
    spline: Callable[[Array], Array] = CubicSpline(r, values, bc_type=("clamped", "not-a-knot"))
    return spline


def _places(n: int, size: float, end: float, half: bool) -> tuple[Array, Array]:
    """Return the places in every voxel of an axis (N, M), or of those from the middle on, and their weights (M,)."""
    within, weights = inside(size, end)
    if half:
        return np.abs(np.arange(n // 2 + 1)[:, None] * size + within), weights
    return (np.arange(n) - n // 2)[:, None] * size + within, weights

"""Point-spread functions that were measured: the image of a bead, or what a file holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from deepcontrast.errors import InputError


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

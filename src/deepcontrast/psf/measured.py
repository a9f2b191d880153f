"""Point-spread functions that were measured: images of beads, or what a file holds."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.psf.voxels import Shape, check_shape

Array = NDArray[np.float64]

LEAST = 0.2
"""Of the brightest bead's height: what is as bright, smoothed, is a bead."""
FAINTEST = 6
"""Standard deviations of the smoothed noise that no voxel of noise alone reaches, whatever the size of the image."""
SHARPEST = 0.1
"""Of a voxel's height, the mean of its six neighbours below which it is a hot pixel: no spot is so narrow."""


@dataclass(frozen=True)
class Measured:
    """A point-spread function from beads.

    Attributes:
        psf: (Z, Y, X), odd sizes, centred, non-negative, sum 1, float32.
        beads: how many it is the mean of.
        left_out: how many more were found: at the border, near others, saturated, of another size, hot pixels.
    """

    psf: NDArray[np.float32]
    beads: int
    left_out: int


def measured(image: ArrayLike, *, shape: Shape | None = None) -> Measured:
    """Return the point-spread function that beads show: each centred by a fraction of a voxel, then their mean.

    A bead is what hangs together above a fifth of the brightest, after a Gaussian of one voxel and less the median of
    the image. Its centre is the centroid of what rises above half of its height; it is moved there by cubic splines.
    What does not hang together with the mean above the noise is 0, as in :func:`of_bead`. The size of the beads stays
    in it, and brighter ones weigh more, as their noise is less.

    Args:
        image: (Z, Y, X), one bead or several far from each other, most of it background.
        shape: (Z, Y, X), odd sizes, of the result: around a bead nothing else may be within it. By default what one
            bead alone leaves to the nearest border, or of several 2.5 times the extent above a fifth.

    Raises:
        InputError: an image as in `of_bead`; an even size; no bead that lies wholly inside, apart from others.
    """
    if shape is not None:
        check_shape(shape)
    field = _field(image)
    found = _beads(field)
    size = shape or _size(field, found)
    beads = _apart(field, found, size)
    if not beads:
        raise InputError(
            f"{len(found)} bright spots, but none with a box of {size} voxels inside the image, apart from others, not "
            "saturated and no hot pixel; accepted: such a bead, or a smaller shape"
        )
    total = np.sum([_centred(field.spot, bead, size) for bead in beads], axis=0)
    psf = _hanging_together(total, field.noise * sqrt(len(beads)))
    return Measured(np.asarray(psf / psf.sum(), np.float32), len(beads), len(found) - len(beads))


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
    field = _field(image)
    return _hanging_together(field.spot, field.noise)


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


@dataclass(frozen=True)
class _Field:
    """An image of beads less its background, smoothed too, the noise of that, and where the camera was saturated."""

    spot: Array
    smooth: Array
    noise: float
    saturated: NDArray[np.bool_]


@dataclass(frozen=True)
class _Bead:
    """A brightest voxel, the box of what hangs together with it, and how many voxels that is."""

    peak: tuple[int, ...]
    extent: tuple[int, ...]
    voxels: int


def _field(image: ArrayLike) -> _Field:
    counted = np.asarray(image)
    given = np.asarray(counted, np.float64)
    accepted = "accepted: the image of a bead, or a PSF, (Z, Y, X), of finite values"
    if given.ndim != 3 or not given.size:
        raise InputError(f"the PSF has shape {given.shape}; {accepted}")
    if bad := int(given.size - np.isfinite(given).sum()):
        raise InputError(f"{bad} of {given.size} values of the PSF are NaN or infinite; {accepted}")
    spot = given - np.median(given)
    smooth = ndimage.gaussian_filter(spot, 1.0)
    noise = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth))))
    if not smooth.max() > FAINTEST * noise:
        raise InputError(f"the PSF has nothing above its background; {accepted}")
    top = np.iinfo(counted.dtype).max if counted.dtype.kind in "iu" else np.inf
    return _Field(spot, smooth, noise, counted == top)


def _hanging_together(spot: Array, noise: float) -> Array:
    """Return what hangs together with the brightest voxel above three standard deviations, and two voxels around it."""
    smooth = ndimage.gaussian_filter(spot, 1.0)
    parts, _ = ndimage.label(smooth > 3 * noise)
    own = parts[np.unravel_index(int(np.argmax(smooth)), spot.shape)]
    near = ndimage.binary_dilation(parts == own, iterations=2)
    return np.where(near, np.maximum(spot, 0), 0.0)


def _beads(field: _Field) -> list[_Bead]:
    parts, _ = ndimage.label(field.smooth > max(FAINTEST * field.noise, LEAST * field.smooth.max()))
    beads = []
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        own = parts[box] == number
        inside = np.unravel_index(int(np.argmax(np.where(own, field.smooth[box], -np.inf))), own.shape)
        peak = tuple(int(p) + part.start for p, part in zip(inside, box, strict=True))
        beads.append(_Bead(peak, own.shape, int(own.sum())))
    return beads


def _size(field: _Field, beads: list[_Bead]) -> Shape:
    """Return the shape of a result that nobody chose."""
    if len(beads) == 1:
        z, y, x = (2 * min(p, n - 1 - p) + 1 for p, n in zip(beads[0].peak, field.spot.shape, strict=True))
    else:
        z, y, x = (2 * ceil(1.25 * extent) + 1 for extent in np.median([bead.extent for bead in beads], axis=0))
    return z, y, x


def _apart(field: _Field, beads: list[_Bead], size: Shape) -> list[_Bead]:
    """Return the beads whose boxes are inside the image and hold nothing else, and that look like single ones."""
    typical = float(np.median([bead.voxels for bead in beads]))
    kept = []
    for bead in beads:
        lows = [p - n // 2 for p, n in zip(bead.peak, size, strict=True)]
        if any(low < 0 or low + n > whole for low, n, whole in zip(lows, size, field.spot.shape, strict=True)):
            continue
        reach = [(np.subtract(o.peak, bead.peak), np.add(size, o.extent) / 2) for o in beads if o is not bead]
        if any(np.all(np.abs(distance) < enough) for distance, enough in reach):
            continue
        if not typical / 2 <= bead.voxels <= 2 * typical or _is_hot(field.spot, bead.peak):
            continue
        if field.saturated[_box(bead, size)].any():
            continue
        kept.append(bead)
    return kept


def _is_hot(spot: Array, peak: tuple[int, ...]) -> bool:
    """Return whether the brightest voxel near a smoothed peak stands alone."""
    near = spot[tuple(slice(max(0, p - 1), p + 2) for p in peak)]
    if min(near.shape) < 3:
        return False
    cross = ndimage.generate_binary_structure(3, 1)
    cross[1, 1, 1] = False
    return bool(near[cross].mean() < SHARPEST * near[1, 1, 1])


def _box(bead: _Bead, size: Shape) -> tuple[slice, ...]:
    return tuple(slice(p - n // 2, p + n // 2 + 1) for p, n in zip(bead.peak, size, strict=True))


def _centred(spot: Array, bead: _Bead, size: Shape) -> Array:
    """Return the box around a bead, moved so that its centre lies in the middle voxel."""
    own = spot[_box(bead, size)]
    middle = tuple(n // 2 for n in size)
    moved, offset = own, np.zeros(3)
    # A centroid of voxels is drawn to the middle of one, and no longer once it lies there.
    for _ in range(4):
        smooth = ndimage.gaussian_filter(moved, 0.7)
        above = np.maximum(smooth - smooth[middle] / 2, 0)
        parts = ndimage.label(above > 0)[0]
        offset += np.subtract(middle, ndimage.center_of_mass(np.where(parts == parts[middle], above, 0.0)))
        moved = np.asarray(ndimage.shift(own, offset, order=3, mode="nearest"))
    return moved

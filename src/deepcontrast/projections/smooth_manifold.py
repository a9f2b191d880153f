"""Smooth manifold extraction: a smooth height map that follows the planes of best focus where there is focus."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from deepcontrast.errors import InputError
from deepcontrast.projections import Projection
from deepcontrast.projections._read_out import Reading, checked, read_out

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"pull": pull, "focus": focus, "thickness": thickness, "reading": "mean"}
    for pull, focus, thickness in product((0.1, 0.5), (1.0, 2.0), (0, 1))
)
ITERATIONS = 500
STEADY = 1e-3
"""Planes: where no pixel changes more, the map is done."""
NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32) / 8


def smooth_manifold(
    stack: NDArray[np.float32],
    *,
    focus: float = 1.0,
    pull: float = 0.1,
    thickness: int = 0,
    offset: float = 0.0,
    reading: Reading = "maximum",
) -> Projection:
    """Return the stack on a smooth surface through the planes of best focus.

    1. Focus of every voxel: the modified Laplacian, the sum of the absolute second differences along y and along x, of
       the plane after a 3 x 3 median, averaged by a Gaussian. The plane where it is largest is the pixel's target.
    2. Classes: of the focus along z the largest Fourier amplitude, the constant left out, in three clusters (k-means):
       background, uncertain, foreground.
    3. Map: from the targets of the nearest foreground pixels, every pixel goes over and over to the minimum of
       ``weight * |height - target| + (height - mean of its 8 neighbours)^2 / 2``, which is that mean, moved towards the
       target by at most ``weight``: ``pull`` in the foreground, half of it where uncertain, 0 in the background. It
       ends where no pixel moves by 0.001 planes, or after 500 rounds.

    Args:
        stack: (Z, Y, X), any unit.
        focus: standard deviation of the Gaussian over the focus, pixels, 0 or more.
        pull: planes, 0 or more: how far a foreground pixel may stand off the mean of its neighbours.
        thickness: planes on either side of the surface that are read.
        offset: planes from the surface to where it is read; positive towards the last plane.
        reading: ``maximum`` or ``mean`` of what is read.

    Returns:
        the projection. Memory: three volumes.

    Raises:
        InputError: not three axes, values that are not finite, or a setting that is not accepted.

    Source: Shihavuddin et al. 2017, Nature Communications 8:15554 (SME). Simplified: clusters of the largest
    amplitude instead of whole spectra; fixed weights of the classes, which SME estimates; the distance to the
    neighbours' mean instead of their standard deviation, which gives each step in closed form instead of by trial;
    the median and the Gaussian, against single bright voxels, are added.
    """
    volume = checked(stack)
    if focus < 0 or pull < 0:
        raise InputError(f"focus {focus} and pull {pull} of the smooth manifold; accepted: 0 or more")
    sharpness = np.stack([_sharpness(plane, focus) for plane in volume])
    target = sharpness.argmax(axis=0).astype(np.float32)
    classes = _classes(np.abs(fft.rfft(sharpness, axis=0)[1:]).max(axis=0, initial=0.0))
    weight = np.asarray([0.0, pull / 2, pull], np.float32)[classes]
    nearest = ndimage.distance_transform_edt(classes < classes.max(), return_distances=False, return_indices=True)
    height = target[tuple(nearest)]
    for _ in range(ITERATIONS):
        mean = ndimage.convolve(height, NEIGHBOURS, mode="nearest")
        moved = mean + np.clip(target - mean, -weight, weight)
        change = np.abs(moved - height).max()
        height = moved
        if change < STEADY:
            break
    return Projection(read_out(volume, height, thickness=thickness, offset=offset, reading=reading), height)


def _sharpness(plane: NDArray[np.float32], focus: float) -> NDArray[np.float32]:
    clean = ndimage.median_filter(plane, 3)
    bends = (ndimage.correlate1d(clean, [-1, 2, -1], axis, mode="nearest") for axis in (0, 1))
    return np.asarray(ndimage.gaussian_filter(sum(np.abs(bend) for bend in bends), focus), np.float32)


def _classes(strength: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return 0, 1 or 2 for each pixel: the nearest of three means, each that of its own pixels."""
    centres = np.percentile(strength, (5, 50, 95))
    for _ in range(50):
        classes = np.searchsorted((centres[:-1] + centres[1:]) / 2, strength)
        moved = np.array([strength[classes == n].mean() if (classes == n).any() else centres[n] for n in range(3)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return classes

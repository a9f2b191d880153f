"""Spots: how bright those of a reference are in an image, and how many are lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.metrics import Measurement

NOISE = 5.0
"""Robust standard deviations of the filtered image that a spot must exceed."""
SHARE = 0.1
"""Of the strongest spot: weaker ones do not count."""

Array = NDArray[np.float64]


def spots(
    image: NDArray[Any],
    reference: NDArray[Any],
    *,
    sigma: float | tuple[float, ...] = 1.5,
    valid: NDArray[np.bool_] | None = None,
) -> tuple[Measurement, ...]:
    """Return the intensities of the reference's spots in an image (Y, X) or (Z, Y, X), and the share lost.

    Spots of the reference are the local maxima of its negative Laplacian of Gaussian that exceed 5 robust standard
    deviations of it (1.4826 median absolute deviations) and a tenth of the strongest. One is lost where the
    image, filtered alike, has no local maximum within ``sigma`` (rounded up to pixels) that exceeds 5 robust
    standard deviations and a tenth of the percentile 90 of such maxima at the spots. A spot's intensity is the mean
    within 2 sigma less the local background, the median between 3 and 4 sigma; the ratios of image to reference
    are taken over the spots that are not lost.

    Args:
        image: (Y, X) or (Z, Y, X), any unit.
        reference: the truth or, where there is none, the raw, of the same shape; without hot pixels.
        sigma: standard deviation of a spot in pixels, one or one per axis.
        valid: voxels where spots are looked for; all where ``None``.

    Returns:
        ``spots_count`` of the reference; ``spots_lost``, the share of them in 0 .. 1; ``spots_ratio``, the median
        ratio; ``spots_ratio_spread``, the interquartile range of the ratios over their median: 0 where all
        spots keep their proportions. ``None`` with a reason where there are no spots or all are lost.

    Source: Lindeberg 1998 (blob detection); the limits are this project's choice.
    """
    names = ("spots_count", "spots_lost", "spots_ratio", "spots_ratio_spread")
    everywhere = np.ones(np.shape(image), bool) if valid is None else np.asarray(valid, bool)
    # What is not valid becomes the mean, so that its edge is no spot and it may hold anything.
    filled = [_filled(v, everywhere) for v in (image, reference)]
    if not all(np.isfinite(v).all() for v in filled):
        return tuple(Measurement(name, None, "there are values that are not finite") for name in names)
    widths = np.broadcast_to(np.asarray(sigma, np.float64), everywhere.ndim)
    found, known = (_maxima(v, widths, everywhere) for v in filled)
    places = np.argwhere(known > SHARE * known.max(initial=0.0))
    ours, theirs = (_intensity(v, places, widths) for v in filled)
    bright = theirs > 0
    places, ours, theirs = places[bright], ours[bright], theirs[bright]
    if not len(places):
        reason = "the reference has no spot"
        return (Measurement(names[0], 0.0), *(Measurement(name, None, reason) for name in names[1:]))
    near = ndimage.maximum_filter(found, size=tuple(2 * np.ceil(widths).astype(int) + 1))[tuple(places.T)]
    kept = near > SHARE * np.percentile(near, 90)
    rows = (Measurement(names[0], float(len(places))), Measurement(names[1], float(1 - kept.mean())))
    if not kept.any():
        return (*rows, *(Measurement(name, None, "all spots are lost") for name in names[2:]))
    low, median, high = np.percentile(ours[kept] / theirs[kept], (25, 50, 75))
    spread = Measurement(names[3], None, f"the median ratio is {median:.4g}, not positive")
    if median > 0:
        spread = Measurement(names[3], float((high - low) / median))
    return (*rows, Measurement(names[2], float(median)), spread)


def _filled(image: NDArray[Any], valid: NDArray[np.bool_]) -> Array:
    values = np.asarray(image, np.float64)
    return np.where(valid, values, values[valid].mean() if valid.any() else 0.0)


def _maxima(image: Array, widths: Array, valid: NDArray[np.bool_]) -> Array:
    """Return the filter's response at its local maxima above the noise, 0 elsewhere."""
    if image.size == 0 or image.min() == image.max():
        return np.zeros(image.shape)
    response = -float(np.mean(widths**2)) * ndimage.gaussian_laplace(image, widths)
    noise = 1.4826 * float(np.median(np.abs(response[valid] - np.median(response[valid]))))
    peaks = response == ndimage.maximum_filter(response, size=tuple(2 * np.ceil(widths).astype(int) + 1))
    return np.where(peaks & valid & (response > NOISE * noise), response, 0.0)


def _intensity(image: Array, places: NDArray[np.intp], widths: Array) -> Array:
    """Return the mean within 2 sigma less the median between 3 and 4 sigma; beyond the edge the edge goes on."""
    reach = np.ceil(4 * widths).astype(int)
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1)
    offsets = offsets.reshape(-1, image.ndim)
    distance = np.sqrt(((offsets / widths) ** 2).sum(axis=1))
    core, shell = offsets[distance <= 2], offsets[(distance > 3) & (distance <= 4)]
    limit = np.array(image.shape) - 1
    values = [image[tuple(np.moveaxis(np.clip(places[:, None] + part, 0, limit), -1, 0))] for part in (core, shell)]
    return np.asarray(values[0].mean(axis=1) - np.median(values[1], axis=1))

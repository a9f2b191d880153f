"""Multi-scale structural similarity of a plane and its truth, after CARE's normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._care import Plane, normalised, suffixed

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, from fine to coarse: Wang et al. 2003."""
RADIUS, SIGMA = 5, 1.5
"""Of the Gaussian window of 11 x 11 pixels."""
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
"""C1 and C2 for a data range of 1."""


def ms_ssim(
    image: NDArray[Any], truth: NDArray[Any], *, region: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the multi-scale structural similarity of one plane (Y, X) and its truth.

    Image and truth are normalised as for ``ssim``, data range 1. At each scale the contrast-structure term is
    averaged over all places where the Gaussian window (11 x 11 pixels, standard deviation 1.5) lies inside the
    plane; between scales 2 x 2 pixels are averaged into one (an odd last row or column is left out). The result
    is the product of these means, at the coarsest scale of the mean of the whole similarity, each raised to its
    scale's weight; a negative mean counts as 0.

    Five scales need a plane of at least 176 x 176 pixels. A smaller plane gets the scales that fit, with their
    weights divided by their sum, and the metric's name says how many: ``ms_ssim_3_scales``. Values of different
    numbers of scales must not be compared.

    Args:
        image: one plane (Y, X), any unit.
        truth: what the plane should be (Y, X), any unit.
        region: pixels (Y, X) over which the terms are averaged for ``.._foreground``; at a coarse scale a pixel
            counts with the share of it that is in the region.

    Returns:
        ``ms_ssim`` (or ``ms_ssim_<n>_scales``) and, where ``region`` is given, the same with ``_foreground``, in
        0 .. 1; ``None`` with a reason where the truth is constant, the plane is too small for two scales (22
        pixels), or nothing of the region is left inside the windows' border at some scale.

    Source: Wang, Simoncelli and Bovik 2003, equation 7; normalisation: CARE, supplement, equations 2.1 and 2.2.
    """
    window = 2 * RADIUS + 1
    scales = min(len(WEIGHTS), (min(np.shape(image)) // window).bit_length())
    name = f"ms_ssim_{scales}_scales" if 2 <= scales < len(WEIGHTS) else "ms_ssim"
    names = suffixed(name, region)
    small = f"the plane is smaller than two scales of the window, {2 * window} pixels"
    pair = small if scales < 2 else normalised(image, truth)
    if isinstance(pair, str):
        return tuple(Measurement(n, None, pair) for n in names)
    weights = np.array(WEIGHTS[:scales])
    if scales < len(WEIGHTS):
        weights /= weights.sum()
    whole = np.ones(pair[0].shape)
    shares = (whole,) if region is None else (whole, np.asarray(region, np.float64))
    return tuple(_measured(n, _terms(*pair, share, scales), weights) for n, share in zip(names, shares, strict=True))


def _terms(image: Plane, truth: Plane, share: Plane, scales: int) -> list[float] | str:
    """Return the mean term of each scale, or the reason why one has none."""
    terms = []
    for scale in range(scales):
        if scale > 0:
            image, truth, share = (_halved(plane) for plane in (image, truth, share))
        inside = share[RADIUS:-RADIUS, RADIUS:-RADIUS]
        if not inside.any():
            return "the region is empty" + (f" at scale {scale + 1}" if scale else "")
        luminance, structure = _similarity(image, truth)
        similarity = luminance * structure if scale == scales - 1 else structure
        terms.append(float(np.average(similarity, weights=inside)))
    return terms


def _measured(name: str, terms: list[float] | str, weights: Plane) -> Measurement:
    if isinstance(terms, str):
        return Measurement(name, None, terms)
    return Measurement(name, float(np.prod(np.maximum(terms, 0.0) ** weights)))


def _similarity(image: Plane, truth: Plane) -> tuple[Plane, Plane]:
    """Return the luminance and the contrast-structure term wherever the window fits."""
    x, y = _mean(image), _mean(truth)
    # Rounding must not make a variance negative.
    variances = np.maximum(_mean(image**2) - x**2, 0.0) + np.maximum(_mean(truth**2) - y**2, 0.0)
    covariance = _mean(image * truth) - x * y
    luminance = (2 * x * y + LUMINANCE) / (x**2 + y**2 + LUMINANCE)
    return luminance, (2 * covariance + CONTRAST) / (variances + CONTRAST)


def _mean(plane: Plane) -> Plane:
    smooth = ndimage.gaussian_filter(plane, SIGMA, radius=RADIUS)
    return np.asarray(smooth[RADIUS:-RADIUS, RADIUS:-RADIUS])


def _halved(plane: Plane) -> Plane:
    y, x = (n // 2 for n in plane.shape)
    return np.asarray(plane[: 2 * y, : 2 * x].reshape(y, 2, x, 2).mean(axis=(1, 3)))

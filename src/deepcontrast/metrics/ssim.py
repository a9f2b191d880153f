"""Structural similarity of a plane or a volume and its truth, after CARE's normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._care import normalised, suffixed

WINDOW = 7


def ssim(
    image: NDArray[Any], truth: NDArray[Any], *, region: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the structural similarity of one plane (Y, X), or of a volume, and its truth.

    The truth is scaled so that its percentiles 0.1 and 99.9 become 0 and 1, without clipping; the image is
    replaced by the a * image + b that fits it best in least squares over the whole of it. Then the mean of
    ``skimage.metrics.structural_similarity`` with a uniform window of 7 pixels along each axis and a data range of 1,
    in float64 (the mean leaves out a border of 3 pixels, as scikit-image does).

    Args:
        image: one plane (Y, X) or a volume (Z, Y, X), any unit.
        truth: what it should be, of the same shape, any unit.
        region: voxels of that shape over which the map of similarities is averaged for ``ssim_foreground``.

    Returns:
        ``ssim`` and, where ``region`` is given, ``ssim_foreground``; ``None`` with a reason where the truth
        is constant, the plane smaller than the window, or the region empty.

    Source: Wang et al. 2004; normalisation: CARE, supplement, equations 2.1 and 2.2.
    """
    small = f"the plane is smaller than the window of {WINDOW} pixels"
    pair = small if min(np.shape(image)) < WINDOW else normalised(image, truth)
    if isinstance(pair, str):
        return tuple(Measurement(name, None, pair) for name in suffixed("ssim", region))
    mean, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        *pair, win_size=WINDOW, data_range=1.0, full=True
    )
    rows = [Measurement("ssim", float(mean))]
    if region is not None and region.any():
        rows.append(Measurement("ssim_foreground", float(similarity[region].mean())))
    elif region is not None:
        rows.append(Measurement("ssim_foreground", None, "the region is empty"))
    return tuple(rows)

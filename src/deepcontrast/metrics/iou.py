"""Intersection over union of a mask and the best threshold of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement

THRESHOLDS = 65


def iou(
    image: NDArray[Any], mask: NDArray[np.bool_], *, valid: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the highest intersection over union that one threshold reaches on one plane (Y, X).

    65 thresholds stand evenly between the 2nd and the 99.9th percentile of the plane, both included; a voxel
    is structure where it is above the threshold. The value does not change under a positive affine change of
    the image.

    Args:
        image: one plane (Y, X), any unit.
        mask: true structures (Y, X).
        valid: voxels to use (Y, X); all where ``None``.

    Returns:
        ``iou`` in 0 .. 1; ``None`` with a reason where the mask is empty.

    Source: DeepContrast, section 4.8: the threshold that maximises IoU. Number and range of thresholds are
    this project's choice (the paper gives none).
    """
    everywhere = np.ones(mask.shape, bool) if valid is None else valid
    values = np.asarray(image[everywhere], np.float64)
    inside = np.asarray(mask[everywhere], bool)
    if not inside.any():
        return (Measurement("iou", None, "the mask is empty"),)
    if not np.isfinite(values).all():
        return (Measurement("iou", None, "the plane has values that are not finite"),)
    low, high = np.percentile(values, (2, 99.9))
    thresholds = np.linspace(low, high, THRESHOLDS)
    # A voxel is above as many thresholds as its place among them says: one pass instead of 65.
    place = np.searchsorted(thresholds, values, side="left")
    above = np.bincount(place, minlength=THRESHOLDS + 1)[::-1].cumsum()[::-1][1:]
    hits = np.bincount(place[inside], minlength=THRESHOLDS + 1)[::-1].cumsum()[::-1][1:]
    return (Measurement("iou", float((hits / (above + inside.sum() - hits)).max())),)

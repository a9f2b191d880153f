"""The highest intersection over union that one threshold reaches: exact, from two sorts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement


def best_iou(
    name: str, image: NDArray[Any], mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None
) -> tuple[Measurement, ...]:
    """Return the best intersection over union of a mask and ``image >= t``, over every t, or why there is none."""
    everywhere = np.ones(np.shape(mask), bool) if valid is None else valid
    values, inside = np.asarray(image)[everywhere], np.asarray(mask, bool)[everywhere]
    if not inside.any():
        return (Measurement(name, None, "the mask is empty"),)
    if not np.isfinite(values).all():
        return (Measurement(name, None, "the image has values that are not finite"),)
    # The best threshold is the value of a voxel of the mask: any other only adds voxels outside.
    thresholds = np.sort(values[inside])
    above = values.size - np.searchsorted(np.sort(values), thresholds, side="left")
    # Of equal values the first counts them all; the others give less, which no maximum sees.
    hits = np.arange(thresholds.size, 0, -1)
    return (Measurement(name, float((hits / (above + thresholds.size - hits)).max())),)

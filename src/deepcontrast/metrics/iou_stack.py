"""Intersection over union of a mask and the best threshold of a whole stack."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._best_iou import best_iou


def iou_stack(
    image: NDArray[Any], mask: NDArray[np.bool_], *, valid: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the highest intersection over union that one threshold reaches on all planes (Z, Y, X) together.

    What a user gets who thresholds the stack once: unlike ``iou``, which takes the best threshold of every plane,
    it falls when brightness fades with depth. A voxel is structure where it is at or above the threshold; every
    threshold counts. Any strictly increasing change of grey values leaves the value unchanged, and so what it
    does to contrast or to dim and bright structures: it never stands alone.

    Args:
        image: volume (Z, Y, X), any unit.
        mask: true structures (Z, Y, X).
        valid: voxels to use (Z, Y, X); all where ``None``.

    Returns:
        ``iou_stack`` in 0 .. 1; ``None`` with a reason where the mask is empty.

    Source: DeepContrast, section 4.8, with one threshold for the stack.
    """
    return best_iou("iou_stack", image, mask, valid)

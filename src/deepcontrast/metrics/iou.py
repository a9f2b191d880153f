"""Intersection over union of a mask and the best threshold of a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._best_iou import best_iou


def iou(
    image: NDArray[Any], mask: NDArray[np.bool_], *, valid: NDArray[np.bool_] | None = None
) -> tuple[Measurement, ...]:
    """Return the highest intersection over union that one threshold reaches on one plane (Y, X).

    A voxel is structure where it is at or above the threshold; every threshold counts, also the one that takes
    all voxels, so an image that says nothing scores the share of the plane that is mask. Any strictly
    increasing change of grey values leaves the value unchanged, and so what it does to contrast or to dim and
    bright structures: it never stands alone.

    Args:
        image: one plane (Y, X), any unit.
        mask: true structures (Y, X).
        valid: voxels to use (Y, X); all where ``None``.

    Returns:
        ``iou`` in 0 .. 1; ``None`` with a reason where the mask is empty.

    Source: DeepContrast, section 4.8: the threshold that maximises IoU.
    """
    return best_iou("iou", image, mask, valid)

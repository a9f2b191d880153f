"""The Jaccard index of every segmented object, as a mean and as a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._matching import compared, objects


def jaccard(segmentation: NDArray[Any], labels: NDArray[Any]) -> tuple[Measurement, ...]:
    """Return the mean over the segmented objects of the Jaccard index each reaches with any reference object.

    J(i) = max over j of |A_i and B_j| / |A_i or B_j|, for segmented objects A and reference objects B. Missed
    reference objects do not lower it: ``seg`` and ``error`` count those.

    Args:
        segmentation: integers (Y, X) or (Z, Y, X), 0 background, one number per object.
        labels: the reference, alike.

    Returns:
        ``jaccard`` in 0 .. 1; ``None`` with a reason where either image has no object.

    Raises:
        InputError: the images differ in shape or are not of integers.

    Source: CARE, supplement, equation 2.4 and figure 7.
    """
    best = _best(segmentation, labels)
    if isinstance(best, str):
        return (Measurement("jaccard", None, best),)
    if not len(best):
        return (Measurement("jaccard", None, "the segmentation is empty"),)
    return (Measurement("jaccard", float(best.mean())),)


def jaccard_map(segmentation: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """Return the segmentation with every object painted in its Jaccard index, the background 0.

    Args:
        segmentation: integers (Y, X) or (Z, Y, X), 0 background, one number per object.
        labels: the reference, alike; where it is empty, every object has 0.

    Raises:
        InputError: the images differ in shape or are not of integers.

    Source: CARE, supplement, equation 2.4 and figure 7 (Jaccard colouring).
    """
    best = _best(segmentation, labels)
    if isinstance(best, str):
        return np.zeros(segmentation.shape, np.float32)
    numbered, _ = objects(segmentation, "a segmentation")
    return np.concatenate([[0.0], best]).astype(np.float32)[numbered]


def _best(segmentation: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64] | str:
    """Return the highest Jaccard index of every segmented object, or the reason why there is none."""
    pairs = compared(segmentation, labels)
    if isinstance(pairs, str):
        return pairs
    best = np.zeros(len(pairs.segments))
    np.maximum.at(best, pairs.segment, pairs.jaccard)
    return best

"""The Cell Tracking Challenge's segmentation score, of an image at its best threshold or of a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._matching import THRESHOLDS, Overlap, compared, sweep

PEAK = 0.9
"""Share of the best score that still belongs to its peak."""


def seg(
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    smallest: int = 10,
    percentiles: tuple[float, float] = (3.0, 99.0),
) -> tuple[Measurement, ...]:
    """Return SEG of an image (Y, X) or (Z, Y, X) that is thresholded and split into connected components.

    A reference object R and a segmented one S match where S holds more than half of R's voxels; R scores the
    Jaccard index of the pair, 0 where it has none; SEG is the mean over the reference objects. It is measured at
    33 thresholds evenly between two percentiles of the image; components are of voxels above the threshold whose
    faces touch. A broad peak is worth having: without a reference a user finds the threshold by eye.

    Args:
        image: (Y, X) or (Z, Y, X), any unit.
        labels: the reference, integers of the same shape, 0 background, one number per object.
        valid: voxels to use; all where ``None``.
        smallest: voxels of the smallest component that counts.
        percentiles: ends of the sweep. Where objects fill less than what lies above its end, nothing is
            measured.

    Returns:
        ``seg`` in 0 .. 1, the best of the sweep; ``seg_threshold``, in the image's units; ``seg_breadth`` in
        0 .. 1, the share of the sweep around it over which SEG stays at or above 0.9 of the best (interpolated
        between thresholds). ``None`` with a reason where the labels are empty or the image is constant, the
        latter two also where no object is matched at any threshold.

    Raises:
        InputError: the labels are of another shape or not integers.

    Source: Maska et al. 2014 (Cell Tracking Challenge); sweep: CARE, supplement, section 2.3.2 and figure 7. The
    number of thresholds and the limit of the peak are this project's choice.
    """
    names = ("seg", "seg_threshold", "seg_breadth")
    swept = sweep(_score, image, labels, valid=valid, smallest=smallest, percentiles=percentiles)
    if isinstance(swept, str):
        return tuple(Measurement(name, None, swept) for name in names)
    thresholds, scores = swept
    best = int(scores.argmax())
    top = float(scores[best])
    if top == 0:
        return (Measurement("seg", 0.0), *(Measurement(n, None, "no object is matched") for n in names[1:]))
    left, right = _reach(scores[best::-1]), _reach(scores[best:])
    return (
        Measurement("seg", top),
        Measurement("seg_threshold", float(thresholds[best])),
        Measurement("seg_breadth", (left + right) / (THRESHOLDS - 1)),
    )


def seg_of_labels(segmentation: NDArray[Any], labels: NDArray[Any]) -> tuple[Measurement, ...]:
    """Return SEG of a segmentation that somebody made, as :func:`seg` defines it.

    Args:
        segmentation: integers (Y, X) or (Z, Y, X), 0 background, one number per object.
        labels: the reference, alike.

    Raises:
        InputError: the images differ in shape or are not of integers.
    """
    pairs = compared(segmentation, labels)
    if isinstance(pairs, str):
        return (Measurement("seg", None, pairs),)
    return (Measurement("seg", _score(pairs)),)


def _score(pairs: Overlap) -> float:
    # No two segments hold more than half of the same object.
    matched = 2 * pairs.shared > pairs.references[pairs.reference]
    return float(pairs.jaccard[matched].sum() / len(pairs.references))


def _reach(scores: NDArray[np.float64]) -> float:
    """Return how many steps the scores stay at or above 0.9 of the first."""
    limit = PEAK * scores[0]
    below = np.flatnonzero(scores < limit)
    if not len(below):
        return float(len(scores) - 1)
    last = int(below[0]) - 1
    return last + float((scores[last] - limit) / (scores[last] - scores[last + 1]))

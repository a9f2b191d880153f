"""CARE's segmentation error: unmatched objects, of an image at its best threshold or of a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.metrics import Measurement
from deepcontrast.metrics._matching import Overlap, compared, sweep


def error(
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    smallest: int = 10,
    percentiles: tuple[float, float] = (3.0, 99.0),
) -> tuple[Measurement, ...]:
    """Return ERROR of an image (Y, X) or (Z, Y, X) that is thresholded and split into connected components.

    A reference object and a segmented one match where each holds more than half of the other's voxels.
    ERROR = (unmatched segmented objects + unmatched reference objects) / reference objects: 0 is perfect, 1 what
    an empty segmentation gets, more is worse than nothing. It is measured at 33 thresholds evenly between two
    percentiles of the image; components are of voxels above the threshold whose faces touch.

    Args:
        image: (Y, X) or (Z, Y, X), any unit.
        labels: the reference, integers of the same shape, 0 background, one number per object.
        valid: voxels to use; all where ``None``.
        smallest: voxels of the smallest component that counts, so that single bright voxels of noise are not
            objects.
        percentiles: ends of the sweep. Where objects fill less than what lies above its end, nothing is
            measured.

    Returns:
        ``error``, the lowest of the sweep, and ``error_threshold``, in the image's units (the lowest of equals);
        ``None`` with a reason where the labels are empty or the image is constant.

    Raises:
        InputError: the labels are of another shape or not integers.

    Source: CARE, supplement, equation 2.5 and figure 16. It thresholds a classifier's probabilities; here it is
    the image itself. The number of thresholds is this project's choice.
    """
    names = ("error", "error_threshold")
    swept = error_curve(image, labels, valid=valid, smallest=smallest, percentiles=percentiles)
    if isinstance(swept, str):
        return tuple(Measurement(name, None, swept) for name in names)
    thresholds, scores = swept
    best = int(scores.argmin())
    return Measurement("error", float(scores[best])), Measurement("error_threshold", float(thresholds[best]))


def error_curve(
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    smallest: int = 10,
    percentiles: tuple[float, float] = (3.0, 99.0),
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | str:
    """Return the thresholds that :func:`error` tries (33,), in the image's units, and ERROR at each.

    Where the labels are empty or the image is constant, the reason. Args and errors: as :func:`error`.
    """
    return sweep(_score, image, labels, valid=valid, smallest=smallest, percentiles=percentiles)


def error_of_labels(segmentation: NDArray[Any], labels: NDArray[Any]) -> tuple[Measurement, ...]:
    """Return ERROR of a segmentation that somebody made, as :func:`error` defines it.

    Args:
        segmentation: integers (Y, X) or (Z, Y, X), 0 background, one number per object.
        labels: the reference, alike.

    Raises:
        InputError: the images differ in shape or are not of integers.
    """
    pairs = compared(segmentation, labels)
    if isinstance(pairs, str):
        return (Measurement("error", None, pairs),)
    return (Measurement("error", _score(pairs)),)


def _score(pairs: Overlap) -> float:
    mutual = (2 * pairs.shared > pairs.references[pairs.reference]) & (2 * pairs.shared > pairs.segments[pairs.segment])
    unmatched = len(pairs.segments) + len(pairs.references) - 2 * int(mutual.sum())
    return unmatched / len(pairs.references)

"""Which object of a segmentation covers which of a reference, for label images and for a sweep of thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError

THRESHOLDS = 33
Counts = NDArray[np.int64]


class Overlap(NamedTuple):
    """Every pair of objects that share voxels.

    Attributes:
        segment: index into ``segments`` (pairs,).
        reference: index into ``references`` (pairs,).
        shared: voxels of the intersection (pairs,).
        segments: voxels of every segmented object.
        references: voxels of every reference object; at least one.
    """

    segment: Counts
    reference: Counts
    shared: Counts
    segments: Counts
    references: Counts

    @property
    def jaccard(self) -> NDArray[np.float64]:
        """Intersection over union of every pair (pairs,)."""
        return self.shared / (self.segments[self.segment] + self.references[self.reference] - self.shared)


def objects(labels: NDArray[Any], what: str) -> tuple[NDArray[np.int32], Counts]:
    """Return the image with its objects numbered from 1 without gaps, and their voxels; 0 stays background.

    Raises:
        InputError: not an image of integers.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{what} of type {labels.dtype}; accepted: integers, 0 background, one number per object")
    numbers = np.unique(labels)
    index = np.searchsorted(numbers, labels)
    place = np.cumsum(numbers != 0, dtype=np.int32) * (numbers != 0)
    return place[index], np.bincount(index.ravel(), minlength=len(numbers))[numbers != 0]


def overlap(
    segmentation: NDArray[np.int32], segments: Counts, labels: NDArray[np.int32], references: Counts
) -> Overlap:
    """Return the pairs of two images whose objects are numbered from 1 without gaps."""
    both = (segmentation > 0) & (labels > 0)
    pairs = (segmentation[both] - np.int64(1)) * len(references) + labels[both] - 1
    codes, shared = np.unique(pairs, return_counts=True)
    segment, reference = np.divmod(codes, len(references))
    return Overlap(segment, reference, shared, segments, references)


def compared(segmentation: NDArray[Any], labels: NDArray[Any]) -> Overlap | str:
    """Return the pairs of two label images, or the reason why there is nothing to compare with.

    Raises:
        InputError: the images differ in shape or are not of integers.
    """
    if segmentation.shape != labels.shape:
        raise InputError(f"a segmentation of shape {segmentation.shape}; accepted: that of the labels, {labels.shape}")
    found, known = objects(segmentation, "a segmentation"), objects(labels, "labels")
    return overlap(*found, *known) if len(known[1]) else "the labels are empty"


def sweep(
    score: Callable[[Overlap], float],
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None,
    smallest: int,
    percentiles: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | str:
    """Return thresholds and the score of the segmentation that each gives, or the reason why there is none.

    33 thresholds stand evenly between two percentiles of the image, both included. The connected components
    (neighbours share a face) of the voxels above one are its objects; those under ``smallest`` voxels are left
    out.

    Raises:
        InputError: the labels differ in shape from the image, or are not of integers.
    """
    if image.shape != labels.shape:
        raise InputError(f"labels of shape {labels.shape}; accepted: that of the image, {image.shape}")
    everywhere = np.ones(image.shape, bool) if valid is None else valid
    values = np.asarray(image, np.float64)[everywhere]
    known, references = objects(labels * everywhere, "labels")
    if not len(references):
        return "the labels are empty"
    if not np.isfinite(values).all():
        return "the image has values that are not finite"
    low, high = np.percentile(values, percentiles)
    if high <= low:
        return f"the image is constant from its percentile {percentiles[0]:g} to {percentiles[1]:g}"
    share = 100 * float(references.sum()) / values.size
    if share < 100 - percentiles[1]:
        return (
            f"the objects fill {share:.2g} % of the image, less than lies above the sweep, "
            f"which ends at percentile {percentiles[1]:g}"
        )
    thresholds = np.linspace(low, high, THRESHOLDS)
    scores = []
    for threshold in thresholds:
        found, count = ndimage.label((image > threshold) & everywhere)
        sizes = np.bincount(found.ravel(), minlength=count + 1)
        kept = sizes >= smallest
        kept[0] = False
        renumbered = np.cumsum(kept, dtype=np.int32) * kept
        scores.append(score(overlap(renumbered[found], sizes[kept], known, references)))
    return thresholds, np.array(scores)

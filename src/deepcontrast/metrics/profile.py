"""Intensity profiles along a line: which maxima of the reference are kept, where, how high and how wide."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.signal import find_peaks, peak_widths
from skimage.measure import profile_line

from deepcontrast.metrics import Measurement

NAMES = ("maxima_kept", "maxima_extra", "shift", "height_ratio", "height_spread", "fwhm_ratio")

Array = NDArray[np.float64]


class _Maxima(NamedTuple):
    """Of one profile: positions in px along the line, heights above the saddle (prominences), widths in px."""

    position: Array
    height: Array
    width: Array


def profile(
    image: NDArray[Any],
    reference: NDArray[Any],
    *,
    start: tuple[float, float] | None = None,
    end: tuple[float, float] | None = None,
    linewidth: int = 1,
    prominence: float = 0.1,
    tolerance: float = 3.0,
) -> tuple[Measurement, ...]:
    """Return how the maxima of one plane (Y, X) along a line compare with those of a reference.

    Both planes are read along the line at every pixel (linear interpolation). A maximum counts where its
    prominence, the height above the higher of the two saddles beside it, is at least a share of its profile's
    range; its position is refined by a parabola, its width taken at half its prominence. Maxima of the two
    profiles become partners one to one: as many as lie within the tolerance, and of those pairings the closest.

    Args:
        image: one plane (Y, X), any unit.
        reference: the plane to compare with (Y, X): the truth or, where there is none, the raw.
        start: (y, x) in pixels; the middle of the left edge where ``None``.
        end: (y, x) in pixels; the middle of the right edge where ``None``.
        linewidth: pixels across the line that are averaged.
        prominence: of a maximum that counts, as a share of its profile's range.
        tolerance: distance of partners, pixels.

    Returns:
        ``profile_maxima_kept``, the share of the reference's maxima with a partner; ``profile_maxima_extra``, the
        share of the image's maxima without one; over the pairs ``profile_shift``, the mean distance in pixels,
        ``profile_height_ratio`` and ``profile_fwhm_ratio``, medians of image over reference, and
        ``profile_height_spread``, the interquartile range of the height ratios over their median (0 where all
        heights keep their proportions). ``None`` with a reason where there is no maximum or no pair.

    Source: line profiles are shown in CARE, supplement, figure 2 and others; these numbers are this project's.
    """
    names = [f"profile_{name}" for name in NAMES]
    middle, right = (reference.shape[0] - 1) / 2, reference.shape[1] - 1
    line = (start or (middle, 0), end or (middle, right))
    found, known = (_read(plane, line, linewidth) for plane in (image, reference))
    if not (np.isfinite(found).all() and np.isfinite(known).all()):
        return tuple(Measurement(name, None, "a profile has values that are not finite") for name in names)
    ours, theirs = _maxima(found, prominence), _maxima(known, prominence)
    if not len(theirs.position):
        return tuple(Measurement(name, None, "the reference has no maximum along the line") for name in names)
    i, j = _partners(ours.position, theirs.position, tolerance)
    kept = Measurement(names[0], len(j) / len(theirs.position))
    extra = Measurement(names[1], None, "the image has no maximum along the line")
    if len(ours.position):
        extra = Measurement(names[1], 1 - len(i) / len(ours.position))
    if not len(i):
        return (kept, extra, *(Measurement(name, None, "no maximum has a partner") for name in names[2:]))
    shift = float(np.abs(ours.position[i] - theirs.position[j]).mean())
    heights = ours.height[i] / theirs.height[j]
    low, median, high = np.percentile(heights, (25, 50, 75))
    width = float(np.median(ours.width[i] / theirs.width[j]))
    numbers = (shift, float(median), float((high - low) / median), width)
    return (kept, extra, *(Measurement(name, number) for name, number in zip(names[2:], numbers, strict=True)))


def _read(plane: NDArray[Any], line: tuple[tuple[float, float], tuple[float, float]], linewidth: int) -> Array:
    values = profile_line(  # type: ignore[no-untyped-call]
        np.asarray(plane, np.float64), *line, linewidth=linewidth, order=1, mode="reflect"
    )
    return np.asarray(values, np.float64)


def _maxima(values: Array, prominence: float) -> _Maxima:
    span = float(values.max() - values.min())
    if span == 0:
        return _Maxima(*(np.empty(0),) * 3)
    peaks, found = find_peaks(values, prominence=prominence * span)
    left, top, right = (values[peaks + step] for step in (-1, 0, 1))
    bend = left - 2 * top + right
    # A plateau has no bend: its middle is its position.
    shift = np.where(bend < 0, (left - right) / (2 * np.where(bend < 0, bend, -1.0)), 0.0)
    return _Maxima(
        np.asarray(peaks + shift, np.float64), found["prominences"], peak_widths(values, peaks, rel_height=0.5)[0]
    )


def _partners(ours: Array, theirs: Array, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    distance = np.abs(ours[:, None] - theirs)
    # Dearer than all pairs together: one pair more always wins over closer pairs.
    refused = (tolerance + 1) * (min(distance.shape) + 1)
    i, j = linear_sum_assignment(np.where(distance <= tolerance, distance, refused))
    near = distance[i, j] <= tolerance
    return i[near], j[near]

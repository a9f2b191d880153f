"""The Cell Tracking Challenge's segmentation score, of cells that a watershed finds between bright membranes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import local_minima, reconstruction
from skimage.segmentation import watershed

from deepcontrast.errors import InputError
from deepcontrast.metrics import Measurement
from deepcontrast.metrics._matching import objects
from deepcontrast.metrics.seg import seg_of_labels

WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0)
DEPTHS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def membrane_seg(
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    widths: tuple[float, ...] = WIDTHS,
    depths: tuple[float, ...] = DEPTHS,
    lines: bool = False,
) -> tuple[Measurement, ...]:
    """Return SEG of a plane (Y, X) of bright membranes that :func:`cells` divides into cells, at its best settings.

    SEG is that of :func:`deepcontrast.metrics.seg.seg`: where a segmented cell holds more than half of a reference
    cell, their Jaccard index, else 0; the mean over the reference cells. Every width is tried with every depth.

    Args:
        image: one plane (Y, X), any unit.
        labels: the reference (Y, X), integers, 0 what belongs to no cell, one number per cell.
        widths: standard deviations of the smoothing that are tried, pixels.
        depths: of a cell below its membranes, that are tried, as shares of the image's range.
        lines: whether cells end at lines of 0 one pixel wide, as those of Tissue Analyzer; otherwise they touch.

    Returns:
        ``membrane_seg`` in 0 .. 1, the best; ``membrane_seg_width`` and ``membrane_seg_depth``, the settings that
        gave it (the least of equals). ``None`` with a reason where the labels are empty or the image is constant.

    Raises:
        InputError: the labels are of another shape or not integers, or a setting is out of range.

    Source: Maska et al. 2014 (SEG); CARE, supplement, section 2.3.3 and figure 11, where a trained pixel classifier
    (Weka) goes before the watershed of Tissue Analyzer: left out, the membranes are the image itself, and the best
    of a sweep stands for the curation by hand.
    """
    names = ("membrane_seg", "membrane_seg_width", "membrane_seg_depth")
    if image.shape != labels.shape:
        raise InputError(f"labels of shape {labels.shape}; accepted: that of the image, {image.shape}")
    if not len(objects(labels, "labels")[1]):
        return tuple(Measurement(name, None, "the labels are empty") for name in names)
    if not np.isfinite(image).all():
        return tuple(Measurement(name, None, "the image has values that are not finite") for name in names)
    low, high = np.percentile(image, (1, 99))
    if high <= low:
        reason = "the image is constant from its percentile 1 to 99"
        return tuple(Measurement(name, None, reason) for name in names)
    best = (-1.0, 0.0, 0.0)
    for width in widths:
        for depth in depths:
            score = seg_of_labels(cells(image, width=width, depth=depth, lines=lines), labels)[0].value or 0.0
            if score > best[0]:
                best = (score, width, depth)
    return tuple(Measurement(name, value) for name, value in zip(names, best, strict=True))


def cells(image: NDArray[Any], *, width: float, depth: float, lines: bool = False) -> NDArray[np.int32]:
    """Return the cells (Y, X) between the bright membranes of a plane, numbered from 1.

    The plane is smoothed by a Gaussian; its minima that lie deeper than ``depth`` below the lowest saddle to a
    deeper one (h-minima) are the markers of a watershed on the smoothed plane. Without lines
    every pixel belongs to a cell.

    Args:
        image: (Y, X), any unit, finite, not constant between its percentiles 1 and 99.
        width: standard deviation of the Gaussian, pixels, 0 or more.
        depth: share of the image's range from percentile 1 to 99, above 0.
        lines: whether cells end at lines of 0 one pixel wide.

    Raises:
        InputError: not one plane, a negative width or a depth that is not positive.

    Source: Beucher & Meyer 1993 (watershed by flooding from markers); Soille 2003 (h-minima); scikit-image.
    """
    if image.ndim != 2 or width < 0 or not depth > 0:
        raise InputError(
            f"cells of width {width} and depth {depth} in an image of {image.ndim} axes; accepted: 0 or more, above 0, "
            "one plane (Y, X)"
        )
    low, high = np.percentile(image, (1, 99))
    smooth = ndimage.gaussian_filter((image - low) / (high - low), width)
    filled = reconstruction(smooth + depth, smooth, method="erosion")  # type: ignore[no-untyped-call]
    minima = local_minima(filled)  # type: ignore[no-untyped-call]
    markers, _ = ndimage.label(minima, np.ones((3, 3)))
    return np.asarray(watershed(smooth, markers, watershed_line=lines), np.int32)  # type: ignore[no-untyped-call]

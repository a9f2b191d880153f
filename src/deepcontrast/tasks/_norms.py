"""Norms of images, measured plane by plane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.histogram import percentiles
from deepcontrast.normalize import Norm
from deepcontrast.stack import Frame
from deepcontrast.valid import EMPTY, Survey, codes


def measure(frame: Frame, image: Frame, known: Survey, kind: str, low: float, high: float) -> Norm:
    """Return the norm of a frame (Z, Y, X) where an image, itself or its partner, is not empty; read plane by plane.

    Args:
        frame: what is measured.
        image: that may have empty voxels.
        known: the survey of that image.
        kind, low, high: see the ``Params`` of the tasks.

    Source: CARE supplement, equation 2.1, for percentiles.

    Raises:
        InputError: all of it is one value.
    """
    planes = [z for z in range(len(frame)) if known.seen[z] and not known.blank[z]]

    def parts() -> Iterator[NDArray[Any]]:
        for z in planes:
            plane = np.asarray(frame[z])
            if known.all_valid:
                yield plane.ravel()
            else:
                whole = slice(z, z + 1), slice(0, plane.shape[0]), slice(0, plane.shape[1])
                yield plane[codes(image, known, whole)[0] != EMPTY]

    if kind == "percentile":
        bottom, top = percentiles(parts, (low, high))
        norm = Norm(bottom, top - bottom)
    else:
        count = sum(part.size for part in parts())
        mean = sum(float(part.sum(dtype=np.float64)) for part in parts()) / max(count, 1)
        square = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts())
        norm = Norm(mean, float(np.sqrt(square / max(count, 1))))
    if not norm.scale > 0:
        raise InputError(f"'{frame.stack.source}' has nearly one value everywhere; it cannot be normalised")
    return norm


def median(norms: Sequence[Norm]) -> Norm:
    """Return the norm of the median offset and scale."""
    return Norm(float(np.median([n.offset for n in norms])), float(np.median([n.scale for n in norms])))

"""Cubic interpolation between planes, which users call bicubic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.upsampled import count_of, places
from deepcontrast.upsamplers._checked import checked

CHOICES: tuple[Mapping[str, Any], ...] = ({},)


def cubic(volume: NDArray[np.float32], *, factor: float) -> NDArray[np.float32]:
    """Return a volume with planes between its planes, by cubic splines through its voxels.

    Args:
        volume: (Z, Y, X), any unit.
        factor: distance of planes in pixels, 1 or more.

    Returns:
        (round(Z factor), Y, X), at :func:`deepcontrast.upsampled.places`; the splines go on as if the first and the
        last plane were repeated.

    Raises:
        InputError: a factor below 1, or not a volume of two planes or more.

    Source: Unser, Aldroubi & Eden 1993 (B-splines), as in ``scipy.ndimage``.
    """
    given = checked(volume, factor)
    shape = (count_of(len(given), factor), *given.shape[1:])
    first = float(places(len(given), factor, slice(0, 1))[0])
    made = ndimage.affine_transform(
        given, np.array([1 / factor, 1.0, 1.0]), (first, 0.0, 0.0), output_shape=shape, order=3, mode="nearest"
    )
    return np.asarray(made, np.float32)

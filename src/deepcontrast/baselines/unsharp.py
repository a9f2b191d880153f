"""Unsharp mask, as Fiji's: what a Gaussian takes away, added again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import unsharp_mask

from deepcontrast.baselines import Scene

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"radius": radius, "amount": amount} for radius, amount in product((2.0, 5.0, 10.0, 20.0), (1.5, 4.0))
)


def unsharp(volume: NDArray[np.float32], *, radius: float = 5.0, amount: float = 1.5) -> NDArray[np.float32]:
    """Return each plane plus ``amount`` times what a Gaussian blur takes away from it.

    ``skimage.filters.unsharp_mask``, without its clipping to 0 .. 1. Fiji's "Unsharp Mask" has the same radius
    (a standard deviation) and a mask weight w, and divides by 1 - w: ``amount = w / (1 - w)``, so that its
    default 0.6 is 1.5 here and its largest, 0.9, is 9.

    Args:
        volume: (Z, Y, X).
        radius: standard deviation of the Gaussian in pixels.
        amount: factor of the difference; 0 changes nothing.

    Returns:
        (Z, Y, X) in grey levels; beside bright structures it may fall below 0. Memory: the result and a few
        planes.

    Source: ImageJ, Process > Filters > Unsharp Mask.
    """
    out = np.empty(volume.shape, np.float32)
    for z, plane in enumerate(volume):
        plane = np.asarray(plane, np.float32)
        out[z] = unsharp_mask(plane, radius, amount, preserve_range=True)  # type: ignore[no-untyped-call]
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return Fiji's weight 0.6, and as radius twice the structures' half width.

    A Gaussian narrower than the structures sharpens the noise in them; one as wide as they are takes the haze.
    """
    return {"radius": 2 * scene.radius, "amount": 1.5}

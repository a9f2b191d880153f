"""Contrast-limited adaptive histogram equalisation, plane by plane, with Fiji's settings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import equalize_adapthist

from deepcontrast.baselines import Scene

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"block": block, "slope": slope} for block, slope in product((31, 63, 127, 255), (2.0, 5.0))
)


def clahe_2d(
    volume: NDArray[np.float32], *, block: int = 127, bins: int = 256, slope: float = 3.0
) -> NDArray[np.float32]:
    """Return each plane equalised over blocks, the slope of the grey-level curve being limited.

    Defaults are those of Fiji's "Enhance Local Contrast (CLAHE)": block 127, 256 bins, maximum slope 3. Fiji
    clips a block's histogram at ``slope * pixels / bins``; ``skimage.exposure.equalize_adapthist``, which
    does the work here, at ``clip_limit * pixels``, so ``clip_limit = slope / bins``. Like Fiji's "fast" mode,
    scikit-image interpolates between fixed blocks instead of centring one on every pixel.

    Args:
        volume: (Z, Y, X).
        block: side of a block in pixels.
        bins: of a block's histogram.
        slope: steepest slope of the grey-level curve; 1 changes nothing but the range.

    Returns:
        (Z, Y, X); each plane is spread over its own range of intensities. A constant plane is left as it is.

    Source: Zuiderveld 1994, Graphics Gems IV; Saalfeld, Fiji.
    """
    out = np.array(volume, np.float32)
    for plane in out:
        bottom, top = float(plane.min()), float(plane.max())
        if top <= bottom:
            continue
        unit = np.clip((plane.astype(np.float64) - bottom) / (top - bottom), 0, 1)
        equalised = equalize_adapthist(unit, kernel_size=block, clip_limit=slope / bins, nbins=bins)
        plane[:] = bottom + (top - bottom) * equalised
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return Fiji's settings, with larger blocks where structures are large: 8 times their width at half maximum.

    Fiji's manual: the block should be larger than the features to be preserved.
    """
    return {"block": max(127, 16 * ceil(scene.radius) + 1), "bins": 256, "slope": 3.0}

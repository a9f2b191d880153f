"""Linear interpolation between planes: what a network for axial sections is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.upsampled import Upsampled
from deepcontrast.upsamplers._checked import checked

CHOICES: tuple[Mapping[str, Any], ...] = ({},)


def linear(volume: NDArray[np.float32], *, factor: float) -> NDArray[np.float32]:
    """Return a volume with planes between its planes, by linear interpolation.

    Args:
        volume: (Z, Y, X), any unit.
        factor: distance of planes in pixels, 1 or more.

    Returns:
        (round(Z factor), Y, X), at :func:`deepcontrast.upsampled.places`; beyond the first and the last plane theirs.

    Raises:
        InputError: a factor below 1, or not a volume of two planes or more.

    Source: the input of CARE's isotropic reconstruction (supplement, section 2.4).
    """
    return np.asarray(Upsampled(checked(volume, factor), 0, factor)[:], np.float32)

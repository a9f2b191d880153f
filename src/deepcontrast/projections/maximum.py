"""Maximum projection: of every column the brightest voxel, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.projections import Projection
from deepcontrast.projections._read_out import checked

CHOICES: tuple[Mapping[str, Any], ...] = ({},)


def maximum(stack: NDArray[np.float32]) -> Projection:
    """Return the maximum along z, and the first plane where it is.

    It knows no surface: noise makes it brighter, and whatever lies above or below shines through.

    Args:
        stack: (Z, Y, X), any unit.

    Raises:
        InputError: not three axes, or values that are not finite.

    Source: Fiji's "Z Project" with maximum intensity.
    """
    volume = checked(stack)
    return Projection(volume.max(axis=0), volume.argmax(axis=0).astype(np.float32))

"""What every upsampler begins with: a volume, and a distance of its planes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError


def checked(volume: NDArray[Any], factor: float) -> NDArray[np.float32]:
    """Return the volume (Z, Y, X) as float32.

    Raises:
        InputError: a factor below 1, or not three axes and two planes or more.
    """
    if not factor >= 1:
        raise InputError(f"planes can be {factor:g} times as many; accepted: 1 or more")
    if volume.ndim != 3 or len(volume) < 2:
        raise InputError(f"a volume of shape {volume.shape} to upsample; accepted: (Z, Y, X), Z of 2 or more")
    return np.asarray(volume, np.float32)

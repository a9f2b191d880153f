"""From a stack to the surface in it; each file one method, a function of a stack (Z, Y, X).

A tissue that is one curved layer of cells is looked at as an image: each method finds how high the layer is above
every pixel and reads the stack there. Beside the function, a file holds ``CHOICES``, the settings among which the
best is taken where the truth is known; a choice replaces some of the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Projection:
    """What a projection makes of a stack.

    Attributes:
        image: (Y, X), float32, grey levels of the stack.
        height: (Y, X), float32, where the surface is, in planes from the first, which is 0; ``None`` where a method
            knows no surface.
    """

    image: NDArray[np.float32]
    height: NDArray[np.float32] | None

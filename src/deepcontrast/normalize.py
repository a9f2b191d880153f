"""Grey values to network values and back: an offset and a scale, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

Array = TypeVar("Array", bound=Any)


@dataclass(frozen=True)
class Norm:
    """``(x - offset) / scale``; kinds of normalisation differ only in how the two are fitted.

    A bias-free network is equivariant to the scale and not to the offset, so the offset must be what the
    camera adds, never a percentile of the image.
    """

    offset: float = 0.0
    scale: float = 1.0

    def __call__(self, x: Array) -> Array:
        normalised: Array = (x - self.offset) / self.scale
        return normalised

    def invert(self, y: Array) -> Array:
        """Return grey values for network values."""
        grey: Array = y * self.scale + self.offset
        return grey

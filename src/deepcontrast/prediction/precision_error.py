"""How far a result of reduced precision is from that in float32."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PrecisionError:
    """Difference of a tile in reduced precision from the same tile in float32, in standard deviations of the latter.

    Attributes:
        precision: of the convolutions.
        rms: root mean square of the difference.
        largest: largest absolute difference.
    """

    precision: str
    rms: float
    largest: float

    def describe(self) -> str:
        """Return it in one line for the user."""
        return (
            f"{self.precision} differs from float32 in the middle of the first tile by {self.rms:.2g} (RMS) and "
            f"{self.largest:.2g} (largest) of the standard deviation there"
        )


def precision_error(precision: str, reduced: Tensor, exact: Tensor) -> PrecisionError:
    """Return how far a tile is from the exact one, both in float32 on one device."""
    difference = reduced - exact
    spread = exact.std(correction=0).clamp(min=1e-12)
    rms, largest = difference.square().mean().sqrt() / spread, difference.abs().max() / spread
    return PrecisionError(precision, float(rms), float(largest))

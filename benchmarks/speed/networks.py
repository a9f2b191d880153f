"""What every side computes: networks, patches and images as plain numbers. Needs nothing but Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One network, what it is trained on and what it is applied to.

    Attributes:
        dims: 2 or 3 image dimensions.
        depth: number of poolings of CSBDeep's U-Net; kernels 3 wide with bias, residual, one channel.
        batch: shape of a training batch without its channel, (N, [Z,] Y, X).
        image: shape of the volume that is restored (Z, Y, X); its planes are independent images in 2 dimensions.
    """

    dims: int
    depth: int
    batch: tuple[int, ...]
    image: tuple[int, int, int]


FEATURES = 32
LEARNING_RATE = 4e-4
CASES = {
    "2D depth 2": Case(2, 2, (16, 128, 128), (4, 1024, 1024)),
    "2D depth 5": Case(2, 5, (16, 128, 128), (4, 1024, 1024)),
    "3D depth 2": Case(3, 2, (2, 32, 64, 64), (64, 256, 256)),
}

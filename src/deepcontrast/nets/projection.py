"""CARE's network for surfaces in stacks: it weighs the voxels of every column, and restores their weighted sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d, relu

from deepcontrast.nets._blank import Conv3d
from deepcontrast.nets.unet import unet


def projection(
    *,
    depth: int = 3,
    features: int = 32,
    kernel: int = 3,
    bias: bool = True,
    residual: bool = True,
    last: str = "linear",
    narrow: bool = False,
    probabilistic: bool = False,
    surface_depth: int = 4,
    surface_features: int = 8,
) -> nn.Module:
    """Build a network that makes a plane of a stack, with weights not yet set.

    A first network in space, pooled along Y and X only and without skip connections, gives every voxel a number; their
    softmax along Z weighs the voxels of a column, whose weighted sum a U-Net in the plane then restores (CARE
    supplement, section 2.3.3 and figure 12). With the defaults it has as many weights as CSBDeep's, 1,379,802, or
    1,379,835 with a scale; the paper says 1,386,347.

    Args:
        depth, features, kernel, bias, residual, last, narrow: of the U-Net, see :func:`deepcontrast.nets.unet.unet`.
        probabilistic: it gives a scale too.
        surface_depth: number of poolings of the first network.
        surface_features: its feature maps, on every level.

    Returns:
        A module for (N, 1, Z, Y, X), any Z, to (N, 1, Y, X), or 2 with a scale; with ``halo``, ``step``, ``outputs``,
        and ``surface``, which gives the weights of the voxels.
    """
    plane = unet(
        depth=depth, features=features, kernel=kernel, bias=bias, residual=residual, last=last, narrow=narrow,
        probabilistic=probabilistic,
    )  # fmt: skip
    return _Projection(plane, surface_depth, surface_features, bias)


class _Projection(nn.Module):
    def __init__(self, plane: nn.Module, depth: int, features: int, bias: bool) -> None:
        super().__init__()

        def conv(a: int, b: int) -> nn.Module:
            return Conv3d(a, b, 3, padding=1, bias=bias)

        self.down = nn.ModuleList(conv(features if level else 1, features) for level in range(depth))
        self.middle = conv(features, features)
        self.up = nn.ModuleList(conv(features, features) for _ in range(depth))
        self.score = conv(features, 1)
        self.plane = plane
        self.outputs = 1
        own, step = int(plane.halo), int(plane.step)  # type: ignore[arg-type]
        self.step = max(2**depth, step)
        self.halo = own + _reach(depth)

    def surface(self, x: Tensor) -> Tensor:
        """Return the weights of the voxels of a stack (N, 1, Z, Y, X), of the same shape, sum 1 along Z."""
        y = x
        for conv in self.down.children():
            y = max_pool3d(relu(conv(y), inplace=True), (1, 2, 2))
        y = relu(self.middle(y), inplace=True)
        for conv in self.up.children():
            y = relu(conv(interpolate(y, scale_factor=(1.0, 2.0, 2.0), mode="nearest")), inplace=True)
        # Under autocast the numbers are rounded; weights that must sum to 1 are not.
        return torch.softmax(self.score(y).to(x.dtype), dim=2)

    def seen(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return the restored plane of a stack whose voxels are weighed so."""
        out: Tensor = self.plane((x * weights).sum(2))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x, self.surface(x))


def _reach(depth: int) -> int:
    """Return how far beyond its own block of ``2**depth`` pixels the weight of a voxel looks along Y and X.

    The interval of pixels that one aligned block depends on, followed layer by layer from the last to the first.
    """
    low, high = -2, 2**depth + 1  # the last two convolutions
    for level in range(depth):
        low, high = low // 2, high // 2
        if level < depth - 1:
            low, high = low - 1, high + 1
    low, high = low - 1, high + 1
    for _ in range(depth):
        low, high = 2 * low - 1, 2 * high + 2
    return int(max(-low, high - 2**depth + 1))

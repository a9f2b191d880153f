"""The U-Net of CSBDeep, as DeepContrast and CARE use it (NUMBERS: two convolutions a level, no batch norm)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils import skip_init as _untyped_skip_init

skip_init: Callable[..., nn.Module] = _untyped_skip_init


def unet(
    *,
    depth: int = 2,
    features: int = 32,
    kernel: int = 3,
    bias: bool = True,
    residual: bool = True,
    dims: int = 2,
) -> nn.Module:
    """Build a U-Net from one channel to one channel, with weights not yet set.

    Two convolutions with ReLU a level, max pooling by 2, nearest upsampling, features doubling with every
    level, a linear 1x1 convolution last (Weigert et al. 2018, supplement; CSBDeep 0.8). Without bias the
    network is homogeneous: ``f(a x) = a f(x)`` for ``a >= 0`` (Mohan et al. 2020).

    Args:
        depth: number of poolings.
        features: feature maps of the first level.
        kernel: side of the convolutions, odd.
        bias: whether convolutions add a constant.
        residual: add the input to the output.
        dims: 1 for (N, 1, X), 2 for (N, 1, Y, X), 3 for (N, 1, Z, Y, X).

    Returns:
        A module with ``halo`` (voxels an output looks beyond the block of ``step`` voxels it stands in) and
        ``step`` (input lengths must be its multiples), the same for every axis.
    """
    return _UNet(depth, features, kernel, bias, residual, dims)


class _UNet(nn.Module):
    def __init__(self, depth: int, features: int, kernel: int, bias: bool, residual: bool, dims: int) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]

        def pair(*widths: int) -> nn.ModuleList:
            return nn.ModuleList(
                skip_init(conv, a, b, kernel, padding=kernel // 2, bias=bias)
                for a, b in zip(widths, widths[1:], strict=False)
            )

        wide = [features * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            pair(wide[level - 1] if level else 1, wide[level], wide[level]) for level in range(depth)
        )
        self.middle = pair(wide[depth - 1], wide[depth], wide[depth - 1])
        self.up = nn.ModuleList(
            pair(2 * wide[level], wide[level], wide[max(0, level - 1)]) for level in reversed(range(depth))
        )
        self.last = skip_init(conv, features, 1, 1, bias=bias)
        self.pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dims](2)
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.residual = residual
        self.step = 2**depth
        self.halo = halo(depth, kernel)

    def forward(self, x: Tensor) -> Tensor:
        skips, y = [], x
        for convs in self.down:
            y = _apply(convs, y)
            skips.append(y)
            y = self.pool(y)
        y = _apply(self.middle, y)
        for convs in self.up:
            y = _apply(convs, torch.cat([self.grow(y), skips.pop()], dim=1))
        out: Tensor = self.last(y)
        return out + x if self.residual else out


def _apply(convs: nn.Module, x: Tensor) -> Tensor:
    for conv in convs.children():
        x = relu(conv(x), inplace=True)
    return x


def halo(depth: int, kernel: int) -> int:
    """Return how far beyond its own block of ``2**depth`` pixels an output of the U-Net can look.

    Follows the interval of pixels that one aligned block of outputs depends on, layer by layer, from the last
    to the first; equals CSBDeep's table of tile overlaps (NUMBERS section 3).
    """
    reach, low, high = 2 * (kernel // 2), 0, 2**depth - 1
    skips = []
    for _ in range(depth):
        low, high = low - reach, high + reach
        skips.append((low, high))
        low, high = low // 2, high // 2
    low, high = low - reach, high + reach
    for skip_low, skip_high in reversed(skips):
        low, high = min(2 * low, skip_low) - reach, max(2 * high + 1, skip_high) + reach
    return int(max(-low, high - (2**depth - 1)))

"""The U-Net of CSBDeep, as DeepContrast and CARE use it (NUMBERS: two convolutions a level, no batch norm)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import relu

from deepcontrast.nets._blank import Conv1d, Conv2d, Conv3d

LEAST_SCALE = 0.001
"""Added to every scale, so that none is 0 (CARE supplement, 2.3.1; CSBDeep)."""
FEW = 4096
"""Voxels of a batch's map from which merging two maps in one go pays; below, preparing the weights costs more."""


def unet(
    *,
    depth: int = 2,
    features: int = 32,
    kernel: int = 3,
    bias: bool = True,
    residual: bool = True,
    last: str = "linear",
    narrow: bool = False,
    dims: int = 2,
    channels: int = 1,
    outputs: int = 1,
    probabilistic: bool = False,
    pool_z: int | None = None,
) -> nn.Module:
    """Build a U-Net, with weights not yet set.

    Two convolutions with ReLU a level, max pooling by 2, nearest upsampling, features doubling with every
    level, a linear 1x1 convolution last (Weigert et al. 2018, supplement; CSBDeep 0.8). Without bias the
    network is homogeneous: ``f(a x) = a f(x)`` for ``a >= 0`` (Mohan et al. 2020).

    Args:
        depth: number of poolings.
        features: feature maps of the first level.
        kernel: side of the convolutions, odd.
        bias: whether convolutions add a constant.
        residual: add to every output the middle one of its share of the input's channels.
        last: ``"relu"`` makes nothing of what is below 0 then.
        narrow: the first convolution of every upward level has ``features`` maps (Noise2Void from 0.3.2 on).
        dims: 1 for (N, C, X), 2 for (N, C, Y, X), 3 for (N, C, Z, Y, X).
        channels: of the input.
        outputs: channels of the output; they divide those of the input, or there is no residual.
        probabilistic: after the outputs, give the scale of each: softplus + ``LEAST_SCALE`` (CARE supplement, 2.3.1).
        pool_z: of a network in space, how many of the poolings are along Z too, the first ones; by default all. With
            none any number of planes may be given, few among them.

    Returns:
        A module with ``halo`` (voxels an output looks beyond the block of ``step`` voxels it stands in) and ``step``
        (input lengths must be its multiples), along Y and X; ``halo_z`` and ``step_z`` of a network in space; and
        ``outputs``.
    """
    pooled = depth if pool_z is None else min(pool_z, depth)
    return _UNet(depth, features, kernel, bias, residual, last, narrow, dims, channels, outputs, probabilistic, pooled)


class _UNet(nn.Module):
    def __init__(
        self,
        depth: int,
        features: int,
        kernel: int,
        bias: bool,
        residual: bool,
        last: str,
        narrow: bool,
        dims: int,
        channels: int,
        outputs: int,
        probabilistic: bool,
        pool_z: int,
    ) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = (Conv1d, Conv2d, Conv3d)[dims - 1]

        def pair(*widths: int) -> nn.ModuleList:
            return nn.ModuleList(
                conv(a, b, kernel, padding=kernel // 2, bias=bias) for a, b in zip(widths, widths[1:], strict=False)
            )

        wide = [features * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            pair(wide[level - 1] if level else channels, wide[level], wide[level]) for level in range(depth)
        )
        self.middle = pair(wide[depth - 1], wide[depth], wide[depth - 1])
        self.up = nn.ModuleList(
            pair(2 * wide[level], features if narrow else wide[level], wide[max(0, level - 1)])
            for level in reversed(range(depth))
        )
        self.last = conv(features, outputs * (1 + probabilistic), 1, bias=bias)
        flat = (1,) if dims == 3 else ()
        self.factors = [(2,) * dims if level < pool_z or dims < 3 else (*flat, 2, 2) for level in range(depth)]
        share, left = divmod(channels, outputs)
        self.outputs, self.probabilistic = outputs, probabilistic
        self.positive = last == "relu"
        self.shown = slice(share // 2, None, share) if residual and not left else None
        self.step, self.step_z = 2**depth, 2**pool_z
        self.halo, self.halo_z = halo(depth, kernel), halo(depth, kernel, pool_z)

    def forward(self, x: Tensor) -> Tensor:
        skips, y = [], x
        for convs, factors in zip(self.down, self.factors, strict=True):
            y = _apply(convs, y)
            skips.append(y)
            y = _pooled(y, factors)
        y = _apply(self.middle, y)
        first: Any
        for convs, factors in zip(self.up, reversed(self.factors), strict=True):
            first, second = convs.children()
            y = relu(merged(y, skips.pop(), first.weight, first.bias, factors), inplace=True)
            y = relu(second(y), inplace=True)
        # Under autocast the last convolution is rounded; grey values of the result must not be.
        out: Tensor = self.last(y).to(x.dtype)
        mean = out[:, : self.outputs]
        if self.shown is not None:
            mean = mean + x[:, self.shown]
        if self.positive:
            mean = relu(mean)
        if not self.probabilistic:
            return mean
        return torch.cat([mean, functional.softplus(out[:, self.outputs :]) + LEAST_SCALE], dim=1)


def merged(coarse: Tensor, skip: Tensor, weight: Tensor, bias: Tensor | None, factors: Sequence[int]) -> Tensor:
    """Return the convolution of a nearest-upsampled map, beside the skip connection's (N, C, ...).

    Args:
        coarse: the map of the level below.
        skip: the map of this level.
        weight: (out, channels of both, kernel ...); bias: (out,) or ``None``.
        factors: by which this level is longer, 1 or 2, per axis.
    """
    if coarse.device.type != "cpu" or skip[:, 0].numel() < FEW:
        up = functional.interpolate(coarse, scale_factor=tuple(map(float, factors)), mode="nearest")
        both = torch.cat([up, skip], dim=1)
        return _of(_CONVOLUTIONS, weight)(both, weight, bias, padding=weight.shape[-1] // 2)
    # Repeating every voxel and convolving with k taps is one transposed convolution with k + 1: of 9 products
    # 4 are left, of 27 in 3D 8, and neither the upsampled map nor the joint one is ever made. On a GPU the usual way
    # is known to be fast, and Metal has no transposed convolution in 3D (docs/decisions.md).
    split, pad = coarse.shape[1], weight.shape[-1] // 2
    beside = _of(_CONVOLUTIONS, weight)(skip, weight[:, split:], bias, padding=pad)
    taps = _repeated(weight[:, :split], factors)
    below: Tensor = _of(_TRANSPOSED, weight)(coarse, taps, stride=tuple(factors), padding=pad)
    return beside.add_(below)


_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def _of(functions: tuple[Callable[..., Tensor], ...], weight: Tensor) -> Callable[..., Tensor]:
    """Return the function for the axes that a weight has beside its channels."""
    return functions[weight.ndim - 3]


def _repeated(weight: Tensor, factors: Sequence[int]) -> Tensor:
    """Return (in, out, k + 1 ...): the transposed convolution that equals repeating every voxel, then ``weight``.

    Along an axis of factor 1 nothing is repeated, and there are k taps.
    """
    axes = list(range(2, weight.ndim))
    doubled = [axis for axis, factor in zip(axes, factors, strict=True) if factor == 2]
    weight = functional.pad(weight.flip(axes), [n for axis in reversed(axes) for n in [int(axis in doubled)] * 2])
    for axis in doubled:
        taps = weight.shape[axis]
        weight = weight.narrow(axis, 0, taps - 1) + weight.narrow(axis, 1, taps - 1)
    return weight.transpose(0, 1)


def _apply(convs: nn.Module, x: Tensor) -> Tensor:
    for conv in convs.children():
        x = relu(conv(x), inplace=True)
    return x


def _pooled(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    pool: Callable[..., Tensor] = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[
        len(factors) - 1
    ]
    return pool(x, factors)


def halo(depth: int, kernel: int, pooled: int | None = None) -> int:
    """Return how far beyond its own block of ``2**pooled`` pixels an output of the U-Net can look along an axis.

    ``pooled`` of its levels, the first ones, are pooled along that axis; by default all ``depth``. Follows the interval
    of pixels that one aligned block of outputs depends on, layer by layer, from the last to the first; equals CSBDeep's
    table of tile overlaps (NUMBERS section 3).
    """
    pooled = depth if pooled is None else pooled
    last = 2**pooled - 1
    reach, low, high = 2 * (kernel // 2), 0, last
    skips = []
    for level in range(depth):
        low, high = low - reach, high + reach
        skips.append((low, high))
        if level < pooled:
            low, high = low // 2, high // 2
    low, high = low - reach, high + reach
    for level, (skip_low, skip_high) in reversed(list(enumerate(skips))):
        if level < pooled:
            low, high = 2 * low, 2 * high + 1
        low, high = min(low, skip_low) - reach, max(high, skip_high) + reach
    return int(max(-low, high - last))

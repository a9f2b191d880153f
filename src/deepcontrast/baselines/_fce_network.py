"""FCE-Net: a shallow path for detail, a ResNet-18 with spatial attention for context, one convolved output."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from deepcontrast.nets._blank import Conv2d

STEP = 32


def fce_net(*, features: int = 64, trunk: int = 64) -> nn.Module:
    """Build an FCE-Net from one channel to one channel, with the weights of convolutions not yet set.

    Spatial path: 7x7, 3x3, 3x3 convolutions of stride 2 to ``features``, twice, twice as many maps. Attention
    path: ResNet-18; its maps at 1/16 and 1/32 of the side are each multiplied by a spatial attention whose one
    convolution they share (mean and maximum over the maps, 7x7, sigmoid); those at 1/32 grow by a 1x1
    convolution and a pixel shuffle and are added to those at 1/16; the sum grows to 1/8 and meets a 3x3
    convolution. Both paths are concatenated, grow 4 times (bilinear), meet a 3x3 convolution, are concatenated
    with the first maps of the spatial path, grow 2 times, and end in a 3x3 and a 1x1 convolution.

    Choices where the description is silent. The sum grows from 1/16 to 1/8 by a 1x1 convolution and a pixel
    shuffle too; the last growth, by 2, is bilinear as the one before. Widths: the pixel shuffles give the
    ``4 * trunk`` maps they are added to, and ``2 * features`` maps; 3x3 convolutions after a concatenation give
    ``features`` maps. Every k x k convolution with k > 1 has batch normalisation and ReLU and no bias, but for
    the attention's, which has none of these; 1x1 convolutions have a bias and nothing after them, so that the
    output is linear. Weights do not come from ImageNet: none can be downloaded.

    In evaluation mode batch normalisation is a fixed scale and offset, so a value depends on finitely many
    pixels, yet on so many (``halo``) that planes are best given whole.

    Args:
        features: maps of the first convolution of the spatial path; the authors trained with 64.
        trunk: maps of the first convolution of the ResNet; 64 in ResNet-18.

    Returns:
        A module from (N, 1, Y, X) to the same shape, with ``halo`` (pixels an output looks beyond the block of
        ``step`` pixels it stands in) and ``step`` (Y and X must be its multiples).

    Source: Zhang et al. 2022, Biomed. Opt. Express 13, 3521; He et al. 2016 (ResNet-18, projection shortcuts);
    Woo et al. 2018 (spatial attention of CBAM); Shi et al. 2016 (pixel shuffle). Written from the description.
    """
    return _FCENet(features, trunk)


class _FCENet(nn.Module):
    def __init__(self, features: int, trunk: int) -> None:
        super().__init__()
        n, wide = features, [trunk * 2**stage for stage in range(4)]
        self.spatial = nn.ModuleList([_conv(1, n, 7, 2), _conv(n, 2 * n, 3, 2), _conv(2 * n, 2 * n, 3, 2)])
        self.stem = nn.Sequential(_conv(1, trunk, 7, 2), nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.ModuleList(
            nn.Sequential(_Residual(before, maps, 1 if before == maps else 2), _Residual(maps, maps, 1))
            for before, maps in zip([trunk, *wide], wide, strict=False)
        )
        self.attention = Conv2d(2, 1, 7, padding=3, bias=False)
        self.grow_32 = _shuffle(wide[3], wide[2])
        self.grow_16 = nn.Sequential(_shuffle(wide[2], 2 * n), _conv(2 * n, 2 * n, 3))
        self.merge = nn.Sequential(_bilinear(4), _conv(4 * n, n, 3))
        self.last = nn.Sequential(_bilinear(2), _conv(2 * n, n, 3), Conv2d(n, 1, 1))
        self.step = STEP
        self.halo = _halo()

    def forward(self, x: Tensor) -> Tensor:
        first = self.spatial[0](x)
        fine = self.spatial[2](self.spatial[1](first))
        coarse = []
        y = self.stem(x)
        for stage in self.stages:
            y = stage(y)
            coarse.append(y)
        context = self.grow_16(self._attend(coarse[2]) + self.grow_32(self._attend(coarse[3])))
        y = self.merge(torch.cat([fine, context], dim=1))
        out: Tensor = self.last(torch.cat([y, first], dim=1))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        attended: Tensor = x * torch.sigmoid(self.attention(summary))
        return attended


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, maps: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(before, maps, 3, stride)
        self.second = _normalised(maps, maps, 3, 1)
        self.shortcut = nn.Identity() if stride == 1 else _normalised(before, maps, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.second(self.first(x)) + self.shortcut(x))


def _normalised(before: int, maps: int, kernel: int, stride: int) -> nn.Sequential:
    conv = Conv2d(before, maps, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(maps))


def _conv(before: int, maps: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_normalised(before, maps, kernel, stride), nn.ReLU(inplace=True))


def _shuffle(before: int, maps: int) -> nn.Sequential:
    return nn.Sequential(Conv2d(before, 4 * maps, 1), nn.PixelShuffle(2))


def _bilinear(factor: int) -> nn.Module:
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)


def _halo() -> int:
    """Follow the interval of pixels that one block of outputs depends on along the deepest path, last layer first."""
    low, high = 0, STEP - 1
    low, high = _seen(low, high, [(3, 1)])
    low, high = _seen(*_before_bilinear(low, high, 2), [(3, 1)])
    low, high = _seen(*_before_bilinear(low, high, 4), [(3, 1)])
    low, high = low // 4, high // 4  # two pixel shuffles
    attention, stage, stem = [(7, 1)], [*[(3, 1)] * 3, (3, 2)], [*[(3, 1)] * 4, (3, 2), (7, 2)]
    low, high = _seen(low, high, [*attention, *stage * 3, *stem])
    return max(-low, high - (STEP - 1))


def _seen(low: int, high: int, windows: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the interval that windows of (side, stride) see, from the last to the first."""
    for side, stride in windows:
        low, high = low * stride - side // 2, high * stride + side // 2
    return low, high


def _before_bilinear(low: int, high: int, factor: int) -> tuple[int, int]:
    """Return the interval between whose samples a bilinear growth interpolates."""
    first, last = ((2 * i + 1 - factor) // (2 * factor) for i in (low, high))
    return first, last + 1

"""Pixels of a camera that are read out together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from deepcontrast.errors import InputError
from deepcontrast.stack import Optics


def binning(image: Tensor, optics: Optics, *, generator: torch.Generator | None = None, factor: int = 2) -> Tensor:
    """Return the image with the mean of every block of pixels in all of them: it stays on the grid of its truth.

    Args:
        image: (..., Y, X), float32. Blocks begin in the first pixel; those at the far borders have what is there.
        optics: not used; every degradation takes it.
        generator: not used; nothing is random.
        factor: side of a block in pixels; 1 leaves the image as it is.

    Raises:
        InputError: a factor below 1.
    """
    if factor < 1:
        raise InputError(f"blocks of {factor} pixels; accepted: 1 or more")
    height, width = image.shape[-2:]
    planes = image.reshape(-1, 1, height, width)
    more = (0, -width % factor, 0, -height % factor)
    count = avg_pool2d(pad(torch.ones_like(planes), more), factor)
    blocks = avg_pool2d(pad(planes, more), factor) / count
    spread = blocks.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    return spread[..., :height, :width].reshape(image.shape)

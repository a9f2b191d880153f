"""Gaussian blur of planes, by normalised convolution where voxels are missing."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from deepcontrast.stack import Optics


def blur(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator | None = None,
    sigma: float = 20.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Return ``b(x)``: every plane blurred by a Gaussian, mirrored at the borders (DeepContrast eq. 1).

    Args:
        image: (..., Y, X), float.
        optics: not used; every degradation takes it.
        generator: not used; the blur is not random.
        sigma: standard deviation in pixels.
        valid: bool (..., Y, X); other voxels give nothing to their neighbours and are filled by them.
    """
    if valid is None:
        return _blur(image, sigma)
    known = valid.to(image.dtype)
    weight = _blur(known, sigma)
    # The level keeps the quotient meaningful where the nearest valid voxel is many sigma away.
    level = (image * known).sum((-2, -1), keepdim=True) / known.sum((-2, -1), keepdim=True).clamp(min=1)
    value = _blur((image - level) * known, sigma)
    return torch.where(weight > 1e-6, value / weight.clamp(min=1e-6), 0) + level


def blur_inside(image: Tensor, sigma: float) -> Tensor:
    """Return every plane (..., Y, X) blurred by a Gaussian of ``sigma`` pixels, as if there were nothing around it.

    All is computed on the image's device, so that it can be part of a captured step.
    """
    reach = int(4 * sigma + 0.5)
    total = sum(math.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, reach + 1))
    rows, columns = (_gaussian(n, sigma, reach, image) / total for n in image.shape[-2:])
    return rows @ image @ columns


def _gaussian(n: int, sigma: float, reach: int, like: Tensor) -> Tensor:
    along = torch.arange(n, device=like.device, dtype=like.dtype)
    apart = (along.unsqueeze(1) - along).square()
    return torch.exp(-0.5 * apart / sigma**2) * (apart <= reach**2)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur as two matrix products: exact, mirrored at the borders, fast on any device."""
    rows, columns = (_matrix(n, sigma).to(image) for n in image.shape[-2:])
    return rows @ image @ columns.T


@lru_cache(maxsize=8)
def _matrix(n: int, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter1d(np.eye(n), sigma, axis=0, mode="reflect"))

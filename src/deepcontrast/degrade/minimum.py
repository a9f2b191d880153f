"""The minimum filter that takes the noise out of an image that is to be a truth."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from deepcontrast.errors import InputError
from deepcontrast.stack import Optics


def minimum(image: Tensor, optics: Optics, *, generator: torch.Generator | None = None, radius: float = 1.0) -> Tensor:
    """Return every pixel's lowest neighbour: bright structures become thinner, bright specks go.

    Args:
        image: (..., Y, X), float32.
        optics: not used; every degradation takes it.
        generator: not used; nothing is random.
        radius: in pixels; neighbours are as far as the square root of ``radius`` squared plus 1, as Fiji's filter of
            that name counts: 0.5 is the pixel and its four neighbours, 1 the eight. 0 leaves the image as it is.

    Raises:
        InputError: a negative radius.

    Source: semi-synthetic data, section 3.1: 0.5 to 4 pixels.
    """
    if radius < 0:
        raise InputError(f"a minimum filter of {radius:g} pixels; accepted: 0 or more")
    if radius == 0:
        return image.clone()
    reach = math.isqrt(int(radius**2 + 1))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = y**2 + x**2 <= radius**2 + 1
    footprint = near.reshape((1,) * (image.ndim - 2) + near.shape)
    return torch.from_numpy(ndimage.minimum_filter(image.cpu().numpy(), footprint=footprint, mode="nearest")).to(image)

"""Black and bright: the grey levels of an image that is to be a truth, brought to a common scale."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.errors import InputError
from deepcontrast.stack import Optics


def black_level(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator | None = None,
    black: float = 1.0,
    bright: float = 99.9,
) -> Tensor:
    """Return the image with 0 where it is black and about 1 where it is bright; nothing is below 0.

    Args:
        image: (..., Y, X), float32.
        optics: not used; every degradation takes it.
        generator: not used; nothing is random.
        black: percentile of the image that becomes 0; what is darker becomes 0 too.
        bright: percentile that becomes 1; what is brighter stays brighter.

    Raises:
        InputError: percentiles that are none, or both are one grey level.

    Source: semi-synthetic data, section 3.1: contrast and black level are adjusted.
    """
    if not 0 <= black < bright <= 100:
        raise InputError(f"percentiles {black:g} and {bright:g}; accepted: from 0 to 100, black below bright")
    values = image.flatten().double()
    ranks = [round(share / 100 * (len(values) - 1)) + 1 for share in (black, bright)]
    low, high = (float(values.kthvalue(rank).values) for rank in ranks)
    if not high > low:
        raise InputError(
            f"percentiles {black:g} and {bright:g} of an image are both {low:g}; accepted: images with structures, "
            "and a minimum filter narrower than they are"
        )
    return ((image - low) / (high - low)).clamp(min=0)

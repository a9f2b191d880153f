"""Over- and underexposure."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.stack import Optics


def exposure(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator | None = None,
    factor: float = 1.0,
    saturation: float = 1.0,
) -> Tensor:
    """Return the image so many times as bright, nothing of it above the level at which the camera is saturated.

    Args:
        image: (..., Y, X), float32.
        optics: not used; every degradation takes it.
        generator: not used; nothing is random.
        factor: above 1 overexposes, below 1 underexposes.
        saturation: the highest grey level there is, in units of the image.

    Source: semi-synthetic data, section 3.1, step 4.
    """
    return (factor * image).clamp(max=saturation)

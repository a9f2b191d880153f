"""The level of a camera in the dark, and light that comes smoothly from everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.perlin import perlin
from deepcontrast.stack import Optics


def background(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator,
    level: float = 0.0,
    glow: float = 0.1,
    period: float = 64.0,
) -> Tensor:
    """Return the image with a constant and a low-frequency Perlin noise added to it.

    Args:
        image: (..., Y, X), float32; every plane gets a glow of its own.
        optics: not used; every degradation takes it.
        generator: of the image's device.
        level: that is added everywhere: black afterwards.
        glow: of the smooth light, between nothing and so much.
        period: of the smooth light, in pixels.

    Source: CARE supplement, section 2.5.1: "autofluorescence by adding low-frequency perlin noise".
    """
    height, width = image.shape[-2:]
    count = image[..., 0, 0].numel()
    planes = [perlin((height, width), period, generator=generator) for _ in range(count)]
    light = ((1 + torch.stack(planes)) / 2).clamp(0, 1).view(image.shape).to(image)
    return image + level + glow * light

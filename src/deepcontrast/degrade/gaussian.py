"""Noise of the camera that does not depend on the light."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.stack import Optics


def gaussian(
    image: Tensor, optics: Optics, *, generator: torch.Generator, sigma: float = 0.05, intensity: float = 1.0
) -> Tensor:
    """Return the image with Gaussian noise, which may make it negative.

    Args:
        image: (..., Y, X), float32.
        optics: not used; every degradation takes it.
        generator: of the image's device.
        sigma: standard deviation of the noise, in units of the image.
        intensity: by which the noise is multiplied.

    Source: semi-synthetic data, section 3.1, step 3: both are random; how they are joined is not said there.
    """
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    return image + intensity * sigma * noise

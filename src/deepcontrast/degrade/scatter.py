"""What a stretch of tissue does to an image: part of the light scattered into a haze, and its shot noise."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.degrade.blur import blur
from deepcontrast.degrade.camera import camera
from deepcontrast.stack import Optics


def scatter(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator,
    alpha: float | Tensor = 0.5,
    sigma: float = 20.0,
    blurred: Tensor | None = None,
) -> Tensor:
    """Return ``d(x) = alpha x + (1 - alpha) n(b(x))`` (DeepContrast equation 1).

    Args:
        image: (..., Y, X), float32, grey levels.
        optics: gain and offset of the shot noise ``n``.
        generator: of the image's device.
        alpha: share of the image that stays, 0 to 1; broadcast against the image, so that it can differ by
            plane (the paper: linear in depth, 0.5 at the surface, 0.3 at the deepest plane).
        sigma: of the Gaussian ``b``, in pixels (the paper: 20).
        blurred: ``b(x)`` where it is known already; a patch needs the blur of the whole plane.
    """
    haze = blur(image, optics, sigma=sigma) if blurred is None else blurred
    return alpha * image + (1 - alpha) * camera(haze, optics, generator=generator)

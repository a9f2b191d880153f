"""Shot noise of an image whose brightness is given in photons."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deepcontrast.degrade.camera import camera
from deepcontrast.errors import InputError
from deepcontrast.stack import Optics


def poisson(image: Tensor, optics: Optics, *, generator: torch.Generator, light: float = 20.0) -> Tensor:
    """Return a Poisson draw around every pixel of an image from 0, nothing, to 1, bright.

    Args:
        image: (..., Y, X), float32.
        optics: not used but for :func:`deepcontrast.degrade.camera.camera`, which draws: counts are not truncated.
        generator: of the image's device.
        light: photons of a pixel that is 1; the variance is the mean over ``light``.

    Raises:
        InputError: no light.

    Source: semi-synthetic data, section 3.1, step 2.
    """
    if not light > 0:
        raise InputError(f"{light:g} photons where an image is 1; accepted: above 0")
    return camera(image, replace(optics, gain=1 / light, offset=0.0), generator=generator)

"""Shot noise of the camera."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.stack import Optics


def camera(image: Tensor, optics: Optics, *, generator: torch.Generator) -> Tensor:
    """Return ``n(x)``: a Poisson draw around every voxel, in grey levels (DeepContrast eq. 1, section 4.2).

    Counts are ``(x - offset) / gain``; they stay float32 and are not truncated to integers before the draw
    (truncation costs half a photon everywhere; NUMBERS trap 9).

    Args:
        image: (..., Y, X), float32, grey levels.
        optics: ``gain`` in grey levels per photon (default 1) and ``offset`` in grey levels (default 0). Given
            the zero-variance intercept as offset, the draw has the variance of shot and read noise together.
        generator: of the image's device.
    """
    gain = 1.0 if optics.gain is None else optics.gain
    offset = 0.0 if optics.offset is None else optics.offset
    photons = ((image - offset) / gain).clamp(min=0)
    return torch.poisson(photons, generator=generator) * gain + offset

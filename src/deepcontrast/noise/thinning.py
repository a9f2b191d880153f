"""One image of photons as two that know nothing of each other's noise."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcontrast.stack import Optics


def thin(
    image: Tensor, optics: Optics, *, generator: torch.Generator, share: float | Tensor = 0.5
) -> tuple[Tensor, Tensor]:
    """Return two images with the mean of ``image`` and independent noise: its photons, split at random.

    A Poisson number of photons split binomially gives two independent Poisson numbers. Counts are ``(x - o') / gain``
    with the zero-variance intercept ``o' = offset - read_noise^2 / gain``: that adds ``(read_noise / gain)^2``
    photons, so that shot and read noise together have the variance of their mean. What is between two whole numbers is
    rounded at random. Each half is scaled back to the mean of the whole, its share of the shift included.

    Args:
        image: (..., Y, X), float32, grey levels.
        optics: ``gain`` in grey levels per photon (default 1) and the intercept as ``offset`` (default 0).
        generator: of the image's device.
        share: of the photons that the first image gets, between 0 and 1; broadcast against the image.

    Returns:
        Two tensors like ``image``; the first has ``1 / share`` times its noise variance, the second
        ``1 / (1 - share)`` times.
    """
    gain = 1.0 if optics.gain is None else optics.gain
    offset = 0.0 if optics.offset is None else optics.offset
    counts = ((image - offset) / gain).clamp(min=0)
    counts = (counts + torch.rand(counts.shape, generator=generator, device=counts.device)).floor_()
    part = torch.as_tensor(share, dtype=counts.dtype, device=counts.device)
    first = torch.binomial(counts, part.expand_as(counts), generator=generator)
    return first * (gain / share) + offset, (counts - first) * (gain / (1 - share)) + offset

"""One image of noise that is not of photons as two that know nothing of each other's noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def recorrupt(
    image: Tensor,
    means: Sequence[float],
    variances: Sequence[float],
    *,
    generator: torch.Generator,
    share: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Return two images with the mean of ``image`` and independent noise.

    Noise of the image's own variance is drawn; of it ``t`` times is added to the first image and ``1 / t`` times is
    taken from the second, so that the product of what is added is minus the variance that both have in common. Then
    the noise of the two is uncorrelated, and Gaussian noise of one variance independent. Where the variance changes
    with the grey level it is taken at the noisy one: that is right on average where it is about linear over the noise.
    With ``t^2 = (1 - share) / share`` the noise variances are those of :func:`deepcontrast.noise.thinning.thin`.

    Args:
        image: (..., Y, X), float32, grey levels; its noise is independent from voxel to voxel of a plane.
        means: grey levels, rising, at which the variance of the noise is known; at least one.
        variances: at these, grey levels squared; linear between them, constant beyond.
        generator: of the image's device.
        share: as of photons, between 0 and 1.

    Returns:
        Two tensors like ``image``; the first has ``1 / share`` times its noise variance, the second
        ``1 / (1 - share)`` times.

    Source: Pang et al., Recorrupted-to-Recorrupted, CVPR 2021, with a multiple of the identity as matrix.
    """
    variance = torch.full_like(image, variances[0])
    for (low, below), (high, above) in pairwise(zip(means, variances, strict=True)):
        variance += (above - below) / (high - low) * (image.clamp(low, high) - low)
    noise = torch.randn(image.shape, generator=generator, device=image.device) * variance.clamp_(min=0).sqrt_()
    times = ((1 - share) / share) ** 0.5
    return image + times * noise, image - noise / times

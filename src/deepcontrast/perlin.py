"""Gradient noise after Perlin: smooth random fields of a chosen period, on the device of their generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepcontrast.errors import InputError


def perlin(
    shape: Sequence[int],
    period: float | Sequence[float],
    *,
    generator: torch.Generator,
    octaves: int = 1,
    origin: float | None = None,
) -> Tensor:
    """Return gradient noise on a grid of pixels.

    Every point of a lattice has a random direction of length 1. A pixel's value is that of the planes through the
    points around it, each 0 at its own point and rising in its own direction, blended by 6t^5 - 15t^4 + 10t^3. Octave
    k has a period and a strength of 2^-k.

    Args:
        shape: (Y, X) or (Z, Y, X).
        period: distance of the lattice's points in pixels, one for all axes or one per axis.
        generator: of everything random; another state gives another field. No value returns to the host.
        octaves: how many are added; 1 is a field of one period.
        origin: a pixel, the same along every axis, at which a point of every octave's lattice lies; ``None`` draws
            it, so that all pixels are alike.

    Returns:
        float32 of ``shape``, within about -1 .. 1, mean 0, on the generator's device. The standard deviation of one
        octave is about 0.3.

    Raises:
        InputError: not two or three axes, a size below 1, a period that is not positive or not one per axis, no octave.

    Source: Perlin, An image synthesizer, SIGGRAPH 1985; the blend: Perlin, Improving noise, SIGGRAPH 2002.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"shape {tuple(shape)} of the noise; accepted: two or three sizes of at least 1")
    periods = (period,) * len(shape) if isinstance(period, int | float) else tuple(period)
    if len(periods) != len(shape) or not all(0 < p < math.inf for p in periods):
        raise InputError(f"period {period} of noise with {len(shape)} axes; accepted: one above 0, or one per axis")
    if octaves < 1:
        raise InputError(f"{octaves} octaves of the noise; accepted: 1 or more")
    shares = [0.5**octave for octave in range(octaves)]
    fields = [share * _octave(shape, [share * p for p in periods], generator, origin) for share in shares]
    # A cell whose corners all point to its middle has half its diagonal there, and nothing has more.
    return torch.stack(fields).sum(dim=0) / (sum(shares) * math.sqrt(len(shape)) / 2)


def _octave(shape: Sequence[int], periods: Sequence[float], generator: torch.Generator, origin: float | None) -> Tensor:
    """Return noise of one period per axis, within half a diagonal of a cell."""
    device = generator.device
    counts = [math.ceil((n - 1) / p) + 2 for n, p in zip(shape, periods, strict=True)]
    directions = torch.randn((len(shape), *counts), generator=generator, device=device)
    directions = directions / directions.norm(dim=0, keepdim=True)
    starts = torch.rand(len(shape), generator=generator, device=device)
    if origin is not None:
        starts = torch.tensor([-origin / p % 1 for p in periods], device=device)
    below, blends, slopes = [], [], []
    for n, p, count, start in zip(shape, periods, counts, starts, strict=True):
        place = start + torch.arange(n, device=device) / p
        below.append(place.floor().clamp(max=count - 2).long())
        away = place - below[-1]
        upper = away**3 * (away * (away * 6 - 15) + 10)
        blends.append((1 - upper, upper))
        slopes.append(((1 - upper) * away, upper * (away - 1)))
    field = torch.zeros(tuple(shape), device=device)
    # On a grid the blend is a product over axes: one axis after the other, each direction along its own times distance.
    for axis, part in enumerate(directions):
        for k, points in enumerate(below):
            lower, upper = slopes[k] if k == axis else blends[k]
            across = [1] * k + [-1] + [1] * (len(shape) - k - 1)
            first, second = part.index_select(k, points), part.index_select(k, points + 1)
            part = first * lower.view(across) + second * upper.view(across)
        field = field + part
    return field

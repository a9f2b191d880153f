"""Perlin's gradient noise: smooth, random, without a preferred place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor


def perlin(shape: Sequence[int], period: float | Sequence[float], *, generator: torch.Generator) -> Tensor:
    """Return noise on a grid of any number of axes: of mean 0, mostly between -1 and 1, 0 at the points of its lattice.

    Args:
        shape: of the grid, (Y, X) or (Z, Y, X).
        period: distance of the points of the lattice in pixels, one number or one for each axis; the lattice lies at
            random.
        generator: of what is random, on the device of the result.

    Source: Perlin, An image synthesizer, SIGGRAPH 1985; the fade 6 t^5 - 15 t^4 + 10 t^3 is that of Improving noise,
        SIGGRAPH 2002.
    """
    device, count = generator.device, len(shape)
    periods = [float(period)] * count if isinstance(period, int | float) else list(map(float, period))
    shift = torch.rand(count, generator=generator, device=device)
    cells, apart = [], []
    for n, length, first in zip(shape, periods, shift, strict=True):
        place = torch.arange(n, device=device) / length + first
        cells.append(place.floor().long())
        apart.append(place - place.floor())
    lattice = [math.ceil(n / length) + 2 for n, length in zip(shape, periods, strict=True)]
    gradients = torch.randn((*lattice, count), generator=generator, device=device)
    gradients /= gradients.norm(dim=-1, keepdim=True)
    fades = [t**3 * (t * (6 * t - 15) + 10) for t in apart]
    noise = torch.zeros(tuple(shape), device=device)
    for corner in product((0, 1), repeat=count):
        at = gradients[torch.meshgrid(*(c + k for c, k in zip(cells, corner, strict=True)), indexing="ij")]
        weight = torch.ones((), device=device)
        height = torch.zeros((), device=device)
        for axis, k in enumerate(corner):
            along = [1] * count
            along[axis] = -1
            weight = weight * (fades[axis] if k else 1 - fades[axis]).view(along)
            height = height + at[..., axis] * (apart[axis] - k).view(along)
        noise += weight * height
    # The largest value there can be is half the diagonal of a cell.
    return noise * (2 / math.sqrt(count))

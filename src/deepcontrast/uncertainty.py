"""How sure an ensemble is: the equal mixture of the Laplace distributions that its networks predict for every voxel.

Weigert et al. 2018, supplement, section 2.3: each network gives the mean and the scale of a Laplace distribution, an
ensemble is their mixture, and its networks disagree where the entropy of the mixture exceeds their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

MAPS = ("scale", "lower", "upper", "entropy", "disagreement")
"""What there is to know of every voxel beside its mean, see :func:`mixture`."""

INTERVAL = 0.9
"""Probability of the interval from ``lower`` to ``upper``."""

CHUNK = 2**11
"""Voxels that are worked on at a time."""

NODES = 28
"""Points per half of the stretch between two means, and per tail; with scales up to 1,000 times apart off by 2e-4."""

POINTS, WEIGHTS = leggauss(NODES)
FAR = 36.0
"""Scales from the means where the tails of the integral end."""

HALVINGS = 24
"""Of the bracket of a quantile."""


BOUNDS = (1 - INTERVAL) / 2, (1 + INTERVAL) / 2
"""Shares of a distribution below the bounds of its central interval."""


def mixture(means: Tensor, scales: Tensor, bounds: tuple[float, float] = BOUNDS) -> Mapping[str, Tensor]:
    """Return what an equal mixture of Laplace distributions says of every voxel.

    Args:
        means: of the members (M, ...), in any unit.
        scales: likewise, above 0, in the same unit.
        bounds: shares of the mixture that lie below the bounds of the interval.

    Returns:
        All of the shape of one member: ``"mean"``; ``"scale"``, the absolute error that is expected of the mean, which
        of a single distribution is its scale; ``"lower"`` and ``"upper"``, between which the truth is expected with a
        probability of ``INTERVAL``; ``"entropy"`` and ``"disagreement"``, see the functions of these names.
    """
    pieces = (torch.split(one.reshape(len(one), -1), CHUNK, dim=1) for one in (means, scales))
    parts = [_described(mean, scale, bounds) for mean, scale in zip(*pieces, strict=True)]
    return {name: torch.cat([part[name] for part in parts]).reshape(means.shape[1:]) for name in parts[0]}


def _described(means: Tensor, scales: Tensor, bounds: tuple[float, float]) -> dict[str, Tensor]:
    mean = means.mean(0)
    away = (means - mean).abs()
    differs = disagreement(means, scales)
    return {
        "mean": mean,
        "scale": (away + scales * (-away / scales).exp()).mean(0),
        "lower": quantile(means, scales, bounds[0]),
        "upper": quantile(means, scales, bounds[1]),
        "entropy": _entropy(scales, differs),
        "disagreement": differs,
    }


def disagreement(means: Tensor, scales: Tensor) -> Tensor:
    """Return how much members (M, ...) disagree: 0 where all are one distribution, 1 where no two overlap.

    The entropy of their mixture less the mean of their own, over log M (CARE supplement, 2.3.2). A single member
    agrees with itself.
    """
    count = len(means)
    if count == 1:
        return torch.zeros_like(means[0])
    pieces = (torch.split(one.reshape(count, -1), CHUNK, dim=1) for one in (means, scales))
    parts = [_divergence(mean, scale) for mean, scale in zip(*pieces, strict=True)]
    return (torch.cat(parts) / math.log(count)).clamp(0, 1).reshape(means.shape[1:])


def entropy(means: Tensor, scales: Tensor) -> Tensor:
    """Return the entropy of the mixture of members (M, ...), in nats, of the unit that the means are in."""
    return _entropy(scales, disagreement(means, scales))


def _entropy(scales: Tensor, differs: Tensor) -> Tensor:
    """Return the entropy of a mixture: the mean of its members' own, and what they disagree."""
    return (1 + (2 * scales).log()).mean(0) + math.log(len(scales)) * differs


def quantile(means: Tensor, scales: Tensor, probability: float) -> Tensor:
    """Return below which value a share ``probability`` of the mixture of members (M, ...) lies."""
    # The quantiles of the members themselves are on either side of that of the mixture.
    side, tail = (-1, probability) if probability < 0.5 else (1, 1 - probability)
    own = means - side * scales * math.log(2 * tail)
    low, high = own.amin(0), own.amax(0)
    for _ in range(HALVINGS if len(means) > 1 else 0):
        middle = (low + high) / 2
        below = cumulative(means, scales, middle) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def cumulative(means: Tensor, scales: Tensor, value: Tensor) -> Tensor:
    """Return the share of the mixture of members (M, ...) that lies below a value (...)."""
    away = (value - means) / scales
    tail = 0.5 * (-away.abs()).exp()
    return torch.where(away < 0, tail, 1 - tail).mean(0)


def draw(means: Tensor, scales: Tensor, generator: torch.Generator) -> Tensor:
    """Return one image that the mixture of members (M, ...) takes for possible, every voxel drawn by itself."""
    member = torch.randint(len(means), means.shape[1:], generator=generator)[None].to(means.device)
    mean, scale = means.gather(0, member)[0], scales.gather(0, member)[0]
    # Between -1/2 and 1/2, both excluded: the logarithm must be finite.
    place = (torch.rand(mean.shape, generator=generator) - 0.5).clamp(-0.4999999, 0.4999999).to(means.device)
    return mean - scale * place.sign() * torch.log1p(-2 * place.abs())


def _divergence(means: Tensor, scales: Tensor) -> Tensor:
    """Return the mean divergence (N,) of members (M, N) from their mixture, in nats.

    Between two neighbouring means, and beyond the outermost, its integrand has no kink. There it is integrated over
    the logarithm of the distance from the mean, from which it falls off, whatever the scales are.
    """
    # In units of the widest scale, from the middle of all means: float32 has no digits to lose.
    unit, zero = scales.amax(0), means.mean(0)
    means, scales = (means - zero) / unit, scales / unit
    places, _ = means.sort(dim=0)
    half = (places[1:] - places[:-1]) / 2
    endless = torch.full_like(unit[None], FAR)
    starts = torch.cat([places, places])
    lengths = torch.cat([half, endless, endless, half]).clamp(1e-12, FAR)
    sides = torch.ones_like(starts)
    sides[len(places) :] = -1
    nodes, weights = (torch.as_tensor(n, dtype=means.dtype, device=means.device) for n in (POINTS, WEIGHTS))
    # What is nearer to a mean than this is one box; beyond, the logarithm of the distance is the coordinate.
    first = torch.minimum(1e-2 * scales.amin(0), lengths)
    spread = (lengths / first).log() / 2
    away = first[:, None] * (spread[:, None] * (nodes[:, None] + 1)).exp()
    width = away * spread[:, None] * weights[:, None]
    away, width = torch.cat([first[:, None] / 2, away], 1), torch.cat([first[:, None], width], 1)
    x = (starts[:, None] + sides[:, None] * away).flatten(0, 1)
    mixed, own = torch.zeros_like(x), torch.zeros_like(x)
    for mean, rate, log_height in zip(means, 1 / scales, -(2 * scales).log(), strict=True):
        log_density = torch.addcmul(log_height, (x - mean).abs_(), rate, value=-1)
        density = log_density.exp()
        mixed += density
        own += density * log_density
    mixed, own = mixed / len(means), own / len(means)
    return ((own - torch.xlogy(mixed, mixed)) * width.flatten(0, 1)).sum(0)

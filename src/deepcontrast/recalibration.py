"""Predicted distributions set right by truths that the networks did not learn from: their width, and their shape.

The residuals of a good network are more alike than a Laplace distribution says, which is too sure of what is near and
not sure enough of what is far. So the scales are multiplied by the likeliest factor, and then every probability is
replaced by the share of held-out truths that lay below where it stands (Kuleshov, Fenner and Ermon, "Accurate
uncertainties for deep learning using calibrated regression", 2018, algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepcontrast.uncertainty import INTERVAL, cumulative

KNOTS = 41
"""Of the probabilities, evenly spaced."""

FACTORS = np.geomspace(0.2, 5, 161)
"""By which scales are multiplied in search of the likeliest."""

SEARCHED = 2**18
"""Voxels that the search looks at."""


@dataclass(frozen=True)
class Recalibration:
    """What is done to predicted distributions; by default nothing.

    Attributes:
        factor: that multiplies the scales.
        levels: shares of the mixture, then, below which evenly spaced shares of the truth lie, from 0 to 1.
    """

    factor: float = 1.0
    levels: tuple[float, ...] = (0.0, 1.0)

    def probability(self, share: Tensor) -> Tensor:
        """Return with which probability the truth lies below where a share of the mixture does."""
        found = np.interp(share.numpy(), self.levels, np.linspace(0, 1, len(self.levels)))
        return torch.from_numpy(found).to(share.dtype)

    def share(self, probability: float) -> float:
        """Return the share of the mixture below which the truth lies with a probability; inverse of the other."""
        return float(np.interp(probability, np.linspace(0, 1, len(self.levels)), self.levels))

    @property
    def bounds(self) -> tuple[float, float]:
        """The shares of the mixture that lie below the bounds of the interval of probability ``INTERVAL``."""
        return self.share((1 - INTERVAL) / 2), self.share((1 + INTERVAL) / 2)


def recalibrate(means: Tensor, scales: Tensor, truth: Tensor) -> Recalibration:
    """Return what makes the mixture of members (M, N) fit truths (N,) that they have not learned from."""
    factor = best_factor(means, scales, truth)
    shares = cumulative(means, factor * scales, truth)
    levels = np.quantile(shares.numpy().astype(np.float64), np.linspace(0, 1, KNOTS))
    # They must increase, also where many truths are one value, for the inverse to be one.
    levels[0], levels[-1] = 0, 1
    least = np.linspace(0, 1e-6, KNOTS)
    levels = np.maximum.accumulate(np.clip(levels, 0, 1) * (1 - 1e-6)) + least
    return Recalibration(factor, tuple(levels.tolist()))


def best_factor(means: Tensor, scales: Tensor, truth: Tensor) -> float:
    """Return by which factor all scales (M, N) must be multiplied for the truth (N,) to be likeliest in the mixture."""
    step = max(1, truth.numel() // SEARCHED)
    means, scales, truth = means[:, ::step], scales[:, ::step], truth[::step]
    away = (truth - means).abs() / scales
    fits = [float((-away / f - scales.log()).logsumexp(0).mean() - np.log(f)) for f in FACTORS]
    return float(FACTORS[int(np.argmax(fits))])

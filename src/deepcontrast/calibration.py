"""Do predicted distributions say what they should? Reliability diagrams and expected calibration error.

Weigert et al. 2018, supplement, section 3: a prediction succeeds where the truth lies within some distance of it; the
confidence is the probability that its distribution gives to that. Where both agree, whatever the distance and however
sure the networks are, the distributions are calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deepcontrast.recalibration import Recalibration
from deepcontrast.uncertainty import INTERVAL, cumulative, quantile

BINS = 10
"""Of the confidence, from 0 to 1."""

RESIDUALS = (0.5, 1.0, 2.0)
"""Distances that calibration is judged at, as multiples of the median absolute error."""

NONE = Recalibration()


@dataclass(frozen=True)
class Reliability:
    """Accuracy and confidence at one distance.

    Attributes:
        distance: from the prediction, in the unit of the truth.
        confidence: mean probability that the truth is within it, of the voxels of each bin of confidence.
        accuracy: share of them where it is.
        share: of all voxels in each bin; of an empty one all three are 0.
    """

    distance: float
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    share: tuple[float, ...]

    @property
    def error(self) -> float:
        """The expected calibration error (equation 3.18): the mean difference of the two, by share."""
        parts = zip(self.share, self.accuracy, self.confidence, strict=True)
        return sum(share * abs(accuracy - confidence) for share, accuracy, confidence in parts)


@dataclass(frozen=True)
class Calibration:
    """How well distributions describe where the truth lies.

    Attributes:
        members: how many networks, the first ones, they are the mixture of.
        factor: by which the scales were multiplied.
        levels: by which probabilities were replaced, see :class:`deepcontrast.recalibration.Recalibration`.
        diagrams: at several distances, in shares of the range of the truth.
        inside: share of the truth within the interval that ``INTERVAL`` of it should lie in.
    """

    members: int
    factor: float
    diagrams: tuple[Reliability, ...]
    inside: float
    levels: tuple[float, ...] = NONE.levels

    def describe(self) -> str:
        """Return it in words for the user."""
        errors = ", ".join(f"{one.error:.1%} within {one.distance:.3f}" for one in self.diagrams)
        return (
            f"calibration error {errors} of the range (the last three are 0.5, 1 and 2 times the median error); "
            f"{self.inside:.1%} lie in the {INTERVAL:.0%} interval"
        )

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Calibration:
        """Return what ``asdict`` gave, and JSON kept."""

        def diagram(of: Mapping[str, Any]) -> Reliability:
            return Reliability(of["distance"], *(tuple(of[name]) for name in ("confidence", "accuracy", "share")))

        levels = tuple(table.get("levels", NONE.levels))
        return cls(**{**table, "diagrams": tuple(map(diagram, table["diagrams"])), "levels": levels})


def distances(means: Tensor, truth: Tensor, fixed: Iterable[float] = ()) -> list[float]:
    """Return distances to judge at: given ones, then :data:`RESIDUALS` of members (M, N) against the truth (N,)."""
    median = float((means.mean(0) - truth).abs().median())
    return [*fixed, *(median * n for n in RESIDUALS)]


def reliability(
    means: Tensor, scales: Tensor, truth: Tensor, distance: float, right: Recalibration = NONE
) -> Reliability:
    """Return accuracy and confidence (equations 3.16, 3.17) of the mixture of members (M, N) against a truth (N,).

    Args:
        means: of the members, as their scales.
        scales: likewise.
        truth: in the same unit.
        distance: from the mixture's mean, in it too.
        right: what is done to the distributions.
    """
    mean, scales = means.mean(0), right.factor * scales
    above, below = (right.probability(cumulative(means, scales, mean + side * distance)) for side in (1, -1))
    confidence = above - below
    success = (truth - mean).abs() <= distance
    # Bin k holds what is above k / BINS and at most (k + 1) / BINS.
    bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    count, sums, hits = (
        torch.bincount(bins, weights=weight, minlength=BINS).double()
        for weight in (None, confidence.double(), success.double())
    )
    per_bin = (sums / count.clamp(min=1), hits / count.clamp(min=1), count / count.sum())
    confidences, accuracies, shares = (tuple(map(float, one)) for one in per_bin)
    return Reliability(distance, confidences, accuracies, shares)


def covered(means: Tensor, scales: Tensor, truth: Tensor, right: Recalibration = NONE) -> float:
    """Return in what share of the voxels the truth (N,) lies in the interval of the mixture (M, N)."""
    low, high = (quantile(means, right.factor * scales, share) for share in right.bounds)
    return float(((low <= truth) & (truth <= high)).double().mean())

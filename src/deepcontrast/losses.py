"""How far a prediction is from its target; every loss is a weighted mean over voxels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def mae(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean absolute error: seeks the median (DeepContrast section 4.3)."""
    return _mean((prediction - target).abs(), weight)


def mse(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean squared error: seeks the mean."""
    return _mean((prediction - target).square(), weight)


def laplace(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean negative log-likelihood of Laplace distributions, their log 2 left out (CARE supplement, 2.3.1).

    ``prediction`` (N, 2 C, ...) has the means of all channels, then their scales.
    """
    mean, scale = prediction.chunk(2, dim=1)
    return _mean((target - mean).abs() / scale + scale.log(), weight)


def _mean(error: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return error.mean()
    # No voxel of a batch may be valid; the clamp then gives 0, not NaN.
    return (error * weight).sum() / weight.expand_as(error).sum().clamp(min=1e-6)


LOSSES: dict[str, Loss] = {"mae": mae, "mse": mse, "laplace": laplace}

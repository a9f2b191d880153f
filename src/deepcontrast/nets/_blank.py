"""Convolutions whose weights are not yet set."""

from __future__ import annotations

from torch import nn


class _Unset:
    # torch's own would draw weights from its global generator; and torch's skip_init, which leaves them unset too,
    # imports a compiler: two CPU seconds for every process that builds a network.
    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


class Conv1d(_Unset, nn.Conv1d):
    """A convolution along one axis, its weights not yet set."""


class Conv2d(_Unset, nn.Conv2d):
    """A convolution along two axes, its weights not yet set."""


class Conv3d(_Unset, nn.Conv3d):
    """A convolution along three axes, its weights not yet set."""

"""The order of a tensor's numbers in memory that convolutions are fastest in."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(ndim: int) -> torch.memory_format:
    """Return the memory format for tensors, or weights of convolutions, of that many axes (N, C, ...)."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return formats.get(ndim, torch.contiguous_format)


def placed(net: nn.Module, device: str) -> nn.Module:
    """Return a network on a device, every weight in the order that is fastest there."""
    net.to(device)
    for weight in net.parameters():
        weight.data = weight.data.to(memory_format=channels_last(weight.ndim))
    return net

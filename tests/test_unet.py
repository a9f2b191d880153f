"""The U-Net's own arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepcontrast.nets import unet


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_merging_two_maps_equals_upsampling_and_joining_them(
    dims: int, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "FEW", 0)
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](5, 4, kernel, padding=kernel // 2).double()
    coarse = torch.randn(2, 3, *(3, 5, 4)[:dims], dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 2, *(6, 10, 8)[:dims], dtype=torch.float64, requires_grad=True)
    inputs = (coarse, skip, conv.weight, conv.bias)
    usual = conv(torch.cat([nn.Upsample(scale_factor=2)(coarse), skip], dim=1))
    ours = unet.merged(coarse, skip, conv.weight, conv.bias)
    torch.testing.assert_close(ours, usual, rtol=0, atol=1e-12)
    wanted = torch.randn_like(usual)
    for one, other in zip(*(torch.autograd.grad((y * wanted).sum(), inputs) for y in (ours, usual)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)

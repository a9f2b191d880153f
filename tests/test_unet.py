"""The U-Net's own arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepcontrast.nets import unet


@pytest.mark.parametrize("factors", [(2,), (2, 2), (2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_merging_two_maps_equals_upsampling_and_joining_them(
    factors: tuple[int, ...], kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "FEW", 0)
    torch.manual_seed(0)
    dims = len(factors)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](5, 4, kernel, padding=kernel // 2).double()
    coarse = torch.randn(2, 3, *(3, 5, 4)[:dims], dtype=torch.float64, requires_grad=True)
    long = [n * factor for n, factor in zip((3, 5, 4), factors, strict=False)]
    skip = torch.randn(2, 2, *long, dtype=torch.float64, requires_grad=True)
    inputs = (coarse, skip, conv.weight, conv.bias)
    usual = conv(torch.cat([nn.Upsample(scale_factor=tuple(map(float, factors)))(coarse), skip], dim=1))
    ours = unet.merged(coarse, skip, conv.weight, conv.bias, factors)
    torch.testing.assert_close(ours, usual, rtol=0, atol=1e-12)
    wanted = torch.randn_like(usual)
    for one, other in zip(*(torch.autograd.grad((y * wanted).sum(), inputs) for y in (ours, usual)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("pool_z", [0, 1, 2])
def test_a_network_in_space_looks_as_far_along_z_as_it_says(pool_z: int) -> None:
    torch.manual_seed(0)
    net = unet.unet(depth=2, features=4, dims=3, pool_z=pool_z, bias=False).double()
    # Through weights of one sign nothing cancels, so everything in reach is felt; a maximum hides the smaller ones.
    for weight in net.parameters():
        nn.init.uniform_(weight, 0.1, 1)
    step, reach = net.step_z, net.halo_z
    assert net(torch.randn(1, 1, step, 8, 8, dtype=torch.float64)).shape == (1, 1, step, 8, 8)
    planes = 2 * step * (-(-reach // step) + 1)
    image = torch.rand(1, 1, planes, 8, 8, dtype=torch.float64)
    felt = torch.zeros(planes, planes, dtype=torch.bool)
    for z in range(planes):
        other = image.clone()
        other[:, :, z] += 10
        felt[z] = (net(other) - net(image)).abs().amax(dim=(0, 1, 3, 4)) > 0
    first = planes // 2
    seen_by_block = felt[:, first : first + step].any(1).nonzero().flatten().tolist()
    assert seen_by_block == list(range(first - reach, first + step + reach))

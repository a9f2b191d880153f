"""Tiles partition the image, and tiled equals whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.nets.unet import halo
from deepcontrast.prediction import predict_pass
from deepcontrast.task import Geometry
from deepcontrast.tiles import core_shape, padded_shape, tiles, up
from deepcontrast.training import initialise


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    core=st.tuples(*[st.integers(1, 5)] * 3),
    halo_of=st.tuples(*[st.integers(0, 12)] * 3),
    step=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
)
def test_tiles_partition_the_image_and_carry_their_halo(
    shape: tuple[int, ...], core: tuple[int, ...], halo_of: tuple[int, ...], step: tuple[int, ...]
) -> None:
    seen = np.zeros(shape, int)
    full = padded_shape(shape, step)
    for tile in tiles(shape, [c * s for c, s in zip(core, step, strict=True)], halo_of, step):
        seen[tile.write] += 1
        for axis, (read, crop, write) in enumerate(zip(tile.read, tile.crop, tile.write, strict=True)):
            assert read.start % step[axis] == 0
            assert (read.stop - read.start) % step[axis] == 0
            assert read.start + crop.start == write.start
            assert crop.stop - crop.start == write.stop - write.start
            assert read.start <= max(0, write.start - halo_of[axis])
            assert read.stop >= min(full[axis], write.stop + halo_of[axis])
    assert (seen == 1).all()


@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    voxels=st.integers(1, 10**6),
    step=st.tuples(*[st.sampled_from([1, 4, 8])] * 3),
)
def test_core_is_a_multiple_of_the_step_and_fits_the_budget_where_it_can(
    shape: tuple[int, ...], voxels: int, step: tuple[int, ...]
) -> None:
    core = core_shape(shape, step, (0, 12, 12), voxels)
    full = padded_shape(shape, step)
    assert all(c % s == 0 and 0 < c <= f for c, s, f in zip(core, step, full, strict=True))
    read = [min(f, c + 2 * up(h, s)) for f, c, h, s in zip(full, core, (0, 12, 12), step, strict=True)]
    assert np.prod(read) <= voxels or core == step


def net_of(name: str, depth: int, kernel: int, dims: int = 2) -> nn.Module:
    net: nn.Module = registry.load("nets", name)(depth=depth, features=4, kernel=kernel, bias=True, dims=dims)
    initialise(net, torch.Generator().manual_seed(depth))
    return net


# CSBDeep's table of tile overlaps (pool 2), found there by measuring receptive fields. It counts from the pixel
# itself, ours from the aligned block of 2**depth pixels that the pixel stands in.
@pytest.mark.parametrize(
    ("depth", "kernel", "overlap"),
    [(1, 3, 9), (2, 3, 22), (3, 3, 46), (4, 3, 94), (5, 3, 190), (1, 5, 17), (2, 5, 43), (3, 5, 92), (5, 5, 380)],
)
def test_halo_is_that_of_csbdeep(depth: int, kernel: int, overlap: int) -> None:
    assert overlap - (2**depth - 1) <= halo(depth, kernel) <= overlap


@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (2, 3), (2, 5), (3, 3)])
def test_no_output_looks_beyond_its_halo(depth: int, kernel: int) -> None:
    net = net_of("unet", depth, kernel).double()
    step, reach = 2**depth, halo(depth, kernel)
    size = up(2 * reach + 3 * step, step)
    x = torch.rand(1, 1, step, size, dtype=torch.float64, requires_grad=True)
    start = up(reach, step)
    net(x)[..., start : start + step].sum().backward()
    assert x.grad is not None
    touched = x.grad[0, 0].abs().sum(0).nonzero().ravel()
    assert int(touched.min()) >= start - reach
    assert int(touched.max()) < start + step + reach


class _Plain:
    """A task that only restores: the tiler must not need more."""

    def geometry(self, net: Any, fit: Any, config: Config) -> Geometry:
        return Geometry((0, int(net.halo), int(net.halo)), (1, int(net.step), int(net.step)))

    def restore(self, net: nn.Module, tile: torch.Tensor, fit: Any, config: Config) -> dict[str, torch.Tensor]:
        return {"mean": net(tile[:, None])[:, 0]}


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(registry.names("nets")),
    depth=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 3), st.integers(17, 150), st.integers(17, 150)),
    voxels=st.integers(2_000, 20_000),
)
def test_tiled_equals_whole(name: str, depth: int, shape: tuple[int, int, int], voxels: int) -> None:
    net = net_of(name, depth, 3)
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole, tiled = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    for out, budget in ((whole, 10**9), (tiled, voxels)):
        config = Config.model_validate({"predict": {"tile_voxels": budget}})
        predict_pass(_Plain(), [net], volume, None, config, out=out)  # type: ignore[arg-type]
    assert np.abs(whole - tiled).max() < 1e-5


@pytest.mark.parametrize(
    ("kernel", "bias", "count"), [(5, True, 61_138_657), (5, False, 61_133_632), (3, False, 22_008_128)]
)
def test_parameters_are_those_of_the_papers_network(kernel: int, bias: bool, count: int) -> None:
    with torch.device("meta"):
        net = registry.load("nets", "unet")(depth=5, features=32, kernel=kernel, bias=bias)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("residual", [True, False])
def test_without_bias_the_network_is_homogeneous(residual: bool) -> None:
    net = registry.load("nets", "unet")(depth=2, features=4, bias=False, residual=residual).double()
    initialise(net, torch.Generator().manual_seed(1))
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(net(3.7 * x), 3.7 * net(x))


def test_axes_that_cost_no_halo_are_cut_first() -> None:
    assert core_shape((264, 256, 384), (1, 8, 8), (0, 46, 46), 400_000) == (3, 256, 384)
    # A plane alone above the budget is cut as well, the longer axis first.
    z, y, x = core_shape((264, 256, 2048), (1, 8, 8), (0, 46, 46), 200_000)
    assert (z, y) == (1, 256)
    assert x < 2048

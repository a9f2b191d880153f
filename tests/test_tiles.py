"""Tiles partition the image and carry what the networks look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from csbdeep.data import PadAndCropResizer
from csbdeep.internals.predict import tile_iterator
from csbdeep.utils import axes_check_and_normalize
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from deepcontrast import registry
from deepcontrast.errors import InputError
from deepcontrast.nets.unet import halo
from deepcontrast.stack import parse_axes
from deepcontrast.tiles import best_core, halved, layout, padded_shape, rim, split, tiles, up
from deepcontrast.training import initialise

AXES = st.tuples(
    st.integers(1, 40),  # length
    st.integers(1, 5),  # core, in steps
    st.integers(0, 12),  # halo
    st.sampled_from([1, 2, 4, 8]),  # step
    st.integers(1, 60),  # block
    st.integers(0, 39),  # box, start and length
    st.integers(1, 40),
)


@given(axes=st.tuples(AXES, AXES, AXES), halve=st.booleans())
def test_tiles_partition_what_is_asked_for_and_carry_their_halo(axes: Any, halve: bool) -> None:
    shape, cores, halo_of, step, block, first, length = zip(*axes, strict=True)
    core = tuple(c * s for c, s in zip(cores, step, strict=True))
    box = tuple(slice(min(f, n - 1), min(f + k, n)) for f, k, n in zip(first, length, shape, strict=True))
    seen, full = np.zeros(shape, int), padded_shape(shape, step)
    work = list(tiles(shape, core, halo_of, step, block=block, box=box))
    if halve:
        smaller = halved(core, step, halo_of) or core
        work = [part for tile in work for part in split(tile, smaller, shape, halo_of, step)]
    for tile in work:
        seen[tile.write] += 1
        for axis, (read, crop, write) in enumerate(zip(tile.read, tile.crop, tile.write, strict=True)):
            assert read.start % step[axis] == 0
            assert (read.stop - read.start) % step[axis] == 0
            assert read.start + crop.start == write.start
            assert crop.stop - crop.start == write.stop - write.start
            around = rim(halo_of[axis], step[axis])
            assert -around <= read.start <= max(-around, write.start - halo_of[axis])
            assert full[axis] + around >= read.stop >= min(full[axis] + around, write.stop + halo_of[axis])
            assert write.start // block[axis] == (write.stop - 1) // block[axis]
    assert (seen[box] == 1).all()
    assert seen.sum() == seen[box].size


@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    voxels=st.integers(1, 10**6),
    step=st.tuples(*[st.sampled_from([1, 4, 8])] * 3),
    block=st.none() | st.tuples(*[st.integers(1, 200)] * 3),
)
def test_the_best_core_fits_and_nothing_smaller_would(
    shape: tuple[int, ...], voxels: int, step: tuple[int, ...], block: tuple[int, ...] | None
) -> None:
    halo_of = (0, 12, 12)
    core = best_core(shape, step, halo_of, voxels, block=block)
    if core is None:
        least = layout(shape, step, halo_of, step, block=block)
        assert np.prod(least.read) > voxels or block is not None
        return
    assert all(c % s == 0 and c > 0 for c, s in zip(core, step, strict=True))
    found = layout(shape, core, halo_of, step, block=block)
    assert np.prod(found.read) <= voxels


def test_layout_counts_what_tiles_does() -> None:
    args = (37, 150, 211), (5, 64, 72), (0, 12, 20), (1, 4, 8)
    work = list(tiles(*args, block=(16, 100, 211)))
    reads = [[s.stop - s.start for s in tile.read] for tile in work]
    found = layout(*args, block=(16, 100, 211))
    assert found.tiles == len(work)
    assert found.read == tuple(np.max(reads, axis=0))
    assert found.work == pytest.approx(np.prod(reads, axis=1).sum() / (37 * 150 * 211))


def test_the_best_core_wastes_least() -> None:
    # Planes are independent: they are dealt out evenly, and not cut while one fits.
    assert best_core((264, 256, 384), (1, 8, 8), (0, 46, 46), 450_000) == (4, 256, 384)
    # 1000 cut where 700 may be read: two halves, not 600 and 400.
    assert best_core((1, 1, 1000), (1, 1, 8), (0, 0, 40), 700) == (1, 1, 504)
    # A voxel that is dearer in large tiles makes planes go one by one.
    assert best_core((64, 256, 256), (1, 8, 8), (0, 46, 46), 10**7, price=lambda n: np.maximum(n / 2**16, 1)) == (
        1,
        256,
        256,
    )


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


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("step", [1, 4, 16])
def test_an_image_becomes_as_long_as_csbdeep_makes_it(length: int, step: int) -> None:
    theirs = PadAndCropResizer(mode="edge").before(np.zeros((length, 48)), "YX", (step, step))
    assert padded_shape((length, 48), (step, step)) == theirs.shape


@pytest.mark.parametrize(("depth", "kernel", "missing"), [(1, 3, 0), (2, 3, 0), (2, 5, 0), (2, 3, 3)])
def test_tiles_of_csbdeep_with_our_halo_equal_the_whole(depth: int, kernel: int, missing: int) -> None:
    step = 2**depth
    image = torch.from_numpy(np.random.default_rng(depth).normal(size=(32 * step, 40 * step)).astype(np.float32))
    net = net_of("unet", depth, kernel)
    blocks = up(halo(depth, kernel), step) // step - missing
    result = np.empty(image.shape, np.float32)
    count = 0
    with torch.inference_mode():
        whole = net(image[None, None])[0, 0].numpy()
        for tile, inner, place in tile_iterator(image.numpy(), (2, 3), (step, step), (blocks, blocks)):
            result[place] = net(torch.from_numpy(tile.copy())[None, None])[0, 0].numpy()[inner]
            count += 1
    assert count > 1
    # Three blocks less are not enough: the comparison can fail.
    assert (np.abs(result - whole).max() < 1e-5) == (missing == 0)


@pytest.mark.parametrize("axes", ["YX", "ZYX", "CZYX", "TCZYX", "XYZ", "YY", "QYX", "ZYXC", "ZYX?"])
def test_axes_that_csbdeep_refuses_are_refused(axes: str) -> None:
    def accepts(check: Callable[..., object], error: type[Exception]) -> bool:
        try:
            check(axes, len(axes))
        except error:
            return False
        return True

    theirs, ours = accepts(axes_check_and_normalize, ValueError), accepts(parse_axes, InputError)
    # Ours have one order.
    assert ours == (theirs and axes == "".join(axis for axis in "TCZYX" if axis in axes))

"""What the contrast task trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from deepcontrast.depth import depths
from deepcontrast.errors import InputError
from deepcontrast.patches import draw
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.prediction.plan import make_plan
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source
from deepcontrast.tasks import contrast
from deepcontrast.tasks._contrast_fit import NOT_IN_SPACE, NOT_THINNED, RECORRUPTED
from deepcontrast.training import train

from .conftest import TINY

OPTICS = Optics(voxel_size=(0.3, 0.3, 0.3), surface="first")


def sources_of(volume: np.ndarray) -> list[Source]:
    stack = Stack(volume, "ZYX", OPTICS)
    return [Source(stack, 0, 0, depths(stack))]


def drawn(sources: list[Source], settings: Mapping[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (the plane itself) and targets of a large batch, each (N, Y, X)."""
    config = load_recipe("contrast", (*TINY, *(f"{key}={value}" for key, value in settings.items())))
    fit = contrast.fit(sources, config)
    # Without structure no camera can be estimated: it is the one that the image was made with.
    fit = replace(fit, camera=replace(fit.camera, gain=3.0, intercept=100.0, spread=1.0), thin=config.task["thin"])
    bank = contrast.prepare(sources, fit, config, seed=0, round=0)
    batch, depth = draw(bank, 200, fit.patch, torch.Generator().manual_seed(0), augment=True)
    x, y, _ = contrast.sample(batch, depth, fit, torch.Generator().manual_seed(1), config)
    return x[:, x.shape[1] // 2].numpy(), y[:, 0].numpy()


@pytest.mark.parametrize("context", [0, 2])
def test_input_and_target_of_thinned_photons_share_no_noise(context: int, rng: np.random.Generator) -> None:
    sources = sources_of((3 * rng.poisson(20.0, (12, 100, 120)) + 100).astype(np.uint16))
    given = {"net.context": context, "task.sigma": 8, "task.widths": "[0.25, 1]", "task.remove_pattern": "false"}

    def correlation(share: float) -> float:
        x, y = drawn(sources, given | {"task.thin": share})
        return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])

    # All voxels of the stack are drawn about once: 144,000 pairs have a standard error of 0.003.
    assert abs(correlation(0.5)) < 0.01
    assert abs(correlation(0.8)) < 0.01
    assert correlation(0.0) > 0.3


def test_slabs_share_no_noise_either_and_show_no_plane_twice(rng: np.random.Generator) -> None:
    sources = sources_of((3 * rng.poisson(20.0, (12, 100, 120)) + 100).astype(np.uint16))
    noise = ("task.thin=0.5", "task.sigma=8", "task.widths=[0.25, 1]", "task.remove_pattern=false")
    config = load_recipe("contrast", (*TINY, "net.context=2", "net.dims=3", *noise))
    fit = contrast.fit(sources, config)
    fit = replace(fit, camera=replace(fit.camera, gain=3.0, intercept=100.0, spread=1.0), thin=0.5)
    bank = contrast.prepare(sources, fit, config, seed=0, round=0)
    assert set(bank.corners[:, 0].tolist()) == set(range(2, 10))
    assert bank.validation_depth.min() > sources[0].depth[1]
    assert bank.validation_depth.max() < sources[0].depth[10]
    batch, depth = draw(bank, 64, fit.patch, torch.Generator().manual_seed(0), augment=True)
    x, y, _ = contrast.sample(batch, depth, fit, torch.Generator().manual_seed(1), config)
    assert x.shape == y.shape == (64, 1, 5, fit.patch, fit.patch)
    seen, learned = x[:, 0].numpy(), y[:, 0].numpy()
    for z, other in ((0, 0), (2, 2), (4, 4), (1, 2), (0, 4)):
        assert abs(np.corrcoef(seen[:, z].ravel(), learned[:, other].ravel())[0, 1]) < 0.01


def test_a_stack_of_few_planes_has_slabs_of_fewer_or_planes_alone(rng: np.random.Generator) -> None:
    config = load_recipe("contrast", (*TINY, "net.context=4", "net.dims=3", "task.thin=0.5"))

    def fitted(planes: int) -> tuple[int, bool]:
        fit = contrast.fit(sources_of((3 * rng.poisson(20.0, (planes, 64, 64)) + 100).astype(np.uint16)), config)
        net = contrast.build(fit, config)
        assert (NOT_IN_SPACE in fit.camera.notes) == (not fit.in_space)
        assert fit.independent == (5 if fit.in_space else 1)
        assert max(weight.ndim for weight in net.parameters()) == (5 if fit.in_space else 4)
        return len(fit.layers), fit.in_space

    assert [fitted(planes) for planes in (12, 9, 8, 3, 2, 1)] == [
        (9, True), (9, True), (7, True), (3, True), (1, False), (1, False),
    ]  # fmt: skip


def test_photons_are_shared_out_unless_the_noise_is_not_theirs(rng: np.random.Generator) -> None:
    config = load_recipe("contrast", (*TINY, "task.thin=0.5"))
    made = tissue(shape=(16, 96, 96), seed=2, light=60)
    smooth = (0, 3, 3)
    photons = ndimage.uniform_filter(made.raw.astype(np.float32), smooth).round().astype(np.uint16)
    noise = rng.normal(0, 8, made.raw.shape)
    scene = 2 * made.truth + 100
    even = (scene + noise).astype(np.float32)
    unlike = (scene + 3 * ndimage.uniform_filter(noise, smooth)).astype(np.float32)
    for volume, share, note in (
        (made.raw, 0.5, ""),
        (photons, 0.5, ""),
        (even, 0.5, RECORRUPTED),
        (unlike, 0.0, NOT_THINNED),
    ):
        fit = contrast.fit(sources_of(volume), config)
        assert fit.thin == share
        assert fit.recorrupted == (note == RECORRUPTED)
        assert (fit.widths, fit.haze) == (((0.1, 0.2, 0.4, 1.0), 0.35) if share else ((1.0,), 0.02))
        assert {RECORRUPTED, NOT_THINNED} & set(fit.camera.notes) == {note} - {""}


def test_input_and_target_share_no_noise_that_is_not_of_photons_either(rng: np.random.Generator) -> None:
    # Noise that falls with the mean, as that of photons does not: standard deviation 4 at 100, 1.5 at 200.
    level = np.linspace(100, 200, 160)[:, None] + np.zeros((24, 160, 200))
    deviation = 6.5 - level / 40
    volume = (level + rng.normal(0, 1, level.shape) * deviation).astype(np.float32)
    config = load_recipe("contrast", (*TINY, "net.context=2", "task.thin=0.5", "task.remove_pattern=false"))
    fit = contrast.fit(sources_of(volume), config)
    assert fit.recorrupted
    halves = contrast._halves(torch.from_numpy(volume), fit, torch.Generator().manual_seed(1))
    first, second = ((half.numpy() - level) / deviation for half in halves)
    for y in range(0, 160, 40):
        a, b = first[:, y : y + 40], second[:, y : y + 40]
        # A variance that is measured wrong by 15 % makes 0.08.
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.08
        for half in (a, b):
            assert half.var() == pytest.approx(2, rel=0.15)


def test_where_noise_is_cut_off_none_is_added(rng: np.random.Generator) -> None:
    made = tissue(shape=(24, 128, 128), seed=2)
    dark = made.truth < 0.02 * made.truth.max()
    # A background that was subtracted, and what was below it set to 0.
    scene = 2 + 60 * made.truth / made.truth.max()
    volume = np.maximum(scene + rng.normal(0, 3, scene.shape), 0).astype(np.float32)
    config = load_recipe("contrast", (*TINY, "task.thin=0.5", "task.remove_pattern=false"))
    fit = contrast.fit(sources_of(volume), config)
    assert fit.recorrupted
    assert (fit.camera.means[0], fit.camera.variances[0]) == (0.0, 0.0)
    halves = contrast._halves(torch.from_numpy(volume), fit, torch.Generator().manual_seed(1))
    first, second = (half.numpy()[dark] for half in halves)
    # It was -0.5 where the variance of structure was taken for that of the background.
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3


def test_models_from_before_photons_were_spread_had_them_shared_out() -> None:
    fit = contrast.fit(sources_of(tissue(shape=(16, 96, 96), seed=2, light=60).raw), load_recipe("contrast", TINY))
    table, arrays = fit.encode()
    del table["camera"]["spread"]
    old = contrast.Fit.decode(table, arrays)
    assert (old.thin, old.camera.spread, old.recorrupted) == (0.5, None, False)


def test_neighbours_of_the_same_noise_are_not_given_to_the_network() -> None:
    config = load_recipe("contrast", (*TINY, "task.thin=0.5", "net.context=2"))
    raw = tissue(shape=(24, 96, 96), seed=2, light=60).raw.astype(np.float32)
    between = ((raw[1:] + raw[:-1]) / 2).round().astype(np.uint16)
    fit = contrast.fit(sources_of(between), config)
    assert (fit.thin, fit.layers, fit.independent) == (0.5, (0,), 3)
    fit = contrast.fit(sources_of(raw), config)
    assert (fit.layers, fit.independent) == ((-2, -1, 0, 1, 2), 3)


def test_the_network_is_given_neighbours_about_a_pixel_apart() -> None:
    config = load_recipe("contrast", (*TINY, "net.context=2", "task.thin=0"))
    raw = tissue(shape=(8, 64, 72), seed=2).raw

    def layers(planes: int, axial: float | None) -> tuple[int, ...]:
        stack = Stack(raw[:planes], "ZYX", Optics(voxel_size=(axial, 0.3, 0.3), surface="first"))
        return contrast.fit([Source(stack, 0, 0, depths(stack))], config).layers

    assert layers(8, 0.3) == layers(8, 1.0) == layers(8, None) == (-2, -1, 0, 1, 2)
    assert layers(8, 0.1) == (-6, -3, 0, 3, 6)
    assert layers(6, 0.1) == (-3, 0, 3)
    assert layers(1, 0.3) == (0,)


def test_a_network_in_space_restores_slabs_and_tiles_alike() -> None:
    made = tissue(shape=(40, 56, 64), seed=3)
    sources = sources_of(made.raw)
    config = load_recipe("contrast", (*TINY, "net.context=2", "net.dims=3", "train.batch=2", "train.steps=30"))
    fit = contrast.fit(sources, config)
    trained = train(contrast, sources, fit, config)
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    [net] = load_nets(contrast, [trained.best], fit, config)
    raw = contrast.clean(made.raw, fit)
    plan = make_plan(contrast, [net], raw.shape, fit, config)
    whole, tiled = np.empty_like(raw), np.empty_like(raw)
    predict_pass(contrast, [net], raw, fit, config, out=whole, plan=replace(plan, core=(40, 56, 64)))
    predict_pass(contrast, [net], raw, fit, config, out=tiled, plan=replace(plan, core=(8, 16, 32)))
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * np.ptp(whole))
    # A plane is not restored by itself.
    alone = np.empty_like(raw[:1])
    predict_pass(contrast, [net], raw[20:21], fit, config, out=alone)
    assert np.abs(alone[0] - whole[20]).mean() > 100 * np.abs(tiled[20] - whole[20]).mean()


def test_a_network_in_space_needs_slabs() -> None:
    with pytest.raises(InputError, match=r"slabs need net\.context"):
        load_recipe("contrast-paper", ("net.dims=3",))


def test_a_bank_of_slabs_always_has_planes_to_train_on(rng: np.random.Generator) -> None:
    sources = sources_of((3 * rng.poisson(20.0, (12, 96, 96)) + 100).astype(np.uint16))
    config = load_recipe("contrast", (*TINY, "net.context=4", "net.dims=3", "task.thin=0.5", "task.bank_mb=1"))
    fit = contrast.fit(sources, config)
    for round in range(10):
        bank = contrast.prepare(sources, fit, config, seed=0, round=round)
        assert not bank.complete
        assert set(bank.depth[bank.corners[:, 0]].tolist()) <= {float(np.float32(d)) for d in sources[0].depth[4:8]}


def test_a_slab_is_of_one_stack_and_planes_with_a_hole_weigh_nothing_there() -> None:
    long, short = (tissue(shape=(planes, 72, 80), seed=planes).raw for planes in (12, 7))
    long[3, :, 58:64] = 65535
    sources = [*sources_of(long), *sources_of(short)]
    config = load_recipe("contrast", (*TINY, "net.context=2", "net.dims=3", "task.thin=0"))
    fit = contrast.fit(sources, config)
    assert fit.layers == (-2, -1, 0, 1, 2)
    bank = contrast.prepare(sources, fit, config, seed=0, round=0)
    # Planes 2 to 9 of the first but the one with the hole, and 2 to 4 of the second, which lies behind it.
    assert set(bank.corners[:, 0].tolist()) == {2, *range(4, 10), *range(14, 17)}
    batch, _ = draw(bank, 300, fit.patch, torch.Generator().manual_seed(0), augment=False)
    height, width = long.shape[1:]
    planes = bank.images["raw"].view(-1, height, width).unfold(1, fit.patch, 1).unfold(2, fit.patch, 1)
    found = set()
    for slab in batch["raw"][:20]:
        [[z, y, x]] = (planes == slab[2]).all(dim=(-1, -2)).nonzero().tolist()
        assert torch.equal(slab, planes[z - 2 : z + 3, y, x])
        found.add(z < 12)
    assert found == {True, False}
    _, target, weight = contrast.sample(batch, torch.zeros(300), fit, torch.Generator().manual_seed(1), config)
    assert weight is not None
    assert weight.shape == target.shape
    hole = (bank.images["weight"].view(-1, height, width) == 0).nonzero()
    assert {(z, x) for z, _, x in hole.tolist()} == {(3, x) for x in range(58, 64)}
    empty = (weight[:, 0] == 0).flatten(2).any(-1)
    assert empty.any(0).tolist() == [True, True, False, True, False]

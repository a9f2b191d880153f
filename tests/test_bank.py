"""The bank and sample of the contrast task: what is read, what is held out, what a batch is."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from deepcontrast import patches, registry
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.errors import InputError
from deepcontrast.patches import (
    Window,
    corners,
    cut,
    draw,
    hold_out,
    jitter,
    layers,
    patch_size,
    windows,
    with_layers,
)
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Bank, Source
from deepcontrast.tasks import contrast

from .conftest import TINY

Prepared = tuple[Any, list[Source], Any, Config]


@pytest.fixture(scope="module", params=[(0, 2), (2, 2), (2, 3)])
def prepared(request: pytest.FixtureRequest, tiny_stack: Stack) -> Prepared:
    """Planes alone, of all photons; planes with their neighbours, and slabs of planes, of half the photons."""
    context, dims = request.param
    task = registry.load("tasks", "contrast")
    stack = tiny_stack.with_optics(surface="first")
    sources = [Source(stack, 0, 0, depths(stack))]
    form = (f"net.context={context}", f"net.dims={dims}", f"task.widths={[0.3, 1] if context else [1]}")
    config = load_recipe("contrast", (*TINY, *form))
    return task, sources, replace(task.fit(sources, config), thin=0.5 if context else 0.0), config


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_task(config: Config, **settings: Any) -> Config:
    return config.model_copy(update={"task": {**config.task, **settings}})


def on_gpu(bank: Bank) -> Bank:
    """Return a bank like it of fake tensors on a GPU, where none is needed."""

    def like(one: torch.Tensor) -> torch.Tensor:
        return torch.empty(one.shape, dtype=one.dtype, device="cuda")

    return replace(
        bank,
        images={name: like(image) for name, image in bank.images.items()},
        **{name: like(getattr(bank, name)) for name in ("start", "width", "layers", "depth", "corners")},
    )


class Lazy:
    """An array that counts the voxels it gives away, and refuses to give all."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.given = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        part: np.ndarray = self.array[key]
        assert part.size < self.array.size, "the whole stack was read at once"
        self.given += part.size
        return part


def source_of(array: Any) -> Source:
    stack = Stack(array, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first"))
    return Source(stack, 0, 0, depths(stack))


@pytest.fixture(scope="module")
def holed() -> np.ndarray:
    """A stack (ZYX 12 x 96 x 100) with empty borders, an empty plane and saturated voxels."""
    volume = tissue(shape=(12, 96, 100), seed=3).raw
    volume[2:5, :12] = volume[8, :, 80:] = volume[6] = 0
    volume[3, 40:50, 40:50] = 65535
    return volume


def test_sample_obeys_its_generator_and_nothing_else(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    task, sources, fit, config = prepared
    bank = task.prepare(sources, fit, config, seed=1, round=0)
    batch, depth = draw(bank, 4, fit.patch, seeded(0), augment=True)

    def sample(seed: int) -> list[torch.Tensor]:
        return [t for t in task.sample(batch, depth, fit, seeded(seed), config) if t is not None]

    one, other = sample(1), sample(2)
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a draw that no generator governs")

    for module, names in (
        (random, ("random", "randint", "gauss", "uniform", "shuffle", "choice", "sample")),
        (np.random, ("rand", "randn", "randint", "normal", "poisson", "random", "choice", "uniform", "default_rng")),
        (torch, ("rand_like", "randn_like", "randint_like")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    for module, names in (
        (torch, ("rand", "randn", "randint", "normal", "bernoulli", "poisson", "multinomial", "randperm")),
        (torch.Tensor, ("normal_", "uniform_", "random_", "bernoulli_", "exponential_")),
    ):
        for name in names:
            original = getattr(module, name)

            def governed(*args: object, original: Any = original, **kwargs: object) -> object:
                assert kwargs.get("generator") is not None, "a draw that no generator governs"
                return original(*args, **kwargs)

            monkeypatch.setattr(module, name, governed)
    for a, b in zip(one, sample(1), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.float32


def test_draw_and_sample_can_be_captured_on_a_gpu(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .item(), no boolean indexing, nothing copied from the processor, no shape that depends on values."""
    task, sources, fit, config = prepared
    # Of this one torch knows no fake.
    monkeypatch.setattr(torch, "binomial", lambda count, share, generator: torch.empty_like(count))
    for chosen in (config, with_task(config, balance=True)):
        bank = task.prepare(sources, fit, chosen, seed=1, round=0)
        with FakeTensorMode():
            there = on_gpu(bank)
            batch, depth = draw(there, 4, fit.patch, seeded(0), augment=True)
            x, y, weight = task.sample(batch, depth, fit, seeded(0), chosen)
        planes, field = len(fit.layers), (fit.patch, fit.patch)
        assert x.shape == ((4, 1, planes, *field) if fit.in_space else (4, planes, *field))
        assert y.shape == ((4, 1, planes, *field) if fit.in_space else (4, 1, *field))
        assert weight is None or weight.shape == y.shape
        assert {one.device.type for one in (x, y, depth)} == {"cuda"}
        assert (weight is None) == (chosen is config)


@pytest.mark.parametrize("augment", [False, True])
def test_a_drawn_patch_is_cut_and_turned(prepared: Prepared, augment: bool) -> None:
    task, sources, fit, config = prepared
    bank = task.prepare(sources, fit, config, seed=1, round=0)
    batch, depth = draw(bank, 64, fit.patch, seeded(3), augment=augment)
    same = seeded(3)
    rows = bank.corners[torch.randint(len(bank.corners), (64,), generator=same)]
    shift = torch.randint(bank.jitter, (64, 2), generator=same)
    turns = torch.randint(8, (64,), generator=same).tolist() if augment else [0] * 64
    reach = max(fit.layers)
    planes = np.pad(bank.images["raw"].view(sources[0].frame.shape), ((reach, reach), (0, 0), (0, 0)), "reflect")
    for n, ((z, y, x), (dy, dx), turn) in enumerate(zip(rows.tolist(), shift.tolist(), turns, strict=True)):
        for c, offset in enumerate(fit.layers):
            expected = planes[z + reach + offset, y + dy : y + dy + fit.patch, x + dx : x + dx + fit.patch]
            expected = np.rot90(expected, turn % 4)
            np.testing.assert_array_equal(batch["raw"][n, c], expected[:, ::-1] if turn >= 4 else expected)
        assert depth[n] == np.float32(sources[0].depth[z])


def test_pieces_of_any_size_lie_in_one_bank(prepared: Prepared) -> None:
    task, sources, fit, config = prepared
    other = source_of(tissue(shape=(4, 80, 61), seed=8).raw)
    bank = task.prepare([*sources, other], fit, config, seed=1, round=0)
    assert bank.complete
    found = cut(bank, torch.tensor([[3, 5, 7], [12, 50, 33]]), 24)["raw"][:, len(fit.layers) // 2].numpy()
    first, second = (task.clean(s.volume(), fit, s.invalid) for s in (sources[0], other))
    np.testing.assert_array_equal(found[0], first[3, 5:29, 7:31])
    np.testing.assert_array_equal(found[1], second[2, 50:74, 33:57])


def test_prepare_is_pure(prepared: Prepared) -> None:
    task, sources, fit, config = prepared
    one, two = (task.prepare(sources, fit, config, seed=1, round=0) for _ in range(2))
    assert torch.equal(one.corners, two.corners)
    for name in one.images:
        assert torch.equal(one.images[name], two.images[name])


def test_no_training_patch_touches_a_held_out_one(prepared: Prepared) -> None:
    task, sources, fit, config = prepared
    bank = task.prepare(sources, fit, config, seed=1, round=0)
    for _, y, x in bank.corners.tolist():
        for _, top, left in fit.held_out:
            reach = fit.patch + bank.jitter - 1
            assert y + reach <= top or y >= top + fit.patch or x + reach <= left or x >= left + fit.patch


def test_a_bank_smaller_than_the_stack_changes_by_round(prepared: Prepared) -> None:
    task, sources, fit, config = prepared
    small = config.model_copy(update={"task": {**config.task, "bank_mb": 1}})
    banks = [task.prepare(sources * 8, fit, small, seed=1, round=r) for r in (0, 0, 1)]
    assert max(len(bank.depth) for bank in banks) * 64 * 72 * 8 <= 1_000_000
    assert torch.equal(banks[0].depth, banks[1].depth)
    assert not torch.equal(banks[1].depth, banks[2].depth)


def test_validation_is_the_same_in_every_round(prepared: Prepared) -> None:
    task, sources, fit, config = prepared
    small = config.model_copy(update={"task": {**config.task, "bank_mb": 1}})
    one, two = (task.prepare(sources * 30, fit, small, seed=1, round=r) for r in (0, 1))
    assert torch.equal(one.validation["raw"], two.validation["raw"])
    assert torch.equal(one.validation_depth, two.validation_depth)
    assert not one.complete, "every plane is in the bank: the test tests nothing"


def test_windows_hold_what_the_whole_planes_do(
    prepared: Prepared, holed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw and validity to the byte, the haze of a window as if the whole plane had been blurred."""
    task, _, _, config = prepared
    config = with_task(config, sigma=3.0)
    source = source_of(holed)
    fit = task.fit([source], config)
    whole = task.prepare([source], fit, config, seed=1, round=0)
    monkeypatch.setattr(patches, "SIDE", 50)
    budget = task.prepare([source], fit, with_task(config, bank_mb=1), seed=1, round=0)
    assert whole.complete
    assert not budget.complete
    assert budget.images["raw"].numel() * 12 <= 1e6
    generator = np.random.default_rng((1, 0))
    around, voxels = (-min(fit.layers), max(fit.layers)), 10**6 // (4 * len(budget.images))
    inside = around if fit.in_space else (0, 0)
    chosen, _ = windows([source.frame.shape], voxels, 2 * fit.patch, generator, around, inside)
    chosen, _, trained = with_layers(chosen, source.frame.shape[:1], fit.layers, slabs=fit.in_space)
    planes = {name: image.view(source.frame.shape) for name, image in whole.images.items()}
    piece = 0
    for one in chosen:
        for z in range(one.z.start, one.z.stop):
            shape = one.y.stop - one.y.start, one.x.stop - one.x.start
            for name, image in budget.images.items():
                start = int(budget.start[piece])
                found = image[start : start + shape[0] * shape[1]].view(shape)
                # Where a whole neighbourhood is empty the level of the window stands for that of the plane.
                known = planes["weight"][z, one.y, one.x] > 0
                torch.testing.assert_close(found[known], planes[name][z, one.y, one.x][known], rtol=1e-4, atol=2e-2)
            corner = budget.corners[budget.corners[:, 0] == piece][:, 1:] + torch.tensor([one.y.start, one.x.start])
            assert trained[piece] or not len(corner)
            reach = fit.patch + budget.jitter - 1
            for _, top, left in fit.held_out:
                clear = (corner[:, 0] + reach <= top) | (corner[:, 0] >= top + fit.patch)
                clear |= (corner[:, 1] + reach <= left) | (corner[:, 1] >= left + fit.patch)
                assert clear.all()
            piece += 1
    known = whole.validation["weight"] > 0
    for name, held in whole.validation.items():
        torch.testing.assert_close(budget.validation[name][known], held[known], rtol=1e-4, atol=2e-2)


def test_a_bank_reads_little_more_than_it_holds(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _, _, config = prepared
    monkeypatch.setattr(patches, "SIDE", 48)
    monkeypatch.setattr("deepcontrast.valid.SLAB_BYTES", 10**5)
    config = with_task(config, sigma=2.0)
    lazy = Lazy(np.tile(tissue(shape=(10, 64, 72), seed=5).raw, (2, 2, 2)))
    source = source_of(lazy)
    fit = task.fit([source], config)
    lazy.given = 0
    bank = task.prepare([source], fit, with_task(config, bank_mb=1), seed=1, round=0)
    held = bank.validation["raw"].numel()
    reach = 2 * 8
    assert held < lazy.given
    patches_read = 64 * len(fit.layers) * (fit.patch + reach) ** 2
    assert lazy.given <= patches_read + bank.images["raw"].numel() * ((48 + reach) / 48) ** 2


@settings(max_examples=60)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(5, 40), st.integers(5, 40)), min_size=1, max_size=3),
    voxels=st.integers(1, 30_000),
    side=st.sampled_from([7, 16, 64]),
)
def test_windows_stay_in_memory_and_cover_what_fits(shapes: list[tuple[int, int, int]], voxels: int, side: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "SIDE", side)
        chosen, complete = windows(shapes, voxels, 1, np.random.default_rng(0))
    seen = [np.zeros(shape, int) for shape in shapes]
    for one in chosen:
        part = seen[one.source][one.z, one.y, one.x]
        assert part.size
        part += 1
    total = sum(_voxels(one) for one in chosen)
    assert total <= voxels or len(chosen) == 1
    assert complete == (sum(s.size for s in seen) <= voxels)
    if complete:
        assert all((s == 1).all() for s in seen)


def _voxels(one: Window) -> int:
    return (one.z.stop - one.z.start) * (one.y.stop - one.y.start) * (one.x.stop - one.x.start)


@given(
    shape=st.tuples(st.integers(18, 300), st.integers(18, 300)),
    patch=st.sampled_from([16, 24, 32, 64, 128]),
    seed=st.integers(0, 50),
)
def test_patches_fit_beside_the_held_out_squares(shape: tuple[int, int], patch: int, seed: int) -> None:
    patch = patch_size(shape, patch, 4)
    assert patch % 4 == 0
    squares = [(y, x) for _, y, x in hold_out([shape], patch, 0.05, np.random.default_rng(seed))]
    assert squares
    assert len(corners(None, (1, *shape), patch, jitter(patch), squares))


def test_too_small_planes_are_refused() -> None:
    with pytest.raises(InputError, match="too small"):
        patch_size((12, 200), 64, 16)


def test_patches_avoid_invalid_voxels() -> None:
    valid = np.ones((2, 64, 64), bool)
    valid[0] = False
    valid[1, :, 32:] = False
    rows = corners(valid, (2, 64, 64), 16, 2, [])
    assert len(rows)
    assert set(rows[:, 0]) == {1}
    assert all(valid[z, y : y + 17, x : x + 17].mean() >= 0.9 for z, y, x in rows)


@given(length=st.integers(1, 9), reach=st.integers(0, 4), apart=st.integers(1, 3))
def test_layers_are_mirrored_at_the_first_and_last_plane(length: int, reach: int, apart: int) -> None:
    offsets = tuple(apart * n for n in range(-reach, reach + 1))
    padded = np.pad(np.arange(length), max(offsets), "reflect" if length > 1 else "edge")
    expected = [[padded[z + max(offsets) + offset] for offset in offsets] for z in range(length)]
    np.testing.assert_array_equal(layers(length, offsets), expected)


def test_every_plane_is_read_once_and_shown_with_its_neighbours() -> None:
    y, x = slice(0, 8), slice(0, 8)
    wanted = [Window(0, slice(4, 6), y, x), Window(0, slice(7, 8), y, x), Window(1, slice(0, 3), y, x)]
    read, shown, trained = with_layers(wanted, [12, 3], (-2, -1, 0, 1, 2))
    pieces = [(one.source, z) for one in read for z in range(one.z.start, one.z.stop)]
    assert pieces == [*((0, z) for z in range(2, 10)), (1, 0), (1, 1), (1, 2)]
    # In the middle of three planes, two above or below is the plane itself.
    assert [piece for piece, one in zip(pieces, trained, strict=True) if one] == [
        (0, 4),
        (0, 5),
        (0, 7),
        (1, 0),
        (1, 2),
    ]
    assert [pieces[n] for n in shown[pieces.index((0, 7))]] == [(0, z) for z in (5, 6, 7, 8, 9)]
    assert [pieces[n] for n in shown[pieces.index((1, 0))]] == [(1, z) for z in (2, 1, 0, 1, 2)]


def test_a_window_of_planes_of_another_size_has_no_pattern(prepared: Prepared) -> None:
    _, _, fit, _ = prepared
    patterned = replace(fit, pattern=np.arange(48, dtype=np.float32).reshape(6, 8))
    window = slice(1, 4), slice(2, 8)
    np.testing.assert_array_equal(contrast.windowed(patterned, (6, 8), *window).pattern, patterned.pattern[window])
    assert contrast.windowed(patterned, (12, 16), *window).pattern is None

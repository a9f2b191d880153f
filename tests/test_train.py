"""Every task's sample, and training that is the same however often it is interrupted."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from deepcontrast import registry
from deepcontrast.config import Config, Train
from deepcontrast.depth import depths
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.patches import corners, draw, hold_out, jitter, patch_size
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source
from deepcontrast.training import learning_rate, train

from .conftest import TINY

Prepared = tuple[Any, list[Source], Any, Config]


@pytest.fixture(scope="module", params=registry.names("tasks"))
def prepared(request: pytest.FixtureRequest, tiny_stack: Stack) -> Prepared:
    task = registry.load("tasks", request.param)
    stack = tiny_stack.with_optics(surface="first")
    sources = [Source(stack, 0, 0, depths(stack))]
    config = load_recipe("contrast", TINY)
    return task, sources, task.fit(sources, config), config


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_sample_can_be_captured(prepared: Prepared) -> None:
    """No .item(), no boolean indexing, no shape that depends on values."""
    task, sources, fit, config = prepared
    bank = task.prepare(sources, fit, config, seed=1, round=0)
    batch, depth = draw(bank, 4, fit.patch, seeded(0), augment=False)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(image) for name, image in batch.items()}
        x, y, _ = task.sample(fake, mode.from_tensor(depth), fit, seeded(0), config)
    assert x.shape == y.shape == (4, 1, fit.patch, fit.patch)


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


class _Stop:
    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, event: Event) -> None:
        if event.stage == "train" and event.done == self.at:
            raise Cancelled("stop")


@pytest.mark.parametrize("stops", [(6,), (3, 9), (4, 8, 12)])
def test_interrupted_training_ends_in_the_same_weights(
    prepared: Prepared, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    task, sources, fit, config = prepared
    whole = train(task, sources, fit, config)
    checkpoint = tmp_path / "checkpoint.safetensors"
    for stop in stops:
        with pytest.raises(Cancelled):
            train(task, sources, fit, config, checkpoint=checkpoint, progress=_Stop(stop))
    again = train(task, sources, fit, config, checkpoint=checkpoint)
    assert again.history == whole.history
    for weights, expected in ((again.last, whole.last), (again.best, whole.best)):
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_training_learns_to_undo_the_degradation() -> None:
    """In bright light, where shot noise does not hide it: the error falls well below that of doing nothing."""
    task = registry.load("tasks", "contrast")
    made = tissue(shape=(10, 64, 72), seed=5, light=3000)
    stack = Stack(made.raw, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first"))
    sources = [Source(stack, 0, 0, depths(stack))]
    config = load_recipe("contrast", [*TINY, "train.steps=150", "train.learning_rate=1e-2", "net.features=8"])
    fit = task.fit(sources, config)
    bank = task.prepare(sources, fit, config, seed=1, round=0)
    x, y, _ = task.sample(bank.validation, bank.validation_depth, fit, seeded(0), config)
    trained = train(task, sources, fit, config)
    assert trained.history["val_loss"][-1] < 0.7 * float((x - y).abs().mean())


def test_training_leaves_torch_alone_and_depends_on_its_seed(prepared: Prepared) -> None:
    task, sources, fit, config = prepared
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    one = train(task, sources, fit, config, member=0)
    other = train(task, sources, fit, config, member=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert any(not torch.equal(one.last[name], other.last[name]) for name in one.last)


def test_a_fit_comes_back_from_the_model_file(prepared: Prepared) -> None:
    task, _, fit, _ = prepared
    import json

    table, arrays = fit.encode()
    back = task.Fit.decode(json.loads(json.dumps(table)), arrays)
    assert back.encode()[0] == table


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
def test_learning_rate_follows_its_schedule(schedule: Any) -> None:
    settings = Train(steps=100, learning_rate=1.0, schedule=schedule)
    rate: Callable[[int, list[float]], float] = lambda step, val: learning_rate(step, settings, val)  # noqa: E731
    assert rate(0, []) == 1.0
    if schedule == "cosine":
        assert rate(50, []) == pytest.approx(0.5)
    elif schedule == "plateau":
        # Keras: halves once 10 validations in a row brought no new minimum.
        assert rate(0, [1.0] * 10) == 1.0
        assert rate(0, [1.0] * 11) == 0.5
        assert rate(0, [1.0] * 21) == 0.25
        assert rate(0, [1.0 / (i + 1) for i in range(30)]) == 1.0
    else:
        assert rate(99, [1.0] * 50) == 1.0


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

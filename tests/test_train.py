"""Every task's sample, and training that is the same however often it is interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepcontrast import registry
from deepcontrast.compute import heap
from deepcontrast.config import Config, Train
from deepcontrast.depth import depths
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source
from deepcontrast.training import learning_rate, train

from .conftest import RECIPES, TINY

Prepared = tuple[Any, list[Source], Any, Config]


@pytest.fixture(scope="module", params=registry.names("tasks"))
def prepared(request: pytest.FixtureRequest, tiny_stack: Stack) -> Prepared:
    task = registry.load("tasks", request.param)
    stack = tiny_stack.with_optics(surface="first")
    config = load_recipe(RECIPES[request.param], TINY)
    target = None
    if task.PAIRED:
        stack, target = task.paired(stack, replace(stack, array=np.asarray(stack.array) // 2), config)
    sources = [Source(stack, 0, 0, depths(stack), target)]
    return task, sources, task.fit(sources, config), config


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_training_ends_where_nothing_gets_better(prepared: Prepared, tmp_path: Path) -> None:
    task, sources, fit, config = prepared
    useless = config.train.model_copy(update={"learning_rate": 1e-12, "steps": 40, "stop_after": 2})
    config = config.model_copy(update={"train": useless})
    events: list[Event] = []
    checkpoint = tmp_path / "checkpoint.safetensors"
    found = train(task, sources, fit, config, checkpoint=checkpoint, progress=events.append)
    # The first of equal losses is the lowest, and none after it is lower.
    assert len(found.history["val_loss"]) < 40 // useless.validate_every
    lowest = found.history["val_loss"].index(min(found.history["val_loss"]))
    assert len(found.history["val_loss"]) == lowest + 1 + 2
    assert len(found.history["loss"]) == found.history["val_step"][-1]
    assert any("ends after" in str(event.values.get("message")) for event in events)
    again = train(task, sources, fit, config, checkpoint=checkpoint)
    assert again.history == found.history
    assert all(torch.equal(again.best[name], found.best[name]) for name in found.best)


def test_a_validation_that_is_not_finite_ends_training_in_one_line(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, sources, fit, config = prepared
    monkeypatch.setattr("deepcontrast.training.loop.validate", lambda *_: math.inf)
    with pytest.raises(InputError, match="the loss is not finite at step"):
        train(task, sources, fit, config)


def test_memory_goes_back_while_a_bank_is_made(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    task, sources, fit, config = prepared
    done: list[str] = []

    @contextmanager
    def given_back() -> Iterator[None]:
        done.append("begin")
        yield
        done.append("end")

    def prepare(*of: Any, **options: Any) -> Any:
        done.append("prepare")
        return original(*of, **options)

    original = task.prepare
    monkeypatch.setattr(heap, "given_back", given_back)
    monkeypatch.setattr(task, "prepare", prepare)
    train(task, sources, fit, config)
    assert done == ["begin", "prepare", "end"]

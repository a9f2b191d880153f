"""The precision of a training: tried once, said, kept in the checkpoint and the model."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from deepcontrast import registry
from deepcontrast.compute.precision import has_bfloat16
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.errors import Cancelled
from deepcontrast.learning import learn
from deepcontrast.nets.unet import unet
from deepcontrast.progress import Event, silent
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.task import Bank, Source
from deepcontrast.training import Mode, train
from deepcontrast.training.learner import new_learner
from deepcontrast.training.mode import choose_mode, sees_few_planes, work_out

from .conftest import TINY

TRIAL = "deepcontrast.training.mode.try_out"
CAPABLE = "deepcontrast.training.mode.has_bfloat16"


@pytest.fixture
def sources(tiny_stack: Stack) -> list[Source]:
    return [Source(tiny_stack.with_optics(surface="first"), 0, 0, depths(tiny_stack))]


@pytest.fixture
def task() -> Any:
    return registry.load("tasks", "contrast")


def settings(precision: str) -> Config:
    return load_recipe("contrast", [*TINY, f"train.precision={precision}"])


def no_trial(*_: object, **__: object) -> dict[str, float]:
    raise AssertionError("a trial that nobody asked for")


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({"float32": 1.0, "bfloat16": 0.5}, "bfloat16"), ({"float32": 1.0, "bfloat16": 0.95}, "float32")],
)
def test_the_faster_precision_is_taken_and_said(
    task: Any, sources: list[Source], monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], chosen: str
) -> None:
    config = settings("auto")
    learner = new_learner(task, task.fit(sources, config), config, member=0, device="cpu")
    bank = task.prepare(sources, learner.fit, config, seed=1, round=0)

    def tried(work: Any, precisions: tuple[str, ...]) -> dict[str, float]:
        for precision in precisions:
            work(precision)
        return seconds

    monkeypatch.setattr(CAPABLE, lambda device: True)
    monkeypatch.setattr(TRIAL, tried)
    before = (copy.deepcopy(learner.net.state_dict()), learner.patches.get_state(), learner.noise.get_state())
    heard: list[Event] = []
    assert choose_mode(learner, bank, heard.append) == Mode(chosen)
    assert [event.values["precision"] for event in heard] == [chosen]
    assert chosen in str(heard[0].values["message"])
    # Nothing that training changes is touched.
    assert all(torch.equal(before[0][name], value) for name, value in learner.net.state_dict().items())
    assert torch.equal(before[1], learner.patches.get_state())
    assert torch.equal(before[2], learner.noise.get_state())
    assert all(weight.grad is None for weight in learner.net.parameters())


@pytest.mark.parametrize(("precision", "capable"), [("float32", True), ("bfloat16", True), ("auto", False)])
def test_no_trial_where_there_is_nothing_to_decide(
    task: Any, sources: list[Source], monkeypatch: pytest.MonkeyPatch, precision: str, capable: bool
) -> None:
    config = settings(precision)
    learner = new_learner(task, task.fit(sources, config), config, member=0, device="cpu")
    bank = task.prepare(sources, learner.fit, config, seed=1, round=0)
    monkeypatch.setattr(CAPABLE, lambda device: capable)
    monkeypatch.setattr(TRIAL, no_trial)
    expected = "bfloat16" if precision == "bfloat16" else "float32"
    assert choose_mode(learner, bank, silent) == Mode(expected)


def test_a_trial_that_fails_leaves_float32(task: Any, sources: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict[str, float]:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(CAPABLE, lambda device: True)
    monkeypatch.setattr(TRIAL, fail)
    config, heard = settings("auto"), list[Event]()
    trained = train(task, sources, task.fit(sources, config), config, progress=heard.append)
    assert trained.mode == Mode("float32")
    assert any("without bfloat16 (RuntimeError: could not" in str(event.values.get("message")) for event in heard)


def test_nothing_is_compiled_on_a_processor(task: Any, sources: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch.compile on a processor")

    monkeypatch.setattr(torch, "compile", refuse)
    config = settings("bfloat16")
    assert not train(task, sources, task.fit(sources, config), config).mode.compiled


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="this processor has no bfloat16")
def test_a_resumed_run_keeps_the_precision_it_began_with_and_ends_in_the_same_weights(
    task: Any, sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at whatever step, and though a new trial would decide otherwise."""
    monkeypatch.setattr(TRIAL, lambda *_: {"float32": 2.0, "bfloat16": 1.0})
    config = settings("auto")
    fit = task.fit(sources, config)
    whole = train(task, sources, fit, config)
    assert whole.mode == Mode("bfloat16")
    plain = train(task, sources, fit, settings("float32"))
    assert any(not torch.equal(plain.last[name], value) for name, value in whole.last.items())

    def stop(event: Event) -> None:
        if event.done == 7:
            raise Cancelled("stop")

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cancelled):
        train(task, sources, fit, config, checkpoint=checkpoint, progress=stop)
    monkeypatch.setattr(TRIAL, no_trial)
    resumed = train(task, sources, fit, config, checkpoint=checkpoint)
    assert resumed.mode == whole.mode
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.last[name], value) for name, value in whole.last.items())


def test_an_ensemble_is_trained_in_one_precision_and_the_model_says_which(
    tiny_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = iter([{"float32": 2.0, "bfloat16": 1.0}, {"float32": 1.0, "bfloat16": 2.0}])
    monkeypatch.setattr(CAPABLE, lambda device: True)
    monkeypatch.setattr(TRIAL, lambda *_: next(trials))
    stack = tiny_stack.with_optics(surface="first")
    model, _ = learn([stack], settings("auto"), members=2, folder=tmp_path)
    assert asdict(Mode("bfloat16")).items() <= dict(model.provenance).items()
    assert model.config == settings("auto")
    assert next(trials), "the second network was tried too"


@pytest.mark.parametrize(("planes", "pool_z", "few"), [(4, 1, True), (2, 0, True), (1, 0, False), (3, 0, False)])
def test_networks_in_space_of_few_planes_are_not_trained_in_bfloat16(planes: int, pool_z: int, few: bool) -> None:
    net = unet(depth=1, features=2, dims=3, pool_z=pool_z)
    assert sees_few_planes(net, torch.zeros(2, 1, planes, 16, 16)) == few
    assert not sees_few_planes(unet(depth=1, features=2), torch.zeros(2, 1, 16, 16))
    learner: Any = SimpleNamespace(net=net, device="cpu", optimizer=torch.optim.SGD(net.parameters()))
    heard: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepcontrast.training.mode.example", lambda *_: torch.zeros(2, 1, planes, 16, 16))
        patch.setattr("deepcontrast.training.mode._probe", lambda *_: None)
        _, mode = work_out(learner, cast(Bank, None), Mode("bfloat16"), heard.append)
    assert mode.precision == ("float32" if few else "bfloat16")
    assert len(heard) == few

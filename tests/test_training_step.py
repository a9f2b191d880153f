"""One step where there is no GPU: with fake tensors of one, and with parts that fail."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from deepcontrast import registry
from deepcontrast.depth import depths
from deepcontrast.losses import LOSSES
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.task import Bank, Source
from deepcontrast.training import Mode, loop
from deepcontrast.training.learner import Learner, adam, new_learner, set_rate
from deepcontrast.training.mode import work_out
from deepcontrast.training.step import WARM_UP, Step, capture, step_of

from .conftest import RECIPES, TINY

Begun = tuple[Learner, Bank]


@pytest.fixture(params=registry.names("tasks"))
def begun(request: pytest.FixtureRequest, tiny_stack: Stack) -> Begun:
    task = registry.load("tasks", request.param)
    config = load_recipe(RECIPES[request.param], TINY)
    stack = tiny_stack.with_optics(surface="first")
    stack, target = task.paired(stack, stack, config) if task.PAIRED else (stack, None)
    sources = [Source(stack, 0, 0, depths(stack), target)]
    learner = new_learner(task, task.fit(sources, config), config, member=0, device="cpu")
    return learner, task.prepare(sources, learner.fit, config, seed=1, round=0)


class _Unguarded(TorchFunctionMode):
    """Brackets and ``to`` as functions: they want a device guard, and torch has none for what it was built without."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to:
            if isinstance(args[1], torch.dtype):
                return args[0] if args[0].dtype == args[1] else func(*args)
            assert args[0].device.type == args[1], "a copy from device to device"
            return args[0]
        if func is not Tensor.__getitem__:
            return func(*args, **(kwargs or {}))
        tensor, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
        axis = 0
        for one in index:
            if one is None:
                tensor, axis = tensor.unsqueeze(axis), axis + 1
            elif isinstance(one, int):
                tensor = tensor.select(axis, one)
            elif isinstance(one, slice):
                tensor, axis = torch.ops.aten.slice(tensor, axis, one.start, one.stop, one.step or 1), axis + 1
            else:
                assert one.ndim == 1
                assert one.dtype == torch.int64, "boolean indexing waits for the GPU"
                tensor, axis = tensor.index_select(axis, one), axis + 1
        return tensor


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e3])
def test_a_large_gradient_is_scaled_down_to_the_norm_asked_for(begun: Begun, clip: float) -> None:
    def gradient(clip: float) -> Tensor:
        learner, bank = begun[0], begun[1]
        config = learner.config.model_copy(update={"train": learner.config.train.model_copy(update={"clip": clip})})
        fresh = new_learner(learner.task, learner.fit, config, member=0, device="cpu")
        step_of(fresh, bank, fresh.net)()
        return torch.cat([p.grad.flatten() for p in fresh.net.parameters() if p.grad is not None])

    free, found = gradient(0.0), gradient(clip)
    assert 1e-3 < float(free.norm()) < 1e3
    expected = free * (clip / free.norm()) if clip == 1e-3 else free
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_a_step_stays_on_the_gpu(begun: Begun) -> None:
    """With fake tensors of a GPU, a reading or a copy to the processor is an error; autograd needs a real one."""
    learner, bank = begun
    with FakeTensorMode(), _Unguarded(), torch.no_grad():

        def there(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: there(one) for name, one in value.items()}
            return torch.empty(value.shape, dtype=value.dtype, device="cuda") if isinstance(value, Tensor) else value

        bank = replace(bank, **{field.name: there(getattr(bank, field.name)) for field in fields(bank)})
        for module in learner.net.modules():
            module._parameters = {k: v if v is None else nn.Parameter(there(v)) for k, v in module._parameters.items()}
        learner = replace(
            learner, device="cuda", data_device="cuda", optimizer=adam(learner.net, learner.config.train, "cuda")
        )
        x, y, weight = learner.draw(bank, learner.patches, learner.noise)
        loss = LOSSES["mae"](learner.net(x), y, weight)
        set_rate(learner.optimizer, 1e-4)
    [group] = learner.optimizer.param_groups
    assert (loss.device.type, loss.ndim) == ("cuda", 0)
    assert (group["lr"].device.type, group["capturable"]) == ("cuda", True)


class Elsewhere(Learner):
    """Says that it is on a GPU, and computes here."""

    def sample(self, images: Any, depth: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.task.sample(images, depth, self.fit, noise, self.config)


def test_every_bank_has_a_graph_of_its_own_that_is_gone_before_the_next(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, bank = begun
    graphs: list[weakref.ref[Any]] = []
    replays = [0]

    def captured(_: Learner, step: Step, __: Progress) -> Step:
        def replay() -> Tensor:
            replays[0] += 1
            return step()

        graphs.append(weakref.ref(replay))
        return replay

    def rounds(*_: object) -> Iterator[tuple[range, Bank]]:
        for first in (0, 6):
            assert all(graph() is None for graph in graphs)
            yield range(first, first + 6), bank

    monkeypatch.setattr(loop, "_rounds", rounds)
    monkeypatch.setattr(loop, "capture", captured)

    def history(device: str) -> Any:
        learner = new_learner(first.task, first.fit, first.config, member=0, device="cpu")
        state = {"step": 0, "loss": [], "val_loss": [], "mode": asdict(Mode())}
        return loop._go_on(replace(Elsewhere(**vars(learner)), device=device), [], {}, state, None, silent).history

    plain = history("cpu")
    assert history("cuda") == plain
    assert (len(graphs), replays[0]) == (2, 2 * (6 - WARM_UP))


def test_a_graph_that_cannot_be_captured_is_said_and_the_steps_are_the_same(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnGpu(torch.Generator):
        def graphsafe_set_state(self, state: torch.Generator) -> None:
            self.set_state(state.get_state())

    learner, bank = begun
    learner = replace(learner, patches=OnGpu().manual_seed(0), noise=OnGpu().manual_seed(1))
    state = learner.patches.get_state()
    step, heard = step_of(learner, bank, learner.net), list[Event]()

    def refuse() -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more of it")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    assert capture(learner, step, heard.append) is None
    [event] = heard
    assert event.values["message"] == (
        "goes on without a CUDA graph (RuntimeError: operation not permitted when stream is capturing)"
    )
    assert torch.equal(learner.patches.get_state(), state)
    assert step().isfinite()


@pytest.mark.parametrize(
    ("fails", "left", "said"),
    [
        ({"compile"}, Mode("bfloat16"), ["torch.compile"]),
        ({"compile", "bfloat16"}, Mode(), ["torch.compile", "bfloat16"]),
        ({"bfloat16"}, Mode(), ["torch.compile", "bfloat16"]),
        (set(), Mode("bfloat16", compiled=True), []),
    ],
)
def test_a_mode_that_fails_gives_way_step_by_step_to_a_simpler_one(
    begun: Begun, monkeypatch: pytest.MonkeyPatch, fails: set[str], left: Mode, said: list[str]
) -> None:
    learner, bank = begun
    before = (copy.deepcopy(learner.net.state_dict()), learner.patches.get_state(), learner.noise.get_state())

    def compiled(net: nn.Module, **_: object) -> Any:
        def run(x: Tensor) -> Tensor:
            if "compile" in fails:
                raise RuntimeError("no compiler")
            y: Tensor = net(x)
            return y

        return run

    def autocast(device: str, precision: str) -> Any:
        if precision in fails:
            raise RuntimeError(f"no {precision}")
        return nullcontext()

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("deepcontrast.training.mode.autocast", autocast)
    heard: list[Event] = []
    forward, mode = work_out(learner, bank, Mode("bfloat16", compiled=True), heard.append)
    assert mode == left
    assert [str(event.values["message"]).split(" (")[0] for event in heard] == [f"goes on without {p}" for p in said]
    assert all(torch.equal(before[0][name], value) for name, value in learner.net.state_dict().items())
    assert torch.equal(before[1], learner.patches.get_state())
    assert torch.equal(before[2], learner.noise.get_state())
    assert all(parameter.grad is None for parameter in learner.net.parameters())
    assert forward(torch.zeros_like(learner.draw(bank, learner.patches, learner.noise)[0])).isfinite().all()

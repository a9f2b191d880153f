"""Several processes that train one network: the second is a real one, and they talk over gloo."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from deepcontrast import registry
from deepcontrast.cli import run
from deepcontrast.depth import depths
from deepcontrast.io import open_stack, write_stack
from deepcontrast.model import load_model
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.task import Source
from deepcontrast.training import distributed, train

from .conftest import TINY

ROOT = Path(__file__).resolve().parent.parent
SEPARATE = "import sys; from tests.test_training_distributed import take_part; take_part(sys.argv[1], int(sys.argv[2]))"


def images() -> Tensor:
    return torch.rand((8, 1, 6, 6), generator=torch.Generator().manual_seed(3))


def mean_square(net: nn.Module, images: Tensor) -> Tensor:
    squares: Tensor = net(images) ** 2
    return squares.mean()


def simple_net() -> nn.Module:
    net = nn.Conv2d(1, 2, 3)
    for weight in net.parameters():
        nn.init.constant_(weight, 0.1)
    return net


def take_part(place: str, rank: int, *ports: int) -> None:
    """Do what every process of a run does, and leave in a file of its own what this one ended with."""
    folder = Path(place)
    first, second = ports or [int(port) for port in (folder / "ports").read_text().split()]
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = str(first)
    with distributed.joined("cpu"):
        net = simple_net()
        averaged = distributed.averaging(net)
        mean_square(averaged, images()[4 * rank : 4 * rank + 4]).backward()  # type: ignore[no-untyped-call]
        found = {f"gradient.{name}": weight.grad for name, weight in net.named_parameters()}
        stack = open_stack(folder / "tiny.tif").with_optics(surface="first")
        task, sources = registry.load("tasks", "contrast"), [Source(stack, 0, 0, depths(stack))]
        config = load_recipe("contrast", TINY)
        checkpoint, early = folder / f"checkpoint.{rank}", folder / f"early.{rank}"

        def keep_early(event: Event) -> None:
            if event.stage == "train" and event.done == 6:
                shutil.copy(checkpoint, early)

        fit = task.fit(sources, config)
        for name, path in (("whole", checkpoint), ("resumed", early)):
            trained = train(task, sources, fit, config, checkpoint=path, progress=keep_early)
            found |= {f"{name}.{key}": weight for key, weight in trained.last.items()}
    safetensors.torch.save_file({key: value.contiguous() for key, value in found.items()}, folder / f"found.{rank}")
    os.environ["MASTER_PORT"] = str(second)
    arguments = ("train", "contrast", *(part for setting in TINY for part in ("--set", setting)))
    out = folder / f"out.{rank}"
    assert run([*arguments, "--input", str(folder / "tiny.tif"), "--out", str(out / "model.safetensors")]) == 0


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_stack: Stack) -> tuple[Path, str]:
    """The folder of a finished run of two processes, and what the second one said. Its imports alone take 4 seconds."""
    folder = tmp_path_factory.mktemp("two")
    write_stack(folder / "tiny.tif", tiny_stack)
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    (folder / "ports").write_text(" ".join(map(str, ports)))
    other = subprocess.Popen(
        [sys.executable, "-c", SEPARATE, str(folder), "1"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    before = dict(os.environ)
    try:
        take_part(str(folder), 0, *ports)
        said = other.communicate(timeout=60)[0]
    finally:
        other.kill()
        os.environ.clear()
        os.environ.update(before)
    assert other.returncode == 0, said
    return folder, said


def test_another_process_draws_other_patches_and_writes_nothing(
    tiny_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, config = registry.load("tasks", "contrast"), load_recipe("contrast", TINY)
    sources = [Source(tiny_stack.with_optics(surface="first"), 0, 0, depths(tiny_stack))]
    fit = task.fit(sources, config)
    first = train(task, sources, fit, config)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    heard: list[Event] = []
    other = train(task, sources, fit, config, checkpoint=tmp_path / "checkpoint", progress=heard.append)
    assert other.history["loss"] != first.history["loss"]
    assert not heard
    assert not list(tmp_path.iterdir())


def found(folder: Path, rank: int, prefix: str) -> dict[str, Tensor]:
    tensors = safetensors.torch.load_file(folder / f"found.{rank}")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@pytest.mark.slow
def test_gradients_are_those_of_the_joined_batch(ran: tuple[Path, str]) -> None:
    net = simple_net()
    mean_square(net, images()).backward()  # type: ignore[no-untyped-call]
    for rank in (0, 1):
        for name, gradient in found(ran[0], rank, "gradient.").items():
            torch.testing.assert_close(gradient, net.get_parameter(name).grad)


@pytest.mark.slow
def test_all_processes_end_with_the_same_weights_though_they_saw_other_patches(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    one, other = (found(folder, rank, "whole.") for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    alone = load_model(folder / "out.0" / "model.safetensors").channels[0].members[0]
    tensors = safetensors.torch.load_file(folder / "early.0")
    assert not torch.equal(tensors["generator.0.patches"], tensors["generator.1.patches"])
    assert set(alone) == set(one)


@pytest.mark.slow
def test_a_resumed_run_of_two_ends_in_the_same_weights(ran: tuple[Path, str]) -> None:
    for rank in (0, 1):
        whole, resumed = (found(ran[0], rank, prefix) for prefix in ("whole.", "resumed."))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_only_the_first_process_writes_and_speaks(ran: tuple[Path, str]) -> None:
    folder, said = ran
    assert said == ""
    assert [path.name for path in (folder / "out.0").iterdir()] == ["model.safetensors"]
    assert not (folder / "out.1").exists()
    assert sorted(path.name for path in folder.glob("*.1")) == ["found.1"]

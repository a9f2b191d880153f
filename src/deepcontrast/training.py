"""The training loop: draw, degrade, predict, compare, step. It receives a task and knows none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepcontrast.config import Config, Train
from deepcontrast.errors import InputError, ModelFileError
from deepcontrast.losses import LOSSES
from deepcontrast.model import load_tensors, save_tensors
from deepcontrast.patches import draw
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.task import Bank, Source, Task


@dataclass(frozen=True, eq=False)
class Trained:
    """What training gives.

    Attributes:
        best: weights at the lowest validation loss.
        last: weights after the last step.
        history: ``loss`` of every step; ``val_step`` and ``val_loss`` of every validation.
    """

    best: Mapping[str, Tensor]
    last: Mapping[str, Tensor]
    history: Mapping[str, Sequence[float]]


def train(
    task: Task,
    sources: Sequence[Source],
    fit: Any,
    config: Config,
    *,
    member: int = 0,
    checkpoint: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Trained:
    """Train one network.

    Args:
        task: a module of ``tasks/``.
        sources: the images, all of one channel.
        fit: what ``task.fit`` gave for them.
        config: the settings.
        member: number of the network in an ensemble; each has a seed of its own.
        checkpoint: file to go on from where it exists, and to save to at every validation. The same processor
            kind, thread count and torch version give the same final weights as an uninterrupted run.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets an event every step; may raise Cancelled.

    Raises:
        ModelFileError: the checkpoint is damaged, or of another network.
    """
    settings, seed = config.train, (config.train.seed, member)
    # Only CUDA can draw Poisson numbers on the device; elsewhere batches are made on the processor.
    noise_device = device if device.startswith("cuda") else "cpu"
    patches, noise = torch.Generator(), torch.Generator(noise_device)
    patches.manual_seed(_seed(*seed, 0))
    noise.manual_seed(_seed(*seed, 1))
    net = task.build(fit, config)
    initialise(net, torch.Generator().manual_seed(_seed(*seed, 2)))
    net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    loss_of = LOSSES[settings.loss]
    best = _weights(net)
    loss_log: list[float] = []
    val_log: list[float] = []
    state: dict[str, Any] = {"step": 0, "threads": torch.get_num_threads()}
    if checkpoint is not None and checkpoint.exists():
        best, state = _resume(checkpoint, net, optimizer, patches, noise)
        loss_log, val_log = state["loss"], state["val_loss"]
    bank, current = None, -1
    with threads(state["threads"]):
        for step in range(state["step"], settings.steps):
            round = step // config.task.get("round_steps", settings.steps)
            if bank is None or (round != current and not bank.complete):
                bank = task.prepare(sources, fit, config, seed=_seed(*seed, 3), round=round)
                current = round
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings, val_log)
            batch, depth = draw(bank, settings.batch, fit.patch, patches, augment=settings.augment)
            batch = {name: image.to(noise_device) for name, image in batch.items()}
            x, y, weight = task.sample(batch, depth.to(noise_device), fit, noise, config)
            weight = None if weight is None else weight.to(device)
            loss = loss_of(_predict(net, x.to(device)), y.to(device), weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_log.append(float(loss.detach()))
            if not math.isfinite(loss_log[-1]):
                raise InputError(f"the loss is not finite at step {step + 1}; lower train.learning_rate")
            done = step + 1
            if done % settings.validate_every == 0 or done == settings.steps:
                val_log.append(validate(task, net, bank, fit, config, device, _seed(*seed, 4)))
                if val_log[-1] <= min(val_log):
                    best = _weights(net)
                if checkpoint is not None:
                    state |= {"step": done, "loss": loss_log, "val_loss": val_log}
                    _save(checkpoint, net, optimizer, patches, noise, best, state)
            shown = {"loss": sum(loss_log[-50:]) / len(loss_log[-50:])}
            progress(Event("train", done, settings.steps, shown | ({"val": val_log[-1]} if val_log else {})))
    every, steps = settings.validate_every, settings.steps
    val_step = [float(min((i + 1) * every, steps)) for i in range(len(val_log))]
    return Trained(best, _weights(net), {"loss": loss_log, "val_step": val_step, "val_loss": val_log})


def validate(task: Task, net: nn.Module, bank: Bank, fit: Any, config: Config, device: str, seed: int) -> float:
    """Return the mean loss over the held-out patches, with the same noise at every call."""
    generator = torch.Generator().manual_seed(seed)
    total, count, size = 0.0, len(bank.validation_depth), config.train.batch
    with torch.no_grad():
        for start in range(0, count, size):
            batch = {name: images[start : start + size] for name, images in bank.validation.items()}
            depth = bank.validation_depth[start : start + size]
            x, y, weight = task.sample(batch, depth, fit, generator, config)
            weight = None if weight is None else weight.to(device)
            loss = LOSSES[config.train.loss](_predict(net, x.to(device)), y.to(device), weight)
            total += float(loss) * len(depth)
    return total / count


def learning_rate(step: int, settings: Train, val_loss: Sequence[float]) -> float:
    """Return the learning rate of a step.

    ``cosine`` falls to zero at the last step. ``plateau`` halves after 10 validations without a new minimum,
    as Keras' ReduceLROnPlateau with CSBDeep's settings (NUMBERS section 3).
    """
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    rate = settings.learning_rate
    if settings.schedule == "plateau":
        lowest, waited = math.inf, 0
        for value in val_loss:
            lowest, waited = (value, 0) if value < lowest else (lowest, waited + 1)
            if waited >= 10:
                rate, waited = rate / 2, 0
    return rate


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Set weights as Keras does (Glorot uniform, zero bias), from a generator of our own."""
    with torch.no_grad():
        for tensor in net.parameters():
            if tensor.ndim > 1:
                size = tensor[0, 0].numel()
                bound = math.sqrt(6 / ((tensor.shape[0] + tensor.shape[1]) * size))
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 2 * bound - bound)
            else:
                tensor.zero_()


def _predict(net: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = net(x.contiguous(memory_format=torch.channels_last))
    return y


def _weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in net.state_dict().items()}


def _seed(*parts: int) -> int:
    """Return one seed for a path of numbers; close paths give unrelated seeds."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 1)) * 0xBF58476D1CE4E5B9) % 2**64
        value ^= value >> 31
    return value >> 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use the thread count the run began with: one and two threads train to different weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _save(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    patches: torch.Generator,
    noise: torch.Generator,
    best: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    tensors = {f"net.{k}": v for k, v in _weights(net).items()} | {f"best.{k}": v for k, v in best.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v.detach().to("cpu", copy=True) for k, v in moments.items()}
    tensors |= {"generator.patches": patches.get_state(), "generator.noise": noise.get_state()}
    save_tensors(path, tensors, {"checkpoint": dict(state)})


def _resume(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    patches: torch.Generator,
    noise: torch.Generator,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, table = load_tensors(path)
    try:
        net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        adam = optimizer.state_dict()
        optimizer.load_state_dict({**adam, "state": moments})
        patches.set_state(tensors["generator.patches"])
        noise.set_state(tensors["generator.noise"])
        best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        return best, dict(table["checkpoint"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"checkpoint '{path}' does not fit this run: {error}") from None

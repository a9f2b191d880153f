"""The training loop: steps, validations, checkpoints, and the learning rate between them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcontrast.compute import heap
from deepcontrast.config import Config, Train
from deepcontrast.errors import InputError
from deepcontrast.losses import LOSSES
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.task import Bank, Source, Task
from deepcontrast.training import checkpoint as checkpoints
from deepcontrast.training import distributed
from deepcontrast.training.checkpoint import on_processor, weights
from deepcontrast.training.learner import Learner, new_learner, seed_of, set_rate
from deepcontrast.training.mode import Forward, Mode, choose_mode, forward_of, is_tried, work_out
from deepcontrast.training.step import WARM_UP, capture, step_of

READ_EVERY = 50
"""Steps after which losses are read from a GPU: each reading waits for it."""
SAVE_EVERY = 60.0
"""Seconds between two checkpoints, which are a gigabyte for the published network: a GPU validates twice a second."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What training gives.

    Attributes:
        best: weights at the lowest validation loss.
        last: weights after the last step.
        history: ``loss`` of every step; ``val_step`` and ``val_loss`` of every validation.
        mode: how the steps were computed.
    """

    best: Mapping[str, Tensor]
    last: Mapping[str, Tensor]
    history: Mapping[str, Sequence[float]]
    mode: Mode = field(default_factory=Mode)


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

    Where ``torchrun`` started several processes (:func:`distributed.joined`), each calls this with the same arguments
    and draws batches of its own, of ``train.batch`` patches each; all return the same weights, the first alone reads
    and writes the checkpoint and tells its progress.

    Args:
        task: a module of ``tasks/``.
        sources: the images, all of one channel.
        fit: what ``task.fit`` gave for them.
        config: the settings.
        member: number of the network in an ensemble; each has a seed of its own.
        checkpoint: file to go on from where it exists, and to save to at validations, at most once a minute, and at
            the end. The same processor kind and torch version give the same final weights as an uninterrupted run;
            thread count and precision are those that it began with.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets an event every step, and a message where something is decided; may raise Cancelled.

    Raises:
        ModelFileError: the checkpoint is damaged, or of another network.
        InputError: the loss is not finite.
    """
    if distributed.rank():
        progress = silent
    saved = checkpoints.read(checkpoint)
    state: dict[str, Any] = {"step": 0, "loss": [], "val_loss": [], "threads": torch.get_num_threads(), "mode": None}
    if saved is not None:
        state = saved.state
    with threads(state["threads"]), _at_work_on(device):
        learner = new_learner(task, fit, config, member=member, device=device)
        best = weights(learner.net) if saved is None else checkpoints.restore(learner, saved.tensors)
        return _go_on(learner, sources, best, state, checkpoint, progress)


def settle(
    task: Task,
    sources: Sequence[Source],
    fit: Any,
    config: Config,
    *,
    begun: Iterable[Path] = (),
    device: str = "cpu",
    progress: Progress = silent,
) -> Config:
    """Return the settings with the precision that networks are trained in, see :func:`train`, for all of an ensemble.

    It is that of the checkpoints that were ``begun``, or what a trial finds where a trial decides.
    """
    for saved in map(checkpoints.read, begun):
        if saved is not None and saved.state["mode"] is not None:
            return Mode(**saved.state["mode"]).settle(config)
    if not is_tried(config, device):
        return config
    learner = new_learner(task, fit, config, member=0, device=device)
    return choose_mode(learner, next(_rounds(learner, sources, 0))[1], progress).settle(config)


def _go_on(
    learner: Learner,
    sources: Sequence[Source],
    best: Mapping[str, Tensor],
    state: dict[str, Any],
    checkpoint: Path | None,
    progress: Progress,
) -> Trained:
    settings, processes = learner.config.train, distributed.size()
    losses, val_losses, unread = state["loss"], state["val_loss"], list[Tensor]()
    mode = None if state["mode"] is None else Mode(**state["mode"])
    forward: Forward | None = None
    saved = -math.inf
    on_cuda = learner.device.startswith("cuda")
    # The exchange of gradients between processes is not captured.
    capturing = on_cuda and processes == 1
    if processes > 1:
        message = f"{processes} processes, each with batches of {settings.batch} patches"
        progress(Event("train", values={"message": message}))
    for numbers, bank in _rounds(learner, sources, state["step"]):
        if forward is None or mode is None:
            forward, mode = work_out(learner, bank, mode or choose_mode(learner, bank, progress), progress)
            state["mode"] = asdict(mode)
        step = step_of(learner, bank, forward)
        for number in numbers:
            if capturing and number == numbers.start + WARM_UP:
                captured = capture(learner, step, progress)
                capturing, step = captured is not None, captured or step
                del captured
            set_rate(learner.optimizer, learning_rate(number, settings, val_losses))
            unread.append(step().clone())
            done = number + 1
            validating = done % settings.validate_every == 0 or done == settings.steps
            if validating or not on_cuda or len(unread) == READ_EVERY:
                losses += _read(unread, done)
            if validating:
                val_losses.append(_finite(validate(learner, bank, mode), done))
                if val_losses[-1] <= min(val_losses):
                    best = weights(learner.net)
                if waited(val_losses) >= (settings.stop_after or math.inf):
                    checkpoints.save(checkpoint, learner, best, {**state, "step": settings.steps})
                    message = f"ends after {done} steps: {settings.stop_after} validations without a new minimum"
                    progress(Event("train", values={"message": message}))
                    progress(Event("train", settings.steps, settings.steps, _shown(losses, val_losses)))
                    return _trained(learner, best, losses, val_losses, mode)
                if done == settings.steps or distributed.shared(time.monotonic() > saved + SAVE_EVERY):
                    checkpoints.save(checkpoint, learner, best, {**state, "step": done})
                    saved = time.monotonic()
            progress(Event("train", done, settings.steps, _shown(losses, val_losses)))
        # Both hold memory of the device, which must be free when the next bank comes.
        del bank, step
    return _trained(learner, best, losses, val_losses, mode)


def _trained(
    learner: Learner,
    best: Mapping[str, Tensor],
    losses: Sequence[float],
    val_losses: Sequence[float],
    mode: Mode | None,
) -> Trained:
    every, steps = learner.config.train.validate_every, learner.config.train.steps
    val_step = [float(min((i + 1) * every, steps)) for i in range(len(val_losses))]
    history = {"loss": losses, "val_step": val_step, "val_loss": val_losses}
    return Trained(on_processor(best), on_processor(weights(learner.net)), history, mode or Mode())


def waited(losses: Sequence[float]) -> int:
    """Return how many validations ago the lowest loss was first reached."""
    return len(losses) - 1 - losses.index(min(losses))


def validate(learner: Learner, bank: Bank, mode: Mode) -> float:
    """Return the mean loss over the held-out patches, with the same noise at every call; that of the first process."""
    total, count, size = 0.0, len(bank.validation_depth), learner.config.train.batch
    if distributed.rank() == 0:
        forward = forward_of(learner.net, learner.device, Mode(mode.precision))
        generator = torch.Generator(learner.data_device).manual_seed(seed_of(*learner.seed, 4))
        with torch.no_grad():
            for start in range(0, count, size):
                images = {name: patches[start : start + size] for name, patches in bank.validation.items()}
                depth = bank.validation_depth[start : start + size]
                x, y, weight = learner.sample(images, depth, generator)
                total += float(LOSSES[learner.config.train.loss](forward(x), y, weight)) * len(depth)
    return distributed.shared(total / count)


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


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use the thread count the run began with: one and two threads train to different weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _at_work_on(device: str) -> AbstractContextManager[object]:
    """Return what a device wants around a training."""
    if device.startswith("cuda"):
        # A graph is captured on a stream other than the default one, and nothing may lie between the two.
        return torch.cuda.stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]
    return heap.kept() if device == "cpu" else nullcontext()


def _rounds(learner: Learner, sources: Sequence[Source], start: int) -> Iterator[tuple[range, Bank]]:
    """Yield the numbers of the steps that share a bank, and the bank."""
    total = learner.config.train.steps
    length = learner.config.task.get("round_steps", total)
    while start < total:
        round, seed = start // length, seed_of(*learner.seed, 3)
        with heap.given_back():
            bank = learner.task.prepare(sources, learner.fit, learner.config, seed=seed, round=round)
        end = total if bank.complete else min(total, (round + 1) * length)
        bank = bank.to(learner.data_device)
        yield range(start, end), bank
        del bank
        start = end


def _read(unread: list[Tensor], done: int) -> list[float]:
    """Return the losses of the last steps, and forget them where they lay."""
    values: list[float] = torch.stack(unread).tolist()
    for i, value in enumerate(values):
        _finite(value, done - len(values) + i + 1)
    unread.clear()
    return values


def _finite(loss: float, step: int) -> float:
    """Return a loss.

    Raises:
        InputError: it is not finite.
    """
    if not math.isfinite(loss):
        raise InputError(f"the loss is not finite at step {step}; lower train.learning_rate")
    return loss


def _shown(losses: Sequence[float], val_losses: Sequence[float]) -> dict[str, float]:
    shown = {"loss": sum(losses[-50:]) / len(losses[-50:])} if losses else {}
    return shown | ({"val": val_losses[-1]} if val_losses else {})

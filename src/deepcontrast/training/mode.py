"""How the network is computed: in which precision, compiled or not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from deepcontrast.compute.layout import channels_last
from deepcontrast.compute.precision import autocast, has_bfloat16, try_out
from deepcontrast.config import Config
from deepcontrast.progress import Event, Progress
from deepcontrast.task import Bank
from deepcontrast.training import distributed
from deepcontrast.training.learner import Learner

Forward = Callable[[Tensor], Tensor]
TRIED = 4
"""Patches of a trial: with fewer, what a step costs whatever its batch would decide for large networks."""
GAIN = 1.1
"""bfloat16 is used on a processor where a trial is this much faster: a tie does not pay for its rounding."""


@dataclass(frozen=True)
class Mode:
    """How the network is computed; a resumed run computes as it began.

    Attributes:
        precision: of the convolutions, ``"float32"`` or ``"bfloat16"``; weights, Adam and the loss are float32.
        compiled: whether by ``torch.compile``.
    """

    precision: str = "float32"
    compiled: bool = False

    def settle(self, config: Config) -> Config:
        """Return the settings with this precision."""
        return config.model_copy(update={"train": config.train.model_copy(update={"precision": self.precision})})


def choose_mode(learner: Learner, bank: Bank, progress: Progress) -> Mode:
    """Return the fastest mode that the device is known for, in the precision that the settings ask for.

    ``train.precision = "auto"``: bfloat16 on a GPU that has it; on a processor that has it where a trial of about a
    second, with a copy of the network and generators of its own, finds it faster.
    """
    wanted = learner.config.train.precision
    if learner.device.startswith("cuda"):
        if wanted == "auto":
            wanted = "bfloat16" if has_bfloat16(learner.device) else "float32"
        return Mode(wanted, compiled=True)
    if wanted != "auto":
        return Mode(wanted)
    if not is_tried(learner.config, learner.device):
        return Mode("float32")
    return distributed.shared(_tried(learner, example(learner, bank)[:TRIED], progress))


def is_tried(config: Config, device: str) -> bool:
    """Return whether a trial decides on the precision."""
    return config.train.precision == "auto" and not device.startswith("cuda") and has_bfloat16(device)


def work_out(learner: Learner, bank: Bank, mode: Mode, progress: Progress) -> tuple[Forward, Mode]:
    """Return the network as a function in a mode, or in a simpler one that works here, which is said, and that mode.

    Nothing that training changes is touched by trying.
    """
    while mode.compiled or mode.precision != "float32":
        try:
            batch = example(learner, bank)
            if mode.precision == "bfloat16" and learner.device == "cpu" and sees_few_planes(learner.net, batch):
                raise RuntimeError("gradients are wrong where a kernel is longer than the planes it sees")
            _probe(forward_of(learner.net, learner.device, mode), batch)
            break
        except Exception as error:
            left_out = "torch.compile" if mode.compiled else mode.precision
            mode = replace(mode, compiled=False) if mode.compiled else replace(mode, precision="float32")
            progress(without(left_out, error))
        finally:
            learner.optimizer.zero_grad(set_to_none=True)
    return forward_of(learner.net, learner.device, mode, averaged=True), mode


def forward_of(net: nn.Module, device: str, mode: Mode, *, averaged: bool = False) -> Forward:
    """Return the network as a function of (N, 1, ...); ``averaged``: its gradients are the mean over all processes."""
    used: nn.Module = torch.compile(net, dynamic=False) if mode.compiled else net  # type: ignore[assignment]
    if averaged:
        used = distributed.averaging(used)

    def forward(x: Tensor) -> Tensor:
        with autocast(device, mode.precision):
            y: Tensor = used(x.contiguous(memory_format=channels_last(x.ndim)))
        return y

    return forward


def sees_few_planes(net: nn.Module, x: Tensor) -> bool:
    """Return whether a convolution in space sees more planes than one and fewer than its kernel has.

    On a processor torch (2.13 with oneDNN) then gives wrong, random gradients of its weights in bfloat16, and no error.
    """
    found = []

    def look(conv: nn.Module, given: tuple[Tensor, ...]) -> None:
        planes, [weight, *_] = given[0].shape[2], conv.parameters()
        found.append(1 < planes < weight.shape[2])

    convs = [one for one in net.modules() if getattr(getattr(one, "weight", None), "ndim", 0) == 5]
    hooks = [conv.register_forward_pre_hook(look) for conv in convs]
    try:
        with torch.no_grad():
            net(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return any(found)


def example(learner: Learner, bank: Bank) -> Tensor:
    """Return the input of one batch, drawn by generators of its own."""
    patches, noise = (torch.Generator(learner.data_device).manual_seed(0) for _ in range(2))
    return learner.draw(bank, patches, noise)[0]


def without(part: str, error: Exception) -> Event:
    """Return the message that training goes on without a part that fails here."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return Event("train", values={"message": f"goes on without {part} ({type(error).__name__}: {reason})"})


def _tried(learner: Learner, x: Tensor, progress: Progress) -> Mode:
    net = copy.deepcopy(learner.net)

    def work(precision: str) -> None:
        _probe(forward_of(net, learner.device, Mode(precision)), x)

    try:
        seconds = try_out(work, ("float32", "bfloat16"))
    except Exception as error:
        progress(without("bfloat16", error))
        return Mode("float32")
    gain = seconds["float32"] / seconds["bfloat16"]
    chosen = "bfloat16" if gain >= GAIN else "float32"
    message = f"computes in {chosen}: in a trial, bfloat16 was {gain:.2f} times as fast as float32"
    progress(Event("train", values={"message": message, "precision": chosen}))
    return Mode(chosen)


def _probe(forward: Forward, x: Tensor) -> None:
    forward(x).sum().backward()  # type: ignore[no-untyped-call]

"""What training changes: the network, Adam's moments, and the generators of everything random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepcontrast.compute.layout import placed
from deepcontrast.config import Config, Train
from deepcontrast.patches import draw
from deepcontrast.task import Bank, Task
from deepcontrast.training import distributed


@dataclass(frozen=True, eq=False)
class Learner:
    """A network in training.

    Attributes:
        task: a module of ``tasks/``.
        fit: what ``task.fit`` gave.
        config: the settings.
        device: where the network is.
        data_device: where patches are drawn and degraded.
        seed: the numbers that every seed of this training is made of.
        net: the network, on ``device``.
        optimizer: Adam.
        patches: draws places and orientations of patches.
        noise: draws what ``task.sample`` needs.
    """

    task: Task
    fit: Any
    config: Config
    device: str
    data_device: str
    seed: tuple[int, ...]
    net: nn.Module
    optimizer: torch.optim.Optimizer
    patches: torch.Generator
    noise: torch.Generator

    def draw(
        self, bank: Bank, patches: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return input, target and weight of a batch of random patches, on the network's device."""
        settings = self.config.train
        return self.sample(*draw(bank, settings.batch, self.fit.patch, patches, augment=settings.augment), noise)

    def sample(
        self, images: Mapping[str, Tensor], depth: Tensor, noise: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return input, target and weight of patches, on the network's device."""
        x, y, weight = self.task.sample(images, depth, self.fit, noise, self.config)
        return x.to(self.device), y.to(self.device), None if weight is None else weight.to(self.device)


def new_learner(task: Task, fit: Any, config: Config, *, member: int, device: str) -> Learner:
    """Return a network with its first weights; every process draws patches of its own."""
    seed = (config.train.seed, member)
    # Only CUDA can draw Poisson numbers on the device; elsewhere batches are made on the processor.
    data_device = device if device.startswith("cuda") else "cpu"
    own = (distributed.rank(),) if distributed.rank() else ()
    net = task.build(fit, config)
    initialise(net, torch.Generator().manual_seed(seed_of(*seed, 2)))
    placed(net, device)
    return Learner(
        task=task,
        fit=fit,
        config=config,
        device=device,
        data_device=data_device,
        seed=seed,
        net=net,
        optimizer=adam(net, config.train, device),
        patches=torch.Generator(data_device).manual_seed(seed_of(*seed, 0, *own)),
        noise=torch.Generator(data_device).manual_seed(seed_of(*seed, 1, *own)),
    )


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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; where it is a tensor in place, so that a captured step sees it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def seed_of(*parts: int) -> int:
    """Return one seed for a path of numbers; close paths give unrelated seeds."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 1)) * 0xBF58476D1CE4E5B9) % 2**64
        value ^= value >> 31
    return value >> 1


def adam(net: nn.Module, settings: Train, device: str) -> torch.optim.Optimizer:
    """Return Adam for a device; on a GPU nothing of it is on the processor, so that a graph can hold it."""
    rate, epsilon = settings.learning_rate, settings.epsilon
    if not device.startswith("cuda"):
        # Not the fused kernel: on the processor it takes the layouts of weight and gradient for equal without a look.
        return torch.optim.Adam(net.parameters(), lr=rate, eps=epsilon, foreach=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, eps=epsilon, fused=True, capturable=True)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(rate, device=device)
    return optimizer

"""Train a network on one stack and apply it, with any part replaced: what every experiment does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.experiments import Subject
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.progress import Progress
from deepcontrast.task import Source
from deepcontrast.training import train

Volume = NDArray[np.float32]
SHOWN = 3
"""Iterations at which results are compared: the paper's best for liver; fewer where the settings allow fewer."""


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network and all it needs to be applied.

    Attributes:
        task: what it restores.
        net: the network, ready to predict.
        fit: numbers of the stack it was trained on.
        config: the settings.
        device: where it runs.
    """

    task: Any
    net: nn.Module
    fit: Any
    config: Config
    device: str

    def passes(self, volume: Volume, times: int, *, fit: Any = None, progress: Progress) -> list[Volume]:
        """Return the results of 1 .. ``times`` applications to a clean volume (Z, Y, X), in grey levels.

        Args:
            volume: without camera pattern and empty voxels.
            times: how often the network is applied.
            fit: the numbers to apply it with; its own where ``None``.
            progress: gets events.
        """
        used = self.fit if fit is None else fit
        found = [volume]
        for k in range(1, times + 1):
            out = np.empty(volume.shape, np.float32)
            predict_pass(
                self.task, [self.net], found[-1], used, self.config, out=out, device=self.device,
                progress=progress, stage=f"predict {k}/{times}",
            )  # fmt: skip
            found.append(out)
        return found[1:]


def source_of(subject: Subject) -> Source:
    """Return the first time point and channel of a subject."""
    return Source(subject.stack, 0, 0, depths(subject.stack))


def clean(network: Network, source: Source) -> Volume:
    """Return the stack a network was trained on, as it saw it (Z, Y, X)."""
    volume: Volume = network.task.clean(source.volume(), network.fit, source.invalid)
    return volume


def seeded(config: Config, seed: int, **net: Any) -> Config:
    """Return the settings with a seed of training and, where given, other fields of the network."""
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"seed": seed}),
            "net": config.net.model_copy(update=net),
        }
    )


def task_of(config: Config) -> Any:
    """Return the task that the settings name."""
    return registry.load("tasks", config.task_name)


def learned(
    source: Source, config: Config, *, task: Any = None, fit: Any = None, device: str, progress: Progress
) -> Network:
    """Return a network trained on one stack.

    Args:
        source: the stack.
        config: the settings, the seed among them.
        task: what is restored; by default what the settings name.
        fit: numbers of the stack; by default they are estimated.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.
    """
    task = task_of(config) if task is None else task
    fit = task.fit([source], config, progress=progress) if fit is None else fit
    trained = train(task, [source], fit, config, device=device, progress=progress)
    weights = trained.last if config.train.keep == "last" else trained.best
    [net] = load_nets(task, [weights], fit, config, device)
    return Network(task, net, fit, config, device)


def like(source: Source, volume: Volume) -> Source:
    """Return a source of other voxels (Z, Y, X) at the same depths; invalid voxels stay as they were."""
    known = source.invalid.valid
    whole = volume if known is None else np.where(known, volume, source.volume().astype(np.float32))
    stack = replace(source.stack, array=whole, axes="ZYX", channels=())
    return Source(stack, 0, 0, source.depth)


def shown_planes(depth: NDArray[np.float64], count: int = 3) -> Sequence[int]:
    """Return planes at evenly spaced depths from deep to shallow, the ends of the stack left out."""
    order = np.argsort(depth, kind="stable")[::-1]
    places = (np.arange(count) + 0.5) / count * len(order)
    return [int(order[int(place)]) for place in places]

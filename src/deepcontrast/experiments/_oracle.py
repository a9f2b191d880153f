"""A network that was told the truth: how far any network of the same size and input could get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.experiments import Subject
from deepcontrast.experiments._networks import Network, Volume, clean, source_of, task_of
from deepcontrast.prediction import load_nets
from deepcontrast.progress import Progress
from deepcontrast.task import Bank, Source
from deepcontrast.training import train

BRIGHT = 99
"""Percentile of the truth that is 1, as that of the raw is."""


@dataclass(frozen=True, eq=False)
class Truthful:
    """A task whose targets are the truths of its stacks, as bright as the result of a network is."""

    task: Any
    truths: Sequence[Volume]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def prepare(self, sources: Sequence[Source], fit: Any, config: Config, *, seed: int, round: int) -> Bank:
        """Return the task's bank, the truths beside its images; the validation stays without, and is not looked at."""
        bank: Bank = self.task.prepare(sources, fit, config, seed=seed, round=round)
        if not bank.complete:
            raise InputError("the oracle needs all planes of its stacks at once; raise task.bank_mb")
        truth = np.concatenate([one / np.float32(np.percentile(one, BRIGHT)) for one in self.truths])
        blank = {**bank.validation, "truth": torch.zeros_like(bank.validation["raw"])}
        return replace(bank, images={**bank.images, "truth": torch.from_numpy(truth).flatten()}, validation=blank)

    def sample(
        self, batch: Mapping[str, Tensor], depth: Tensor, fit: Any, generator: torch.Generator, config: Config
    ) -> tuple[Tensor, Tensor, None]:
        """Return the raw planes with their neighbours, and the truth of each; or slabs, and the truth of all planes."""
        del depth, generator, config
        raw, truth = fit.norm(batch["raw"]), batch["truth"]
        if fit.in_space:
            return raw.unsqueeze(1), truth.unsqueeze(1), None
        return raw, truth.narrow(1, len(fit.layers) // 2, 1), None


def oracle(subject: Subject, others: Sequence[Subject], config: Config, *, device: str, progress: Progress) -> Volume:
    """Return the result (Z, Y, X) of a network that was trained on the truths of other stacks.

    Args:
        subject: what is restored, once.
        others: stacks of the same kind, whose truth is known.
        config: network, input and steps.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.
    """
    config = config.model_copy(update={"train": config.train.model_copy(update={"keep": "last"})})
    task = task_of(config)
    sources = [source_of(other) for other in others]
    fit = task.fit(sources, config, progress=progress)
    truthful: Any = Truthful(task, [np.asarray(other.truth, np.float32) for other in others])
    weights = train(truthful, sources, fit, config, device=device, progress=progress).last
    [net] = load_nets(task, [weights], fit, config, device)
    network, source = Network(task, net, fit, config, device), source_of(subject)
    return network.passes(clean(network, source), 1, progress=progress)[0]

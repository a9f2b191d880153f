"""What a resumed run needs to end in the same weights, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepcontrast.errors import ModelFileError
from deepcontrast.model import load_tensors, save_tensors
from deepcontrast.training import distributed
from deepcontrast.training.learner import Learner


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint.

    Attributes:
        tensors: weights, the best weights, Adam's moments and the generators' states, by name.
        state: number of steps done, losses, thread count and mode.
    """

    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


def save(path: Path | None, learner: Learner, best: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the first process writes, the others hand it their generators' states."""
    generators = distributed.gathered((learner.patches.get_state(), learner.noise.get_state()))
    if path is None or distributed.rank():
        return
    tensors = {f"net.{k}": v for k, v in on_processor(weights(learner.net)).items()}
    tensors |= {f"best.{k}": v for k, v in on_processor(best).items()}
    for i, moments in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v.detach().to("cpu", copy=True) for k, v in moments.items()}
    for process, (patches, noise) in enumerate(generators):
        tensors |= {f"generator.{process}.patches": patches, f"generator.{process}.noise": noise}
    save_tensors(path, tensors, {"checkpoint": dict(state)})


def read(path: Path | None) -> Saved | None:
    """Return what :func:`save` wrote, read by the first process for all; ``None`` where nothing was.

    Raises:
        ModelFileError: the file is damaged, or no checkpoint.
    """
    saved = None
    if path is not None and distributed.rank() == 0 and path.exists():
        tensors, table = load_tensors(path)
        if "checkpoint" not in table:
            raise ModelFileError(f"'{path}' is not a checkpoint")
        saved = Saved(tensors, dict(table["checkpoint"]))
    return distributed.shared(saved)


def restore(learner: Learner, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put weights, moments and generators back; return the best weights.

    Raises:
        ModelFileError: they are of another network, or of fewer processes.
    """
    own = f"generator.{distributed.rank()}"
    try:
        learner.net.load_state_dict(_under("net.", tensors))
        adam = learner.optimizer.state_dict()
        moments = {}
        for i, weight in enumerate(learner.net.parameters()):
            # Files hold tensors in plain order; Adam wants its moments in the order of the weights.
            moments[i] = {
                k: v if v.ndim == 0 else torch.empty_like(weight, device="cpu").copy_(v)
                for k, v in _under(f"adam.{i}.", tensors).items()
            }
        learner.optimizer.load_state_dict({**adam, "state": moments})
        learner.patches.set_state(tensors[f"{own}.patches"])
        learner.noise.set_state(tensors[f"{own}.noise"])
        return _under("best.", tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"the checkpoint does not fit this run: {error}") from None


def weights(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights, on their device: the best ones change often, and are wanted once."""
    return {name: t.detach().clone() for name, t in net.state_dict().items()}


def on_processor(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in the processor's memory, in plain order."""
    return {name: t.cpu().contiguous() for name, t in weights.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}

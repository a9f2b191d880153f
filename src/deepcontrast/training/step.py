"""One step: draw, degrade, predict, compare, descend; kernel by kernel, or as one captured CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deepcontrast.losses import LOSSES
from deepcontrast.progress import Progress
from deepcontrast.task import Bank
from deepcontrast.training.learner import Learner
from deepcontrast.training.mode import Forward, without

Step = Callable[[], Tensor]
WARM_UP = 3
"""Steps before a graph is captured: in them libraries make their workspaces, and Adam its moments."""


def step_of(learner: Learner, bank: Bank, forward: Forward) -> Step:
    """Return a function that takes one step and returns its loss, which stays on the network's device."""
    loss_of, clip = LOSSES[learner.config.train.loss], learner.config.train.clip

    def step() -> Tensor:
        x, y, weight = learner.draw(bank, learner.patches, learner.noise)
        loss = loss_of(forward(x), y, weight)
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if clip:
            torch.nn.utils.clip_grad_norm_(learner.net.parameters(), clip)
        learner.optimizer.step()
        return loss.detach()

    return step


def capture(learner: Learner, step: Step, progress: Progress) -> Step | None:
    """Return a step as one CUDA graph, every loss in the same place; ``None``, and a message, where that fails.

    Capturing computes nothing, so neither weights nor generators move by it.
    """
    generators = (learner.patches, learner.noise)
    before = [generator.clone_state() for generator in generators]
    # Gradients that are made inside of the graph lie where every replay finds them.
    learner.optimizer.zero_grad(set_to_none=True)
    try:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            loss = step()
    except Exception as error:
        # A generator whose capture broke off would go on as if it were still captured.
        for generator, state in zip(generators, before, strict=True):
            generator.graphsafe_set_state(state)
        learner.optimizer.zero_grad(set_to_none=True)
        # What broke the capture off, not what was said of it at its end.
        progress(without("a CUDA graph", error.__context__ if isinstance(error.__context__, Exception) else error))
        return None

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay

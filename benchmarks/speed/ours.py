"""What DeepContrast costs. Runs in the environment that run.py runs in.

    python ours.py training|prediction CASE float32|bfloat16 THREADS

The step is the trainer's own on a batch in memory, as for the peers; the prediction is ``predict_pass`` with the plan
that it makes itself.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from networks import FEATURES, LEARNING_RATE, Case
from protocol import Order, serve
from torch import Tensor, nn

from deepcontrast import __version__
from deepcontrast.compute import heap
from deepcontrast.compute.layout import channels_last
from deepcontrast.config import Config, Predict, Train
from deepcontrast.nets.unet import unet
from deepcontrast.prediction import predict_pass
from deepcontrast.task import Geometry
from deepcontrast.training.learner import Learner, initialise, new_learner
from deepcontrast.training.mode import Mode, forward_of
from deepcontrast.training.step import step_of

VERSIONS = f"deepcontrast {__version__}, torch {torch.__version__}"


class InMemory(Learner):
    """A network in training whose batch is always the same: the peers' have no degradation either."""

    def draw(self, bank: Any, *_: object) -> tuple[Tensor, Tensor, None]:
        return (*bank, None)


def training(case: Case, precision: str) -> None:
    config = Config(train=Train(loss="mae", learning_rate=LEARNING_RATE))
    task = SimpleNamespace(build=lambda *_: network(case))
    learner = InMemory(**vars(new_learner(task, None, config, member=0, device="cpu")))
    bank = torch.rand(2, case.batch[0], 1, *case.batch[1:])
    step = step_of(learner, bank, forward_of(learner.net, "cpu", Mode(precision)))
    with heap.kept():
        serve(lambda: float(step()), warm_up=4, parameters=count(learner.net), versions=VERSIONS)


def prediction(case: Case, precision: str) -> None:
    net = network(case).eval()
    initialise(net, torch.Generator().manual_seed(0))
    net.to(memory_format=channels_last(case.dims + 2))
    volume = np.random.default_rng(0).random(case.image, dtype=np.float32)
    out = np.empty_like(volume)
    config = Config(predict=Predict(precision=precision))

    def once() -> None:
        predict_pass(task_of(case), [net], volume, None, config, out=out)

    serve(once, warm_up=1, parameters=count(net), versions=VERSIONS)


def task_of(case: Case) -> Any:
    """Return what the tiler needs to know of a task: planes one by one, or the volume as it is."""
    planes = case.dims == 2

    def geometry(net: Any, *_: object) -> Geometry:
        halo, step = net.halo, net.step
        return Geometry((0, halo, halo), (1, step, step)) if planes else Geometry((halo,) * 3, (step,) * 3)

    def restore(net: nn.Module, tile: Tensor, *_: object) -> dict[str, Tensor]:
        x = tile[:, None] if planes else tile[None, None]
        y = net(x.contiguous(memory_format=channels_last(x.ndim)))
        return {"mean": y[:, 0] if planes else y[0, 0]}

    return SimpleNamespace(geometry=geometry, restore=restore)


def network(case: Case) -> nn.Module:
    return unet(depth=case.depth, features=FEATURES, dims=case.dims)


def count(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


if __name__ == "__main__":
    order = Order.from_command_line()
    torch.set_num_threads(order.threads)
    {"training": training, "prediction": prediction}[order.measure](order.case, order.precision)

"""The networks of a model, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from deepcontrast.compute.layout import placed
from deepcontrast.config import Config
from deepcontrast.errors import ModelFileError
from deepcontrast.task import Task


def load_nets(
    task: Task, members: Sequence[Mapping[str, Tensor]], fit: Any, config: Config, device: str = "cpu"
) -> list[nn.Module]:
    """Return the networks of an ensemble, on a device and in the order of memory that is fastest there.

    Raises:
        ModelFileError: the weights are not those of the network that the settings describe.
    """
    nets = []
    for weights in members:
        net = task.build(fit, config)
        try:
            net.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ModelFileError(f"the weights do not fit the network: {error}") from None
        nets.append(placed(net, device).eval())
    return nets

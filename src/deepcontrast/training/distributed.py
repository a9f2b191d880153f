"""Several processes that train one network, each on patches of its own: what ``torchrun`` starts.

Every function is harmless where there is one process. Gradients are averaged by DistributedDataParallel, so that all
hold the same weights; the first process alone reads and writes files, and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from deepcontrast.errors import DeepContrastError

T = TypeVar("T")


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the processes that ``torchrun`` started beside this one, if it did, until the block ends."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield
    except RuntimeError as error:
        # gloo has no class for it.
        if rank() and (isinstance(error, dist.DistError) or "by peer" in str(error)):
            raise DeepContrastError("the process that leads the training has ended; its own message says why") from None
        raise
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process; 0 is the one that writes."""
    return dist.get_rank() if _joined() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _joined() else 1


def shared(value: T) -> T:
    """Return what the first process gives here; every process must call it."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """Return what every process gives here, by rank; every process must call it."""
    if size() == 1:
        return [value]
    box: list[Any] = [None] * size()
    dist.all_gather_object(box, value)
    return box


def averaging(net: nn.Module) -> nn.Module:
    """Return a network whose gradients are the mean over all processes."""
    return net if size() == 1 else DistributedDataParallel(net)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()

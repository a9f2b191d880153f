"""What the processor could do at best: rates of products and of copies, and what convolutions ask of them.

python floor.py THREADS          (prints the rates as JSON)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from networks import FEATURES, Case
from protocol import cpu_seconds
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from deepcontrast.compute import heap
from deepcontrast.compute.precision import DTYPES, autocast
from deepcontrast.nets.unet import unet

SIDE = 2048
WIDE = (8, 128, 64, 64)
COPIED = 2**28
REPEATS = 15


@dataclass(frozen=True)
class Rates:
    """What a CPU second does: floating-point operations in either precision, bytes read and written."""

    float32: float
    bfloat16: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """What one operation asks for: floating-point operations, and bytes if it reads and writes everything once."""

    flops: int
    bytes: int


def rates() -> Rates:
    """Measure products, the faster of a large square matrix product and a wide convolution, and a copy.

    The best of several: nothing is faster than a floor.

    Which of the two is faster depends on the processor: they come from different libraries.
    """
    products = {}
    for precision in ("float32", "bfloat16"):
        a, b, out = torch.rand(3, SIDE, SIDE).to(DTYPES[precision])
        net = torch.nn.Conv2d(WIDE[1], WIDE[1], 3, padding=1, bias=False, dtype=DTYPES[precision])
        net = net.to(memory_format=torch.channels_last)
        x = torch.rand(WIDE).to(DTYPES[precision]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            square = 2 * SIDE**3 / _seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
            wide = 2 * 9 * WIDE[1] * x.numel() / _seconds(lambda net=net, x=x: net(x))
        products[precision] = max(square, wide)
    source, target = torch.ones(2, COPIED, dtype=torch.uint8)
    return Rates(**products, bytes=2 * COPIED / _seconds(lambda: target.copy_(source)))


def work_of(case: Case, measure: str, precision: str) -> list[Work]:
    """Return what every convolution of a training step, or of a prediction of the whole image, asks for.

    Counted as our network computes it on a processor, without computing. A training step also has Adam, which reads
    weight, gradient and two moments and writes three of them back. Other operations could be part of their neighbours
    and count for nothing.
    """
    training = measure == "training"
    planes = case.image if case.dims == 2 else (1, *case.image)
    shape = case.batch if training else planes
    net = unet(depth=case.depth, features=FEATURES, dims=case.dims)
    noted = _Convolutions()
    with FakeTensorMode(allow_non_fake_inputs=True), noted, torch.set_grad_enabled(training):
        with autocast("cpu", precision):
            y = net(torch.empty(shape[0], 1, *shape[1:]))
        if training:
            y.float().mean().backward()
    adam = 7 * 4 * sum(weight.numel() for weight in net.parameters())
    return [*noted.work, *([Work(0, adam)] if training else [])]


def floor_seconds(work: Sequence[Work], flops: float, bytes: float) -> float:
    """Return the least CPU seconds: every operation is held up by its products or by its bytes, by the slower."""
    return sum(max(part.flops / flops, part.bytes / bytes) for part in work)


class _Convolutions(TorchDispatchMode):
    """Notes what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[Work] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            tensors = [leaf for leaf in tree_leaves((args, out)) if isinstance(leaf, torch.Tensor)]
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.work.append(Work(count(*args, **(kwargs or {}), out_val=out), size))
        return out


def _seconds(work: Callable[[], object]) -> float:
    found = []
    with heap.kept():
        for _ in range(REPEATS + 1):
            start = cpu_seconds()
            work()
            found.append(cpu_seconds() - start)
    return min(found[1:])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(asdict(rates())))

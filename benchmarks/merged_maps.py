"""What upsampling and joining as one transposed convolution saves, in CPU seconds, beside the usual way.

    python benchmarks/merged_maps.py [--threads 1] [--repeats 5]

Training steps (L1 loss, Adam, the heap kept) and predictions of U-Nets of 32 features, both ways in turns; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from deepcontrast.compute import heap
from deepcontrast.compute.layout import channels_last
from deepcontrast.nets import unet
from deepcontrast.training import initialise, threads

CASES = {
    "2D depth 2": (2, 2, (16, 1, 128, 128)),
    "2D depth 5": (2, 5, (4, 1, 128, 128)),
    "3D depth 2": (3, 2, (1, 1, 32, 64, 64)),
}
WAYS = {"joined": 10**12, "merged": 0, "as shipped": unet.FEW}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{'network':11} {'precision':9} {'way':11} CPU s / step   CPU s / prediction")
    with threads(options.threads), heap.kept():
        for name, (dims, depth, shape) in CASES.items():
            for reduced in (False, True):
                seconds = measure(dims, depth, shape, reduced, options.repeats)
                for way, (step, forward) in seconds.items():
                    print(
                        f"{name:11} {'bfloat16' if reduced else 'float32':9} {way:11} {step:12.3f} {forward:20.3f}",
                        flush=True,
                    )


def measure(
    dims: int, depth: int, shape: tuple[int, ...], reduced: bool, repeats: int
) -> dict[str, tuple[float, float]]:
    """Return, for every way, the median CPU seconds of a step and of a prediction."""
    generator = torch.Generator().manual_seed(0)
    net = unet.unet(depth=depth, features=32, dims=dims)
    initialise(net, generator)
    order = channels_last(dims + 2)
    net.to(memory_format=order)
    x, y = (torch.rand(shape, generator=generator).contiguous(memory_format=order) for _ in range(2))
    optimizer = torch.optim.Adam(net.parameters(), foreach=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            result = net(x)
        (result.float() - y).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def predict() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            net(x)

    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(repeats + 1):
        for way, few in WAYS.items():
            unet.FEW = few
            one = (timed(step), timed(predict))
            # The first round prepares the kernels.
            if number:
                found[way].append(one)
    unet.FEW = WAYS["as shipped"]
    return {way: tuple(map(statistics.median, zip(*rows, strict=True))) for way, rows in found.items()}  # type: ignore[misc]


def timed(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()

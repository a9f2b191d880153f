"""Whether training in bfloat16 is as good as in float32: validation losses of both, over seeds, and their CPU seconds.

    python benchmarks/bfloat16.py [--steps 2000] [--seeds 5] [--threads N] [--set net.depth=5 ...]

One simulated stack of tissue, the default recipe; per seed other first weights, patches and noise, and for both
precisions the same ones. Every loss is computed in float32 with the weights after the last step, on the same held-out
patches with the same noise. bfloat16 counts as equal if the mean of its losses lies within the smallest and the
largest of float32.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source
from deepcontrast.training import Mode, threads, train, validate
from deepcontrast.training.learner import new_learner


def configured(steps: int, seed: int, precision: str, settings: list[str]) -> Config:
    """Return the default recipe in a precision; validated only at the end."""
    own = [
        f"train.steps={steps}",
        f"train.validate_every={steps}",
        f"train.precision={precision}",
        f"train.seed={seed}",
    ]
    return load_recipe("contrast", [*settings, *own])


def measure(
    task: Any, sources: list[Source], fit: Any, steps: int, seed: int, precision: str, settings: list[str]
) -> tuple[float, float]:
    """Return the validation loss of one training, and its CPU seconds a step."""
    config = configured(steps, seed, precision, settings)
    begun = time.process_time()
    trained = train(task, sources, fit, config)
    seconds = (time.process_time() - begun) / steps
    judge = new_learner(task, fit, configured(steps, 0, "float32", settings), member=0, device="cpu")
    judge.net.load_state_dict(trained.last)
    bank = task.prepare(sources, fit, judge.config, seed=0, round=0)
    return validate(judge, bank, Mode()), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; repeatable")
    given = parser.parse_args()
    task = registry.load("tasks", "contrast")
    stack = Stack(
        tissue(shape=(48, 256, 256), seed=0, light=50).raw, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first")
    )
    sources = [Source(stack, 0, 0, depths(stack))]
    found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    spent: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with threads(given.threads):
        # One fit for all: camera, blur and held-out squares are no part of what is compared.
        fit = task.fit(sources, configured(given.steps, 0, "float32", given.set))
        print(f"{'seed':>4}  {'precision':<9}  validation loss  CPU s / step")
        for seed in range(given.seeds):
            for precision in found:
                loss, seconds = measure(task, sources, fit, given.steps, seed, precision, given.set)
                found[precision].append(loss)
                spent[precision].append(seconds)
                print(f"{seed:>4}  {precision:<9}  {loss:<15.6f}  {seconds:.3f}", flush=True)
    for precision, losses in found.items():
        low, mean, high, seconds = min(losses), np.mean(losses), max(losses), np.median(spent[precision])
        print(f"{precision}: mean {mean:.6f}, {low:.6f} to {high:.6f}; {seconds:.3f} CPU s a step (median)")
    inside = min(found["float32"]) <= np.mean(found["bfloat16"]) <= max(found["float32"])
    gain = np.median(spent["float32"]) / np.median(spent["bfloat16"])
    count = sum(min(found["float32"]) <= loss <= max(found["float32"]) for loss in found["bfloat16"])
    print(f"{count} of {given.seeds} losses of bfloat16 lie in the range of float32")
    print(f"{'equal' if inside else 'not equal'}; bfloat16 takes {gain:.2f} times less CPU time")


if __name__ == "__main__":
    main()

"""Does training on a stack succeed, whatever the first weights are? Figures of docs/decisions.md.

    python benchmarks/learned.py STACK [STACK ...] [--seeds 0,1,2,3] [--set KEY=VALUE ...]

For every seed the recipe is trained on the stack's first channel and time point. The middle planes are degraded as
for training, without sharing out or adding noise, and restored. `left` is the error of what is restored over that of
the degraded planes themselves, root mean square, the raw being right: 1 says that the network does nothing. What it
cannot know of the raw, its noise, keeps it above 0. `alive` is the share of the last layer's maps that are not 0
everywhere.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.depth import depths, find_surface
from deepcontrast.io import open_stack
from deepcontrast.prediction import load_nets
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.task import Source
from deepcontrast.training import train

PLANES = 4
TASK: Any = registry.load("tasks", "contrast")


def source_of(stack: Stack) -> Source:
    """Return the first time point of the first channel, with its surface."""
    surface, _ = find_surface(stack.frame(0, 0))
    stack = replace(stack, optics=replace(stack.optics, surface=surface))
    return Source(stack, 0, 0, depths(stack))


def learned(source: Source, config: Config) -> tuple[float, float, float]:
    """Return what is left of the degradation, the share of the last maps that are alive, and processor seconds."""
    began = time.process_time()
    fit = TASK.fit([source], config)
    trained = train(TASK, [source], fit, config)
    took = time.process_time() - began
    [net] = load_nets(TASK, [trained.best], fit, config)
    alive: list[float] = []

    def look(_: Any, inputs: tuple[Tensor, ...]) -> None:
        alive.append(float((inputs[0].abs().amax(dim=(0, *range(2, inputs[0].ndim))) > 0).float().mean()))

    net.last.register_forward_pre_hook(look)  # type: ignore[union-attr]
    raw: NDArray[np.float32] = TASK.clean(source.volume(), fit, source.invalid)
    worse = TASK.degrade(source, fit, config, torch.Generator().manual_seed(config.train.seed))
    reach, first = max(fit.layers), (len(raw) - PLANES) // 2
    if first < reach:
        raise SystemExit(f"the stack has {len(raw)} planes; accepted: at least {PLANES + 2 * reach}")
    step = int(net.step)  # type: ignore[arg-type]
    y, x = (slice(0, length // step * step) for length in raw.shape[1:])
    planes = (slice(first, first + PLANES), y, x)
    with torch.no_grad():
        tile = torch.from_numpy(worse[first - reach : first + PLANES + reach, y, x])
        restored = TASK.restore(net, tile, fit, config)["mean"].numpy()
    if fit.in_space:
        restored = restored[reach : reach + PLANES]
    error = [float(np.sqrt(np.mean((image - raw[planes]) ** 2))) for image in (restored, worse[planes])]
    return error[0] / error[1], alive[-1], took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--recipe", default="contrast")
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| stack | seed | left | alive | CPU s |\n|---|---|---|---|---|", flush=True)
    for path in given.stacks:
        source = source_of(open_stack(path))
        for seed in given.seeds.split(","):
            left, alive, took = learned(source, load_recipe(given.recipe, given.settings, train__seed=int(seed)))
            print(f"| {path.name} | {seed} | {left:.3f} | {alive:.2f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()

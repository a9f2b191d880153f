"""What training and prediction cost on a CUDA device; where there is none, one line says so.

    python benchmarks/gpu.py [--schedule] [--set net.kernel=5 ...]

A step is all of it: patches drawn and degraded, network, loss, Adam; depth 5, 32 features, 16 x 128 x 128 voxels, from
kernel by kernel in float32 to one captured graph. The published schedule is extrapolated from it; ``--schedule`` runs
it, with its checkpoints. Prediction is that of a 3D network of depth 2 with 32 features, 100 x 1024 x 1024 voxels, from
memory to memory and from file to file. Time on the clock, the device waited for; medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepcontrast import registry
from deepcontrast.compute.layout import channels_last
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.io import open_stack, write_stack
from deepcontrast.nets.unet import unet
from deepcontrast.prediction import make_plan, predict_pass
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Geometry, Source
from deepcontrast.training import Mode, initialise, train, validate
from deepcontrast.training.learner import new_learner
from deepcontrast.training.mode import work_out
from deepcontrast.training.step import WARM_UP, capture, step_of

STEPS = 90_000
PUBLISHED = ("net.depth=5", "net.features=32", "train.batch=16", "train.patch=128", "train.validate_every=200")
OPTICS = Optics(voxel_size=(0.3, 0.3, 0.3), surface="first")


def say(event: Event) -> None:
    if "message" in event.values:
        print(f"  {event.values['message']}", flush=True)


def seconds(work: Callable[[], object], count: int, rounds: int = 5) -> float:
    """Return the median of what one call takes, of several rounds of so many calls."""
    found = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(count):
            work()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - begun) / count)
    return statistics.median(found)


def measure_steps(task: Any, sources: list[Source], fit: Any, config: Config) -> None:
    """Print what a step takes in every mode, and the published schedule in the last one."""
    eager = 0.0
    for mode in (Mode(), Mode("bfloat16"), Mode("bfloat16", compiled=True)):
        learner = new_learner(task, fit, config, member=0, device="cuda")
        bank = task.prepare(sources, fit, config, seed=0, round=0).to("cuda")
        forward, found = work_out(learner, bank, mode, say)
        step = step_of(learner, bank, forward)
        for _ in range(WARM_UP):
            step()
        plain = seconds(step, 50)
        eager = eager or plain
        taken = seconds(capture(learner, step, say) or step, 200)
        faster = f"{eager / taken:.2f} times faster than eager float32"
        print(f"{found}: {1e3 * plain:.2f} ms a step, captured {1e3 * taken:.2f} ms, {faster}", flush=True)
    validation = seconds(lambda: validate(learner, bank, found), 1)
    total = STEPS * taken + STEPS / config.train.validate_every * validation
    print(f"{STEPS} steps: {total:.0f} s expected, a validation being {1e3 * validation:.1f} ms", flush=True)


def run_schedule(task: Any, sources: list[Source], fit: Any, config: Config) -> None:
    """Print what the published schedule took."""
    with tempfile.TemporaryDirectory() as folder:
        begun, path = time.perf_counter(), Path(folder) / "checkpoint.safetensors"
        trained = train(task, sources, fit, config, checkpoint=path, device="cuda", progress=say)
    taken, loss = time.perf_counter() - begun, trained.history["val_loss"][-1]
    print(f"{config.train.steps} steps: {taken:.0f} s, {trained.mode}; validation loss {loss:.4f}")


def measure_prediction(shape: tuple[int, int, int]) -> None:
    """Print voxels a second of every precision, from memory to memory, and seconds from file to file."""
    net = unet(depth=2, features=32, dims=3).eval()
    initialise(net, torch.Generator().manual_seed(0))
    net.to("cuda").to(memory_format=channels_last(5))  # type: ignore[call-overload]

    def restore(net: nn.Module, tile: Tensor, *_: object) -> dict[str, Tensor]:
        return {"mean": net(tile[None, None].contiguous(memory_format=channels_last(5)))[0, 0]}

    task: Any = SimpleNamespace(geometry=lambda net, *_: Geometry((net.halo,) * 3, (net.step,) * 3), restore=restore)
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    out = np.empty_like(volume)
    for precision, compiled in (("float32", False), ("float16", False), ("float16", True)):
        config = Config.model_validate({"predict": {"precision": precision}})
        plan = replace(make_plan(task, [net], shape, None, config, device="cuda"), compiled=compiled)

        def once(volume: Any = volume, plan: Any = plan, config: Config = config) -> Any:
            return predict_pass(task, [net], volume, None, config, out=out, plan=plan, device="cuda", progress=say)

        done = once()
        taken = seconds(once, 1)
        print(f"{plan.describe()}\n  {volume.size / taken / 1e6:.0f} Mvoxel/s; {done.seconds}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            source, result = Path(folder) / "in.tif", Path(folder) / "out.tif"
            write_stack(source, Stack((volume * 1000).astype(np.uint16), "ZYX", OPTICS))
            begun = time.perf_counter()
            once(open_stack(source).frame(0, 0))
            write_stack(result, Stack(out, "ZYX", OPTICS))
            print(f"  {time.perf_counter() - begun:.2f} s from file to file", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", action="store_true", help=f"run {STEPS} steps")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; repeatable")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    stack = Stack(tissue(shape=(48, 512, 512), seed=0, light=50).raw, "ZYX", OPTICS)
    sources, task = [Source(stack, 0, 0, depths(stack))], registry.load("tasks", "contrast")
    config = load_recipe("contrast", [*PUBLISHED, f"train.steps={STEPS}", *given.set])
    fit = task.fit(sources, config)
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        measure_steps(task, sources, fit, config)
    torch.cuda.empty_cache()
    measure_prediction((100, 1024, 1024))
    if given.schedule:
        run_schedule(task, sources, fit, config)


if __name__ == "__main__":
    main()

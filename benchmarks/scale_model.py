"""What a stack of terabytes costs: measured on one shard here, computed for many workers.

    python benchmarks/scale_model.py [--iterations 2] [--disk 1e9] [--price 0.04]

Reads, restores and writes one shard, in the middle of others, with the default network of the contrast recipe on one
core, counts processor seconds of each, and prints time, money and bytes for 1 and 100 TB on 1, 8 and 64 workers of one
core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepcontrast import registry
from deepcontrast.io import create_stack, open_stack, write_stack
from deepcontrast.outputs import Encoding
from deepcontrast.prediction import make_plan, predict_pass
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source
from deepcontrast.training import initialise

SHARD = (16, 1024, 1024)
AROUND = 3
"""Shards along y and x of the stack: the one in the middle has neighbours on all sides, as most have."""
TERABYTE = 10**12


@dataclass(frozen=True)
class Cost:
    """Processor seconds of one core per voxel, and bytes per voxel.

    Attributes:
        read: of the shard with its halo.
        compute: one pass of the network, the halos of the tiles again and again.
        write: of the result, compressed, with its pyramid.
        keep: writing a pass in float32 and reading it again.
        raw: bytes of the stack on disk.
        result: bytes of the result on disk.
        halo: voxels read for each one written.
    """

    read: float
    compute: float
    write: float
    keep: float
    raw: float
    result: float
    halo: float


class Watched:
    """A volume that keeps in mind which boxes were read."""

    def __init__(self, volume: Any) -> None:
        self.shape, self._volume = volume.shape, volume
        self.boxes: list[Any] = []

    def __getitem__(self, box: Any) -> Any:
        """Return a box."""
        self.boxes.append(box)
        return self._volume[box]


@dataclass(frozen=True)
class Bill:
    """What a stack costs.

    Attributes:
        hours: from start to end.
        money: for the cores.
        moved: bytes read and written.
        limit: what is saturated, ``"cores"`` or ``"disk"``.
    """

    hours: float
    money: float
    moved: float
    limit: str


def bill(
    cost: Cost, *, stack_bytes: float, itemsize: int, iterations: int, workers: int, price: float, disk: float
) -> Bill:
    """Return what a stack costs.

    Args:
        cost: per voxel.
        stack_bytes: of its voxels, uncompressed.
        itemsize: bytes of a voxel.
        iterations: passes of the network.
        workers: cores.
        price: of a core for an hour.
        disk: bytes per second that all workers together can read and write.
    """
    voxels = stack_bytes / itemsize
    core_seconds = voxels * (cost.read + iterations * cost.compute + (iterations - 1) * cost.keep + cost.write)
    # A pass in between is written and read once in float32, with halos.
    moved = voxels * (cost.raw * cost.halo + cost.result + (iterations - 1) * 4 * (1 + cost.halo))
    computing, moving = core_seconds / workers, moved / disk
    hours = max(computing, moving) / 3600
    return Bill(hours, hours * workers * price, moved, "cores" if computing > moving else "disk")


def measure(folder: Path) -> Cost:
    """Return the cost per voxel, measured on one shard of noise-like structure on one thread."""
    config = load_recipe("contrast")
    raw = tissue(shape=(16, 256, 256), seed=0).raw
    task: Any = registry.load("tasks", "contrast")
    fit = task.fit([Source(Stack(raw, "ZYX"), 0, 0, np.arange(16.0))], config)
    net = task.build(fit, config)
    initialise(net, torch.Generator().manual_seed(0))
    net = net.to(memory_format=torch.channels_last).eval()
    shard = np.tile(raw, (1, SHARD[1] // 256, SHARD[2] // 256)).astype(np.uint16)
    write_stack(folder / "raw.ome.zarr", Stack(np.tile(shard, (1, AROUND, AROUND)), "ZYX"))
    around = open_stack(folder / "raw.ome.zarr").frame()
    stack = Stack(shard, "ZYX")
    plan = make_plan(task, [net], around.shape, fit, config, memory=2 * 10**9, block=SHARD)
    out = np.empty(SHARD, np.float32)
    box = (slice(0, SHARD[0]), slice(SHARD[1], 2 * SHARD[1]), slice(SHARD[2], 2 * SHARD[2]))
    voxels = prod(SHARD)
    watched = Watched(around)
    predict_pass(task, [net], watched, fit, config, out=out, box=box, plan=plan)
    boxes = tuple(watched.boxes)

    def read_again() -> int:
        return sum(around[one].size for one in boxes)

    def write(path: Path, dtype: type, *, compressed: bool) -> None:
        writer = create_stack(path, stack, dtype=np.dtype(dtype), compressed=compressed, shard=SHARD)
        block = Encoding(np.dtype(dtype), "").encode(out)
        writer.write(0, block)
        if compressed:
            writer.finish()

    read = seconds(read_again)
    both = seconds(lambda: predict_pass(task, [net], around, fit, config, out=out, box=box, plan=plan))
    out[:] = shard
    kept = seconds(lambda: write(folder / "pass.zarr", np.float32, compressed=False))
    written = seconds(lambda: write(folder / "result.ome.zarr", np.uint16, compressed=True))
    sizes = [
        sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file())
        for name in ("raw.ome.zarr", "result.ome.zarr")
    ]
    return Cost(
        read=read / voxels,
        compute=(both - read) / voxels,
        write=written / voxels,
        keep=(kept + read) / voxels,
        raw=sizes[0] / AROUND**2 / voxels,
        result=sizes[1] / voxels,
        halo=read_again() / voxels,
    )


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the processor seconds of a piece of work, the median of several."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return sorted(found)[repeats // 2]


def table(cost: Cost, *, iterations: int, price: float, disk: float) -> list[str]:
    """Return the lines of the table, as Markdown."""
    lines = ["| stack | workers | time | money | read and written | saturated |", "|---|---|---|---|---|---|"]
    for size in (1, 100):
        for workers in (1, 8, 64):
            one = bill(
                cost, stack_bytes=size * TERABYTE, itemsize=2, iterations=iterations, workers=workers, price=price,
                disk=disk,
            )  # fmt: skip
            time_ = f"{one.hours:.0f} h" if one.hours < 100 else f"{one.hours / 24:.0f} days"
            lines.append(
                f"| {size} TB | {workers} | {time_} | {one.money:,.0f} | {one.moved / TERABYTE:.1f} TB | {one.limit} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2, help="passes of the network")
    parser.add_argument("--disk", type=float, default=1e9, help="bytes per second that all workers share")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cost = measure(Path(folder))
    read, compute, write, keep = (10**6 * each for each in (cost.read, cost.compute, cost.write, cost.keep))
    print(f"processor seconds for a million voxels, on one core: read {read:.3f}, compute {compute:.3f} a pass,")
    print(f"write {write:.3f}, write a pass in between and read it {keep:.3f}")
    print(f"bytes per voxel: raw {cost.raw:.2f}, result {cost.result:.2f}; {cost.halo:.2f} voxels read for each one")
    one = bill(
        cost,
        stack_bytes=TERABYTE,
        itemsize=2,
        iterations=given.iterations,
        workers=1,
        price=given.price,
        disk=given.disk,
    )
    print(f"the disk is saturated from {one.hours * 3600 * given.disk / one.moved:.0f} workers on")
    print("\n".join(table(cost, iterations=given.iterations, price=given.price, disk=given.disk)))


if __name__ == "__main__":
    main()

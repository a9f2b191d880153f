"""What `deepcontrast predict` costs per voxel, and takes of memory, from small stacks to large ones; zarr to zarr.

The network has depth 1 and 4 features, so that reading and writing are what is measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from deepcontrast.io import create_stack
from deepcontrast.stack import Stack

SHARD = (64, 512, 512)
SHARD_BYTES = 2 * 64 * 512 * 512
NETWORK = ("net.depth=1", "net.features=4", "train.steps=1", "train.batch=1")


@dataclass(frozen=True)
class SizeCost:
    """What one stack cost.

    Attributes:
        bytes: of its voxels, uncompressed.
        cpu_seconds: of all processes of the command.
        start: CPU seconds that do not depend on the stack: those of the smallest one that can be.
        peak: largest memory of all processes of the command together, in bytes.
    """

    bytes: int
    cpu_seconds: float
    start: float
    peak: int

    def per_voxel(self) -> float:
        """Return the CPU seconds per voxel, without the start."""
        return (self.cpu_seconds - self.start) / (self.bytes / 2)


def costs(deepcontrast: Path, sizes: Sequence[int], memory: str, folder: Path) -> Iterator[SizeCost]:
    """Yield what stacks of these sizes in bytes cost; each is deleted before the next is made.

    Args:
        deepcontrast: the command.
        sizes: of the uint16 voxels, uncompressed; powers of 2 times a shard's 32 MiB.
        memory: what the command is given, as ``"1GB"``.
        folder: to work in; what is left there is deleted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    little = folder / "little.ome.zarr"
    write(little, (4, 128, 128))
    settings = [part for setting in NETWORK for part in ("--set", setting)]
    model = folder / "model.safetensors"
    _run([deepcontrast, "train", "contrast", "--input", little, "--out", model, "--quiet", *settings])

    def predict(path: Path) -> tuple[float, int]:
        out = folder / "out.ome.zarr"
        took = _run([deepcontrast, "predict", model, path, "--out", out, "--memory", memory, "--quiet"])
        shutil.rmtree(out)
        return took

    start, _ = predict(little)
    for size in sizes:
        path = folder / "stack.ome.zarr"
        write(path, shape_of(size))
        seconds, peak = predict(path)
        shutil.rmtree(path)
        yield SizeCost(size, seconds, start, peak)
    shutil.rmtree(folder)


def shape_of(size: int) -> tuple[int, int, int]:
    """Return the shape (Z, Y, X) of a uint16 stack of so many bytes: whole shards, as square as can be."""
    shards = size // SHARD_BYTES
    if shards < 1 or shards & (shards - 1) or size % SHARD_BYTES:
        raise ValueError(f"size {size}: must be a power of 2 times {SHARD_BYTES} bytes")
    along_y = 2 ** ((shards.bit_length() - 1) // 2)
    return SHARD[0], SHARD[1] * along_y, SHARD[2] * (shards // along_y)


def write(path: Path, shape: tuple[int, int, int]) -> None:
    """Write a stack of photon noise about a few structures, shard by shard: it compresses as a recording does."""
    z, y, x = np.ogrid[: SHARD[0], : SHARD[1], : SHARD[2]]
    structures = 1 + np.sin(z / 5) * np.sin(y / 9) * np.sin(x / 9)
    block = np.random.default_rng(0).poisson(100 + 50 * structures).astype(np.uint16)
    like = Stack(np.broadcast_to(np.uint16(0), shape), "ZYX")
    writer = create_stack(path, like, dtype=block.dtype, shard=SHARD)
    for index, shard in enumerate(writer.shards):
        writer.write(index, block[tuple(slice(0, box.stop - box.start) for box in shard)])
    writer.finish()


def _run(command: Sequence[str | Path]) -> tuple[float, int]:
    """Return the CPU seconds of a command and all its children, and their largest memory together."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks, ended = [0], threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
    watch.start()
    _, status, used = os.wait4(process.pid, 0)
    ended.set()
    watch.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, max(peaks[0], used.ru_maxrss * 1024)


def _watch(pid: int, peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.02):
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
            peaks[0] = max(peaks[0], sum(process.memory_info().rss for process in family))
        except psutil.Error:
            # One of them has just ended.
            continue

"""What reading and writing cost: Mvoxel per CPU second and the memory taken, container by container.

    python benchmarks/containers.py [--planes 128] [--repeats 3]

Each row is made in a process of its own, on noise like a microscope's (a blurred random field, Poisson, a camera).
Memory is what the process takes beyond the data, which it holds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from deepcontrast.io import create_stack, open_stack, open_writer, shards, write_stack
from deepcontrast.stack import Optics, Stack

SIDE = 1024


# Each row is a function of the stack and of the folder with what the rows before have written.
Row = Callable[[Stack, Path], object]


def camera_image(planes: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(0)
    light = gaussian_filter(rng.gamma(0.3, 1, (16, SIDE, SIDE)).astype(np.float32), (1, 3, 3))
    light *= 25 / light.mean()
    photons = rng.poisson(light) * 4.2 + 217
    # The same light in all, other noise of the camera: the speed of zstd is that of noise.
    parts = [photons + rng.normal(0, 3, light.shape) for _ in range(planes // 16)]
    return np.concatenate(parts).clip(0, 65535).astype(np.uint16)


def write_level(level: int) -> Row:
    def write(stack: Stack, folder: Path) -> None:
        shards.LEVEL = level
        write_stack(folder / f"level{level}.ome.zarr", stack)

    return write


def write_bare(stack: Stack, folder: Path) -> None:
    writer = create_stack(folder / "bare.zarr", stack, dtype=np.dtype(np.float32), compressed=False)
    for index, box in enumerate(writer.shards):
        writer.write(index, stack.array[box].astype(np.float32))


def write_bare_by_zarr(stack: Stack, folder: Path) -> None:
    writer = create_stack(folder / "other.zarr", stack, dtype=np.dtype(np.float32), compressed=False)
    for box in writer.shards:
        writer.array[box] = stack.array[box].astype(np.float32)


def write_zlib(stack: Stack, folder: Path) -> None:
    tifffile.imwrite(folder / "zlib.tif", stack.array, photometric="minisblack", compression="zlib")


def slabs(array: Any) -> None:
    for z in range(0, array.shape[0], 16):
        array[z : z + 16]


def tiles(array: Any) -> None:
    for z in range(0, array.shape[0], 16):
        for y in range(0, SIDE, 256):
            for x in range(0, SIDE, 256):
                array[max(0, z - 2) : z + 18, max(0, y - 32) : y + 288, max(0, x - 32) : x + 288]


def opened(name: str, read: Callable[[Any], None]) -> Row:
    if name == "bare.zarr":
        return lambda _, folder: read(open_writer(folder / name).array)
    return lambda _, folder: read(open_stack(folder / name, axes="ZYX").array)


ROWS: dict[str, Row] = {
    "copy in memory": lambda stack, _: stack.array.copy(),
    "write .ome.zarr, zstd 1": write_level(1),
    "write .ome.zarr, zstd 3": write_level(3),
    "write float32, bare": write_bare,
    "the same by zarr-python": write_bare_by_zarr,
    "write .tif": lambda stack, folder: write_stack(folder / "raw.tif", stack),
    "write .tif from .ome.zarr": lambda _, folder: write_stack(
        folder / "raw.tif", open_stack(folder / "level1.ome.zarr")
    ),
    "(zlib by tifffile)": write_zlib,
    **{
        f"read {name} in {read.__name__}": opened(name, read)
        for name in ("level1.ome.zarr", "level3.ome.zarr", "bare.zarr", "raw.tif", "zlib.tif")
        for read in (slabs, tiles)
    },
}


def measure(name: str, folder: Path, repeats: int, answer: Any) -> None:
    stack = Stack(np.load(folder / "data.npy"), "ZYX", Optics(voxel_size=(1.0, 0.5, 0.5)))
    before, seconds = peak(), []
    for _ in range(repeats):
        start = os.times()
        ROWS[name](stack, folder)
        end = os.times()
        seconds.append(end.user + end.system - start.user - start.system)
    answer.put((stack.array.size / 1e6 / max(statistics.median(seconds), 1e-3), peak() - before))


def peak() -> float:
    # Not getrusage, which tells the peak of the process that started this one where that was higher.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        np.save(folder / "data.npy", camera_image(given.planes))
        print(f"{'':38s} Mvoxel / CPU s   memory")
        for row in ROWS:
            answer = context.Queue()
            child = context.Process(target=measure, args=(row, folder, given.repeats, answer))
            child.start()
            rate, memory = answer.get()
            child.join()
            print(f"{row:38s} {rate:14.0f} {memory:7.0f} MB", flush=True)
        for path in sorted(folder.iterdir()):
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            size = sum(file.stat().st_size for file in files) / (given.planes * SIDE * SIDE)
            print(f"{path.name:38s} {size:14.2f} bytes per voxel in {len(files)} files")


if __name__ == "__main__":
    main()

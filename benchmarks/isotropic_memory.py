"""An anisotropic OME-Zarr of 2 GB made isotropic in less memory than that, and whether it is what memory gives.

    python benchmarks/isotropic_memory.py --folder DIR [--memory 1GB] [--planes 40] [--side 5000]

Needs 20 GB of disk. A small network is enough: what is held are shards and tiles, whose size the memory decides. The
stack repeats a simulated embryo; the result is compared with what is restored in memory of a corner of the stack, but
for the rim that sees the cut.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from deepcontrast.io import create_stack, open_stack
from deepcontrast.jobs.predict_in_memory import predict_stack
from deepcontrast.learning import learn
from deepcontrast.model import load_model, save_model
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.synth.embryo import embryo

CORNER = 384
RIM = 48
FACTOR = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--planes", type=int, default=40)
    parser.add_argument("--side", type=int, default=5000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    made = embryo(shape=(given.planes, 256, 256), undersampling=FACTOR)
    model = given.folder / "small.safetensors"
    if not model.exists():
        settings = [
            "net.depth=2",
            "net.features=4",
            "train.steps=100",
            "predict.orientations=1",
            "task.per_image=false",
        ]
        stack = Stack(made.raw, "ZYX", made.optics, source="embryo").with_optics(surface="first")
        small, _ = learn([stack], load_recipe("isotropic", settings), folder=given.folder)
        save_model(model, small)
    image = given.folder / "large.ome.zarr"
    if not image.exists():
        write(image, made.raw, given.side, Stack(made.raw, "ZYX", made.optics))
    out = given.folder / "isotropic.ome.zarr"
    command = [sys.executable, "-m", "deepcontrast", "predict", str(model), str(image), "--out", str(out)]
    began = time.perf_counter()
    subprocess.run([*command, "--memory", given.memory, "--dtype", "float32", "--overwrite"], check=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    whole = open_stack(image)
    print(f"{image}: {whole.describe()}, {np.prod(whole.shape) * whole.dtype.itemsize / 1e9:.2f} GB", flush=True)
    print(f"--memory {given.memory}: at most {peak / 1e9:.2f} GB resident, {seconds:.0f} s", flush=True)
    corner = Stack(np.asarray(whole.array[:, :CORNER, :CORNER]), "ZYX", whole.optics, source="corner")
    expected = np.asarray(predict_stack([load_model(model)], corner, norm="stored").array)
    found = np.asarray(open_stack(out).array[:, :CORNER, :CORNER])
    inside = (slice(None), slice(0, CORNER - RIM), slice(0, CORNER - RIM))
    off = np.abs(found[inside] - expected[inside]).max() / np.ptp(expected)
    print(f"a corner of {expected.shape}: at most {off:.1e} of its range from what memory gives", flush=True)


def write(path: Path, tile: np.ndarray, side: int, like: Stack) -> None:
    """Write a stack that repeats a tile, shard by shard."""
    planes, height, width = tile.shape
    whole = Stack(np.broadcast_to(np.uint16(0), (planes, side, side)), "ZYX", like.optics)
    writer = create_stack(path, whole, dtype=np.dtype(np.uint16), shard=(64, 512, 512))
    for index, box in enumerate(writer.shards):
        y, x = (np.arange(part.start, part.stop) for part in box[1:])
        writer.write(index, tile[box[0]][:, y[:, None] % height, x[None, :] % width])
    writer.finish()


if __name__ == "__main__":
    main()

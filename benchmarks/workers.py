"""How much faster two workers on two cores restore a stack than one on one core, and whether they write the same bytes.

    python benchmarks/workers.py [--planes 64] [--repeats 3]

The command line is what is timed, start and all; torch has one thread in every worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from deepcontrast.io import write_stack
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue

COMMAND = (sys.executable, "-m", "deepcontrast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = tissue(shape=(options.planes, 1024, 1024), seed=0).raw
        write_stack(folder / "raw.ome.zarr", Stack(raw, "ZYX", Optics(voxel_size=(1.0, 0.3, 0.3))))
        run(
            [
                "train",
                "contrast",
                "--input",
                folder / "raw.ome.zarr",
                "--out",
                folder / "m.safetensors",
                "--set",
                "train.steps=2",
            ]
        )
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.repeats):
            for workers, times in seconds.items():
                out = folder / f"out{workers}.ome.zarr"
                begun = time.monotonic()
                run(
                    [
                        "predict",
                        folder / "m.safetensors",
                        folder / "raw.ome.zarr",
                        "--out",
                        out,
                        "--workers",
                        str(workers),
                        "--overwrite",
                    ],
                    workers,
                )
                times.append(time.monotonic() - begun)
        same = tree(folder / "out1.ome.zarr") == tree(folder / "out2.ome.zarr")
        one, two = (statistics.median(times) for times in seconds.values())
        print(f"one worker on one core {one:.1f} s, two on two {two:.1f} s: {one / two:.2f} times; same bytes: {same}")
        print("all:", {workers: [round(t, 1) for t in times] for workers, times in seconds.items()})


def run(arguments: Sequence[str | Path], cores: int = 2) -> None:
    """Run a command on so many cores."""
    chosen = set(sorted(os.sched_getaffinity(0))[:cores])
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    subprocess.run(
        [*COMMAND, *arguments, "--quiet"],
        check=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


if __name__ == "__main__":
    main()

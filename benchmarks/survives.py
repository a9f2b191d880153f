"""What kill -9 leaves: commands killed at random moments and resumed, their results compared with those left alone.

    python benchmarks/survives.py [--kills 20] [--only predict,train,...] [--seed 0]

Every kill is a run of its own: started, killed with SIGKILL, and resumed to its end. The moment is drawn over the time
from the first checkpoint, pass or shard of a run that is left alone to its end. Runs are copies of this
process, which has the package loaded; shards are small, few bytes are looked at of a stack that is enhanced, and every
validation of a training is a checkpoint, so that runs have many parts and take seconds. In the last row one of three
worker processes is killed instead, and nobody resumes.

    resumed    runs that left a checkpoint, a pass or a shard when they were killed; of killed workers none has to
    identical  results whose bytes are those of the run left alone (but run.json, which says how long it took)
    early      results that lay under their name before they were complete
    leftovers  runs that left anything beside their result
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path

import numpy as np
import torch

from deepcontrast.cli import run as deepcontrast
from deepcontrast.compute.precision import has_bfloat16
from deepcontrast.io import write_stack
from deepcontrast.scale import shard_sizes
from deepcontrast.scale.resources import Resources
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.training import loop
from deepcontrast.workdir import worth_resuming

SMALL = (
    "net.depth=1", "net.features=4", "train.steps=40", "train.batch=4", "train.patch=24", "train.validate_every=4",
)  # fmt: skip
"""Settings of a network that trains in a second, with a checkpoint every few steps."""


LOOKED_AT = 30 * 10**6
"""Bytes for looking at a stack: a quarter of the one that is enhanced."""


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: in the table.
        arguments: of ``deepcontrast``, but ``--out``.
        out: name of its result.
        kills: fewer than asked for, where a run takes long.
        workers: whether one of its worker processes is killed, and not itself.
    """

    name: str
    arguments: tuple[str, ...]
    out: str
    kills: int
    workers: bool = False


@dataclass(frozen=True)
class Row:
    """What became of a job's runs, each a number of runs; ``resumed`` found a checkpoint, a pass or a shard."""

    kills: int
    resumed: int
    identical: int
    early: int
    leftovers: int


def jobs(folder: Path, kills: int) -> list[Job]:
    """Write the images and the model that the jobs need, and return the jobs."""
    raw = tissue(shape=(16, 128, 128), seed=1).raw
    stack, movie, deep = (folder / name for name in ("stack.tif", "movie.ome.zarr", "deep.ome.zarr"))
    optics = Optics(voxel_size=(0.5, 0.3, 0.3), surface="first")
    write_stack(stack, Stack(raw, "ZYX", optics))
    # Every time point is a shard.
    write_stack(movie, Stack(np.stack([np.roll(raw, 8 * t, axis=2) for t in range(6)]), "TZYX", optics))
    write_stack(deep, Stack(np.tile(raw, (2, 2, 2)), "ZYX", optics))
    settings = tuple(word for setting in SMALL for word in ("--set", setting))
    training = ("train", "contrast", "--input", str(stack), *settings)
    model = folder / "model.safetensors"
    run((*training, "--set", "train.precision=float32"), model)
    predict = ("predict", str(model), str(movie), "--iterations", "2")
    enhance = ("enhance", str(deep), *settings, "--iterations", "2", "--set", "train.precision=float32")
    return [
        Job("predict", predict, "out.ome.zarr", kills),
        Job("predict, TIFF", predict, "out.ome.tif", kills),
        *(
            Job(f"train, {one}", (*training, "--set", f"train.precision={one}"), "out.safetensors", kills)
            for one in ("float32", *(["bfloat16"] if has_bfloat16("cpu") else []))
        ),
        Job("enhance beyond memory", enhance, "out", max(1, kills // 4)),
        Job("worker of predict", (*predict, "--workers", "3"), "out.ome.zarr", max(1, kills // 4), workers=True),
    ]


def start(arguments: Sequence[str], out: Path) -> int:
    """Start a command in a copy of this process; it goes on where there is something to go on from."""
    child = os.fork()
    if not child:
        os._exit(deepcontrast([*arguments, "--out", str(out), "--resume", "--quiet"]))
    return child


def run(arguments: Sequence[str], out: Path) -> None:
    """Run a command to its end."""
    end(start(arguments, out))


def end(child: int) -> None:
    """Wait for a process to end by itself."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise SystemExit(f"a run ended with {code}")


def survive(job: Job, folder: Path, moments: random.Random) -> Row:
    """Kill a job as often as it says, and return what became of it."""
    alone, out = folder / "alone" / job.out, folder / "killed" / job.out
    child = start(job.arguments, alone)
    began = begun(child, alone)
    end(child)
    seconds = time.monotonic() - began
    expected = tree(alone)
    kills = resumed = identical = early = leftovers = 0
    while kills < job.kills:
        child = start(job.arguments, out)
        begun(child, out)
        victim = victim_of(child, moments.uniform(0, seconds), workers=job.workers)
        if victim is not None:
            kills += 1
            os.kill(victim, signal.SIGKILL)
            if job.workers:
                end(child)
            else:
                os.waitpid(child, 0)
                early += out.exists() and tree(out) != expected
                resumed += something_kept(out)
                run(job.arguments, out)
            identical += tree(out) == expected
            leftovers += [path.name for path in out.parent.iterdir()] != [out.name]
        shutil.rmtree(out.parent, ignore_errors=True)
    return Row(kills, resumed, identical, early, leftovers)


def something_kept(out: Path) -> bool:
    """Return whether an unfinished run has left anything by now that a resumed one can use."""
    with suppress(OSError):  # A run at work removes what it has used.
        return worth_resuming(out.with_name(out.name + ".partial"))
    return False


def begun(child: int, out: Path) -> float:
    """Wait until a run has something to lose; return when that was."""
    while not something_kept(out):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.002)
    return time.monotonic()


def victim_of(child: int, moment: float, *, workers: bool) -> int | None:
    """Return whom to kill after so many seconds: a process, or one of its workers; ``None`` where it has ended."""
    began = time.monotonic()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > began + moment and (found := workers_of(child) if workers else [child]):
            return found[-1]
        time.sleep(0.002)
    return None


def workers_of(parent: int) -> list[int]:
    """Return the processes that a process of this package has started to share its work."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def tree(path: Path) -> dict[str, str]:
    """Return a hash of every file of a result."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.name != "run.json"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each job; a quarter as many of those that take long")
    parser.add_argument("--only", default="", help="jobs whose names begin with one of these")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shard_sizes.SHARD = prod(shard_sizes.FINEST)
    Resources.looks_at = lambda _: LOOKED_AT  # type: ignore[method-assign]
    loop.SAVE_EVERY = 0.0
    for verb in ("enhance", "predict", "train"):
        import_module(f"deepcontrast.jobs.{verb}")
    print("| job | kills | resumed | identical | early | leftovers |", "|---|---|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for job in jobs(folder, given.kills):
            if job.name.startswith(tuple(given.only.split(","))):
                row = survive(job, folder / job.name.replace(" ", "_"), random.Random(given.seed))
                cells = (job.name, row.kills, row.resumed, row.identical, row.early, row.leftovers)
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Enhanced stacks that are larger than the memory: made shard by shard, from what an excerpt of them told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deepcontrast.atomic import write_json
from deepcontrast.brightness import Blend, blend
from deepcontrast.compute import heap
from deepcontrast.depth import depths
from deepcontrast.enhanced import Enhanced
from deepcontrast.io import container_suffix, open_writer, write_stack
from deepcontrast.jobs.images import Reading, dtype_in
from deepcontrast.jobs.results import attributes_of
from deepcontrast.jobs.say import Say
from deepcontrast.jobs.shards import describe_plan, plan_shards, surveys_of
from deepcontrast.output_checks import check_space, size_of
from deepcontrast.prediction import Plan
from deepcontrast.progress import Progress
from deepcontrast.scale.predict_shards import Outcome, Restoration, restore_stack, space
from deepcontrast.scale.resources import Resources


@dataclass(frozen=True, eq=False)
class Means:
    """With what a large stack is made.

    Attributes:
        model: file of the model.
        reading: how the images are to be understood.
        dtype: of the results; that of each image where ``None``.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        threads: of torch in each worker.
        resources: memory, processes, a cluster.
    """

    model: Path
    reading: Reading
    dtype: str | None
    device: str
    threads: int
    resources: Resources


def make_large(
    result: Enhanced, index: int, file: Path, means: Means, folder: Path, *, progress: Progress, say: Say
) -> Outcome:
    """Enhance all of a stack that k was chosen for, or go on with it; :func:`take_large` then takes it from ``folder``.

    Args:
        result: of the excerpts.
        index: of the stack.
        file: of the stack.
        means: with what.
        folder: where passes and shards are kept, also by a run that is stopped.
        progress: gets events.
        say: gets what is to be told.
    """
    stack = result.stacks[index]
    folder.mkdir(parents=True, exist_ok=True)
    # What the look at the excerpt took is for the passes now.
    looked_at = (one for channels in result.restored for times in channels for one in times)
    heap.release(array for one in looked_at for array in (*one.passes, one.enhanced, one.map))
    blends = _blends(result, index)
    last = max(k for one in blends.values() for k in one.needed())
    container = container_suffix(file)
    dtype = dtype_in(container, np.dtype(means.dtype or stack.dtype))
    plan = _plan(result, index, means, folder)
    for line in describe_plan(plan, stack):
        say(line)
    kept = sorted({k for one in blends.values() for k in one.needed()})
    needed = space(stack, last, dtype, copied=container != ".ome.zarr", kept=len(kept))
    check_space(folder, needed + 50_000_000 - size_of(folder))
    job = Restoration(
        models=(means.model.resolve(),),
        open=partial(means.reading.open, file.resolve()),
        surveys=surveys_of(stack, progress, say),
        iterations=last,
        dtype=dtype.name,
        shift=container != ".npy",
        compressed=container == ".ome.zarr",
        plans=[Plan.decode(table) for table in plan["tiles"]],
        shard=plan["shard"],
        device=means.device,
        threads=plan["threads"],
        folder=folder.resolve(),
        blends=blends,
    )
    outcome = restore_stack(job, means.resources.runner(), attributes=attributes_of(result, index), progress=progress)
    if container != ".ome.zarr":
        array = open_writer(job.result).array
        write_stack(folder / _name(file), replace(stack, array=array), attributes=outcome.attributes)
    return outcome


def take_large(folder: Path, file: Path, into: Path) -> None:
    """Move a finished image where the result lies; what else is in its folder is of no use then, and says so first."""
    (folder / "journal").unlink(missing_ok=True)
    made = folder / ("result.ome.zarr" if container_suffix(file) == ".ome.zarr" else _name(file))
    made.rename(into / _name(file))


def _name(file: Path) -> str:
    return "enhanced" + container_suffix(file)


def _blends(result: Enhanced, index: int) -> Mapping[tuple[int, int], Blend]:
    """Return which passes every time point and channel of the result is made of, and how bright its planes are."""
    stack = result.stacks[index]
    depth = depths(stack)
    found: dict[tuple[int, int], Blend] = {}
    for c, (choice, brightness, fit) in enumerate(zip(result.choices, result.brightness, result.fits, strict=True)):
        made = blend(choice.at(depth), depth, brightness, offset=fit.norm.offset)
        if result.equalised:
            made = made.scaled(result.equalised[index][c].at(depth))
        found |= {(t, c): made for t in range(stack.size("T"))}
    return found


def _plan(result: Enhanced, index: int, means: Means, folder: Path) -> dict[str, Any]:
    """Return how the stack is divided: as by the run that began, whatever memory and workers there are now."""
    path = folder / "plan.json"
    if not path.exists():
        tiles = plan_shards([result.model], result.stacks[index], means.device, means.resources)
        write_json(path, {**tiles, "threads": means.threads})
    plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return plan

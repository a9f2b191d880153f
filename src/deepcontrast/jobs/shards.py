"""How a job is done shard by shard: its plan, and what workers must know of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from deepcontrast import registry
from deepcontrast.accept import check_survey
from deepcontrast.errors import InputError
from deepcontrast.flattened import planes_of
from deepcontrast.jobs.say import Say
from deepcontrast.model import Model
from deepcontrast.normalize import Norm
from deepcontrast.prediction import Plan
from deepcontrast.progress import Progress
from deepcontrast.scale.members import geometry_of, halo_of, keeps_norms, open_members, own_norms, plan_members
from deepcontrast.scale.resources import Resources
from deepcontrast.scale.shard_sizes import Load, shard_lengths
from deepcontrast.stack import Stack
from deepcontrast.valid import Survey, survey


def surveys_of(stack: Stack, progress: Progress, say: Say, *, deep: bool = True) -> dict[tuple[int, int], Survey]:
    """Return what workers must know of the whole of every time point and channel.

    Where the task is not one of deep stacks, saturated voxels are restored too.

    Raises:
        InputError: one has NaN, infinite values, or one value everywhere.
    """
    surveys = {}
    for t in range(stack.size("T")):
        for c in range(stack.size("C")):
            known = survey(stack.frame(t, c), progress)
            check_survey(known, stack.source)
            # The histogram is large, and nothing that is done with a shard asks for it.
            known = replace(known, histogram=None)
            surveys[t, c] = known if deep else known.with_saturation()
    if (note := next(iter(surveys.values())).note()) is not None:
        say(note)
    return surveys


def norms_of(
    models: Sequence[Model], stack: Stack, surveys: Mapping[tuple[int, int], Survey], norm: str, say: Say
) -> dict[tuple[int, int], list[Norm | None]] | None:
    """Return with which norms of their own the models are applied to every time point and channel; ``None``: none."""
    task: Any = registry.load("tasks", models[0].task)
    found = {}
    opened = cache(lambda c: open_members(task, models, c, "cpu"))
    for t, c in surveys:
        found[t, c] = own_norms(task, opened(c), stack.frame(t, c), surveys[t, c], norm)
    if all(one is None for norms in found.values() for one in norms):
        return None
    instead = "; --norm stored takes the numbers of training" if all(map(keeps_norms, models)) else ""
    say(f"every image is normalised by itself, as in training: their results do not compare in brightness{instead}")
    return found


def plan_shards(
    models: Sequence[Model], stack: Stack, device: str, resources: Resources, *, maps: Sequence[str] = ()
) -> dict[str, Any]:
    """Return how a stack will be restored, in plain numbers: its shards, and the tiles of each model."""
    task: Any = registry.load("tasks", models[0].task)
    memory = resources.memory_of_one("cpu")
    # Channels differ in their weights only.
    members = open_members(task, models, 0, device)
    geometries = [geometry_of(task, member) for member in members]
    halo = np.max([halo_of(one) for one in geometries], axis=0).tolist()
    planes = planes_of(stack)
    load = Load(
        len(maps), max(planes, *(one.channels for one in geometries)), max(len(one.views) for one in geometries)
    )
    shape = stack.frame().shape
    lengths = partial(shard_lengths, stack, halo, load)
    smallest, part = lengths(0), 2
    while True:
        shard = lengths(memory // part)
        taken = load.held * int(np.prod(np.minimum(shard, shape))) if device == "cpu" else 0
        left = memory - taken if device == "cpu" else resources.memory_of_one(device)
        try:
            plans = plan_members(
                task,
                members,
                shape,
                device=device,
                memory=left,
                besides=taken,
                block=shard,
                maps=maps,
                planes=planes,
            )
            break
        except InputError:
            # A tile of the network cannot be as small as one likes, a shard can.
            if shard == smallest:
                raise
            part *= 2
    return {"shard": list(shard), "tiles": [plan.encode() for plan in plans]}


def deciding(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a plan decides on the bytes of the result."""
    tiles = [{key: table[key] for key in ("core", "block", "precision", "compiled")} for table in plan["tiles"]]
    return {"shard": plan["shard"], "tiles": tiles}


def describe_plan(plan: Mapping[str, Any], stack: Stack) -> list[str]:
    """Return a plan in lines for the user."""
    shape = [*np.minimum(plan["shard"], stack.frame().shape).tolist()]
    lines = [f"plan: shards of {' x '.join(map(str, shape))} voxels"]
    return lines + [f"plan: {line}" for line in dict.fromkeys(Plan.decode(t).describe() for t in plan["tiles"])]

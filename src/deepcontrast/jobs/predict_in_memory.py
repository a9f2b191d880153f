"""Trained models applied to a stack in memory, as the Python interface and the comparison do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.accept import check_survey
from deepcontrast.flattened import planes_in
from deepcontrast.model import Model
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.scale.members import (
    Member,
    check_models,
    check_once,
    check_uncertain,
    grid_of,
    left,
    maps_of,
    merged,
    normed,
    open_members,
    own_norms,
    restore,
    unmeasured,
    volumes_for,
)
from deepcontrast.stack import Stack
from deepcontrast.valid import Survey, survey


def predict_stack(
    models: Sequence[Model],
    stack: Stack,
    *,
    iterations: int = 1,
    norm: str = "image",
    device: str = "cpu",
    progress: Progress = silent,
) -> Stack:
    """Return the mean of :func:`predict_maps`, which see for all else."""
    return predict_maps(models, stack, iterations=iterations, norm=norm, device=device, progress=progress)["mean"]


def predict_maps(
    models: Sequence[Model],
    stack: Stack,
    *,
    iterations: int = 1,
    norm: str = "image",
    uncertainty: bool = False,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Stack]:
    """Return a stack, or a single plane, to which models were applied ``iterations`` times, in float32, in memory.

    Several models form one ensemble: each pass is the mean over all their networks, every one used with its
    own model's settings, scale and camera.

    Returns:
        ``"mean"``, what the task gives beside it (of ``project`` the height of the surface), and with ``uncertainty``
        the maps of :mod:`deepcontrast.uncertainty`; all but the mean are NaN where voxels of the image hold no
        measurement.

    Raises:
        InputError: the models restore different things, or other channels than the stack has, or they predict no
            uncertainty.
    """
    check_models(models, stack, norm)
    given, stack = stack, grid_of(models)(stack)
    check_once(given, stack, iterations)
    if uncertainty:
        check_uncertain(models, iterations)
        models = [merged(models)]
    task: Any = registry.load("tasks", models[0].task)
    beside = maps_of(models, uncertain=uncertainty)
    out = {name: np.empty(stack.shape, np.float32) for name in ("mean", *beside)}
    channels = range(stack.size("C"))
    opened = [open_members(task, models, c, device) for c in channels]
    for t in range(stack.size("T")):
        surveys = {(t, c): _surveyed(task, stack, t, c) for c in channels}
        norms = [own_norms(task, opened[c], stack.frame(t, c), surveys[t, c], norm) for c in channels]
        fitted = [normed(task, opened[c], norms, c) for c in channels]
        found: list[dict[str, NDArray[np.float32]]] = []
        for k in range(1, iterations + 1):
            told = partial(_told, progress, f"predict {k}/{iterations}")
            volume = partial(_volume, task, stack, t, surveys, [maps["mean"] for maps in found])
            found = [
                restore(
                    task, fitted[c], volumes_for(task, fitted[c], c, volume),
                    device=device, report=told, beside=beside if k == iterations else (),
                )[0]
                for c in channels
            ]  # fmt: skip
        for c in channels:
            raw = stack.volume(t, c)
            whole = (slice(0, raw.shape[0]), slice(0, raw.shape[1]), slice(0, raw.shape[2]))
            unknown = unmeasured(task, fitted[c], stack, surveys, t, c, whole)
            for name, image in found[c].items():
                if unknown is not None:
                    image[unknown] = left(task, fitted[c], raw[unknown]) if name == "mean" else np.nan
                out[name][stack.index(t, c)] = image if "Z" in stack.axes else image[0]
    return {name: replace(stack, array=array) for name, array in out.items()}


def _surveyed(task: Any, stack: Stack, t: int, c: int) -> Survey:
    """Return what must be known of the whole of a time point and channel.

    Raises:
        InputError: it has NaN, infinite values, or one value everywhere.
    """
    known = survey(stack.frame(t, c))
    check_survey(known, stack.source)
    return known if task.DEEP else known.with_saturation()


def _volume(
    task: Any,
    stack: Stack,
    t: int,
    surveys: Mapping[tuple[int, int], Survey],
    before: Sequence[NDArray[np.float32]],
    member: Member,
    c: int,
) -> Any:
    """Return a channel as a member is given it: of the pass before, or of the image."""
    if before:
        return before[c]
    cleaned = task.cleaned(stack.frame(t, c), member.fit, surveys[t, c])
    return cleaned if planes_in(cleaned) > 1 else cleaned[:]


def _told(progress: Progress, stage: str, share: float) -> None:
    progress(Event(stage, int(100 * share), 100))

"""What can be enhanced, from which end, and on which device; refused in one line before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.depth import find_surface
from deepcontrast.errors import InputError
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.stack import Stack
from deepcontrast.valid import Survey, survey


def check_unpaired(config: Config) -> None:
    """Refuse a recipe that is not for deep stacks without truth.

    Raises:
        InputError: says what it is for.
    """
    task = registry.load("tasks", config.task_name)
    if task.SIMULATED:
        raise InputError(
            f"recipe '{config.recipe}' learns from images that it makes: `deepcontrast train {config.recipe}` makes a "
            "model, `deepcontrast predict` applies it"
        )
    if not task.DEEP and not task.PAIRED:
        raise InputError(
            f"recipe '{config.recipe}' is not for stacks that fade with depth: `deepcontrast train {config.recipe} "
            "--input STACK`, then `deepcontrast predict`"
        )
    if task.PAIRED:
        raise InputError(
            f"recipe '{config.recipe}' learns from pairs of images: `deepcontrast train {config.recipe} --input LOW "
            "--target HIGH`, then `deepcontrast predict`"
        )


def check_paired(config: Config, targets: bool) -> None:
    """Refuse targets that a recipe does not learn from, and a recipe that learns from pairs without them.

    Raises:
        InputError: says which.
    """
    paired = registry.load("tasks", config.task_name).PAIRED
    if paired and not targets:
        raise InputError(f"recipe '{config.recipe}' learns from pairs of images; give a target for every input")
    if targets and not paired:
        raise InputError(f"recipe '{config.recipe}' learns from the images alone; leave the targets out")


def check_counts(images: Sequence[Stack], targets: Sequence[Stack]) -> None:
    """Refuse more targets than images, or fewer.

    Raises:
        InputError: says how many there are.
    """
    if len(images) != len(targets):
        raise InputError(f"given {len(images)} images and {len(targets)} targets; accepted: one target for each image")


def check_pairs(images: Sequence[Stack], targets: Sequence[Stack]) -> None:
    """Refuse images and targets that are not pairs of one shape, or that nothing can be learned from.

    Raises:
        InputError: names the first.
    """
    check_counts(images, targets)
    for image, target in zip(images, targets, strict=True):
        if image.shape != target.shape or image.axes != target.axes:
            raise InputError(
                f"'{target.source}' is {target.axes} {target.shape}, its input '{image.source}' is {image.axes} "
                f"{image.shape}; accepted: pairs of one shape"
            )
        for stack in (image, target):
            for t in range(stack.size("T")):
                for c in range(stack.size("C")):
                    check_volume(stack.frame(t, c), stack.source)
    if len({image.size("C") for image in images}) > 1:
        raise InputError("pairs of one experiment must have equal channels")
    named = [stack for stack in (*images, *targets) if stack.channels]
    for stack in named[1:]:
        if sorted(stack.channels) == sorted(named[0].channels) and stack.channels != named[0].channels:
            raise InputError(
                f"the channels of '{stack.source}' are {', '.join(stack.channels)}, those of '{named[0].source}' "
                f"{', '.join(named[0].channels)}; accepted: one order"
            )


def with_inputs(config: Config, inputs: int) -> Config:
    """Return the settings for so many images: given any, a recipe that draws structures distorts them instead.

    Raises:
        InputError: a recipe that draws nothing has no images.
    """
    draws = registry.load("tasks", config.task_name).SIMULATED and bool(config.task["structure"])
    if not draws and not inputs:
        raise InputError(f"recipe '{config.recipe}' learns from images; give some with --input")
    return config.model_copy(update={"task": {**config.task, "structure": ""}}) if draws and inputs else config


def check_stacks(stacks: Sequence[Stack], progress: Progress = silent, *, flat: bool = False) -> None:
    """Refuse stacks that nothing can be learned from; single planes are accepted where they are ``flat``.

    Raises:
        InputError: fewer than two planes, NaN or infinite values, one value everywhere, unequal channels.
    """
    if len({stack.size("C") for stack in stacks}) > 1:
        counts = ", ".join(f"{stack.source}: {stack.size('C')}" for stack in stacks)
        raise InputError(f"stacks of one experiment must have equal channels; given {counts}")
    sizes = {tuple(None if s is None else round(s, 3) for s in stack.optics.voxel_size) for stack in stacks}
    if len(sizes) > 1:
        raise InputError(
            f"stacks of one experiment must have one voxel size; given {sorted(map(str, sizes))}; "
            "--voxel-size sets it, or take them apart"
        )
    for n, stack in enumerate(stacks):
        if stack.size("Z") < 2 and not flat:
            raise InputError(
                f"'{stack.source}' has one plane ({stack.axes}); accepted: a stack, Z of 2 or more (--axes says which "
                "axis is Z). A model of contrast or care is applied to a single plane by `deepcontrast predict`"
            )
        for t in range(stack.size("T")):
            for c in range(stack.size("C")):
                check_volume(stack.frame(t, c), stack.source)
        progress(Event("read", n + 1, len(stacks)))


def check_volume(volume: Any, source: str) -> None:
    """Refuse a volume (Z, Y, X) with NaN, infinite values, or one value everywhere; it is read slab by slab.

    Raises:
        InputError: says which, and where.
    """
    check_survey(survey(volume), source)


def check_survey(known: Survey, source: str) -> None:
    """Refuse what :func:`check_volume` does, given the survey of the volume.

    Raises:
        InputError: says which, and where.
    """
    if known.not_finite:
        raise InputError(f"'{source}' has {known.not_finite} voxels that are NaN or infinite; replace them first")
    if known.low == known.high:
        raise InputError(f"'{source}' is constant: every voxel is {known.low}")


def surfaced(stack: Stack, surface: str) -> tuple[Stack, str]:
    """Return the stack with its surface, found where ``surface`` is ``"auto"``, and the reason.

    Raises:
        InputError: ``surface`` is neither ``"first"``, ``"last"`` nor ``"auto"``.
    """
    if surface not in ("first", "last", "auto"):
        raise InputError(f"--surface '{surface}' is not understood; accepted: first, last, auto")
    if surface != "auto":
        return stack.with_optics(surface=surface), "as given"
    if stack.optics.surface in ("first", "last"):
        return stack, "known from the file"
    found, why = find_surface(stack.frame())
    return stack.with_optics(surface=found), why


def choose_device(wanted: str) -> str:
    """Return the device to use: CUDA where there is one and ``wanted`` is ``"auto"``.

    Raises:
        InputError: an unknown device, or one this machine has not.
    """
    accepted = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if accepted["cuda"] else "cpu"
    if wanted not in accepted:
        raise InputError(f"no device '{wanted}'; accepted: auto, {', '.join(accepted)}")
    if not accepted[wanted]:
        raise InputError(f"device '{wanted}' is not there; accepted here: auto, cpu")
    return wanted


def check_mask(mask: NDArray[np.bool_] | None, stack: Stack) -> None:
    """Refuse a mask (Z, Y, X) of another shape than the stack, or one that marks nothing or everything.

    Raises:
        InputError: says which.
    """
    if mask is None:
        return
    shape = (stack.size("Z"), stack.size("Y"), stack.size("X"))
    if mask.shape != shape:
        raise InputError(f"the mask has shape {mask.shape}, the stack's planes are {shape}")
    if not mask.any() or mask.all():
        raise InputError("the mask marks no voxel, or all of them; it must mark the structures")

"""``deepcontrast enhance``: images in; results, model and report out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepcontrast import __version__
from deepcontrast.accept import check_stacks, check_unpaired, choose_device, surfaced
from deepcontrast.compute.memory import describe_bytes, resident
from deepcontrast.config import Config
from deepcontrast.enhancing import enhance
from deepcontrast.errors import InputError
from deepcontrast.excerpt import fits, least
from deepcontrast.io import container_suffix, fingerprint, open_stack, stem
from deepcontrast.jobs.hardware import hardware, machine
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.large import Means, make_large, take_large
from deepcontrast.jobs.results import equalised_record, save
from deepcontrast.jobs.say import Say, describe_stack, looked_at, raise_failures
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.output_checks import check_out, check_space, partial_folder, size_of
from deepcontrast.progress import Progress, silent
from deepcontrast.scale.resources import LOOKING, Resources
from deepcontrast.stack import Stack
from deepcontrast.training import threads
from deepcontrast.workdir import finish, is_done, working

BANK = 0.25
"""Share of the memory that is asked for which the planes that are trained on may take."""


def enhance_images(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    model: Path | None = None,
    iterations: int | None = None,
    mask: Path | None = None,
    members: int = 1,
    fidelity_map: bool = False,
    equalise_depth: bool = False,
    reading: Reading,
    dtype: str | None = None,
    device: str = "auto",
    resources: Resources | None = None,
    plan_only: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Enhance images and write results, model, report, metrics.json and run.json into a folder.

    Of an image that is too large for the memory, an excerpt is looked at; the image itself is then made shard by
    shard. Where workers share the work, that is so of every image that takes more than 2 GB to look at.

    Raises:
        InputError: wrong input; or some of several images failed, and the others are written.
    """
    started = time.monotonic()
    resources = resources or Resources()
    if mask and iterations:
        raise InputError("--mask chooses the iterations, --iterations fixes them; give one of them")
    inputs = [*paths, *([model] if model else []), *([mask] if mask else [])]
    if not plan_only:
        check_out(out, resume=resume, overwrite=overwrite, inputs=inputs)
    listed = list_images(paths)
    stacks, failures = _open_usable(listed, reading, say)
    if failures and mask and listed[0] not in stacks:
        raise InputError(f"the mask is of the first image, which failed: {failures[0]}")
    files = list(stacks)
    check_stacks(list(stacks.values()))
    given = load_model(model) if model else None
    if given:
        config = given.config.model_copy(update={"predict": config.predict})
    check_unpaired(config)
    if not resume:
        _check_memory(stacks.values(), config.train.patch, resources.looks_at())
    if plan_only:
        for line in _planned(stacks, config, given, iterations, members, resources):
            say(line)
        raise_failures(failures, len(listed))
        return
    prints = [fingerprint(file) for file in files]
    options = {
        "iterations": iterations,
        "members": members,
        **asdict(reading),
        "dtype": dtype,
        "fidelity_map": fidelity_map,
        "equalise_depth": equalise_depth,
        # Passes are kept by number, and the mask is the first image's.
        "order": [file.name for file in files],
    }
    job: dict[str, Any] = {
        "version": __version__,
        "verb": "enhance",
        "config": config.model_dump(),
        "input": {file.name: found for file, found in zip(files, prints, strict=True)},
        "model": fingerprint(model) if model else None,
        "mask": fingerprint(mask) if mask else None,
        "options": options,
    }
    if resume and is_done(out, job):
        say(f"'{out}' is complete already; nothing to do")
        raise_failures(failures, len(listed))
        return
    marked = None if mask is None else open_stack(mask).volume() > 0
    # A resumed run has some of it already. Of stacks that are larger than the memory, it is checked once k is known.
    whole = [stack for stack in stacks.values() if fits(stack, resources.looks_at())]
    there = size_of(partial_folder(out)) if resume else 0
    check_space(out, _space(whole, iterations or config.predict.iterations) + 50_000_000 - there)
    where = choose_device(device)
    resources.check()
    begun = {**machine(where), "looks_at": resources.looks_at(), "bank_mb": _bank_mb(resources.memory)}
    with (
        working(out, job, resume=resume, overwrite=overwrite, inputs=inputs, machine=begun) as work,
        threads(work.machine["threads"]),
    ):
        placed = [surfaced(stack, reading.surface) for stack in stacks.values()]
        before = [
            line for file, (stack, why) in zip(files, placed, strict=True) for line in looked_at(file.name, stack, why)
        ]
        for line in before:
            say(line)
        result = enhance(
            [stack for stack, _ in placed],
            config if given else _bounded(config, work.machine["bank_mb"]),
            model=given,
            iterations=iterations,
            mask=marked,
            members=members,
            device=where,
            memory=work.machine["looks_at"],
            folder=work.path,
            fingerprints=prints,
            progress=progress,
        )
        # The surface was found above; to enhance() it is known.
        result = replace(result, why_surface=tuple(why for _, why in placed))
        if equalise_depth:
            result = result.equalise(progress)
        large = {i: work.path / "large" / str(i) for i, part in enumerate(result.excerpts) if part is not None}
        if resources.shared and not large:
            say("workers have nothing to share: the passes over images this small are made while k is chosen")
        if large:
            trained = work.path / "model.safetensors"
            save_model(trained, result.model)
            means = Means(trained, reading, dtype, where, resources.threads_of_one(work.machine["threads"]), resources)
        made = {
            i: make_large(result, i, files[i], means, folder, progress=progress, say=say) for i, folder in large.items()
        }
        seconds = time.monotonic() - started
        said = save(
            result,
            work.result,
            files,
            dtype=dtype,
            fidelity_map=fidelity_map,
            folders=len(listed) > 1,
            large={i: "; ".join(outcome.describe()) for i, outcome in made.items()},
            progress=progress,
        )
        for line in said:
            say(line)
        made_on = hardware(where, result.model)
        equalised = {file.name: equalised_record(result, i) for i, file in enumerate(files)} if equalise_depth else {}
        # Some file systems do not let go of a folder while its files are mapped.
        del result
        for i, folder in large.items():
            take_large(folder, files[i], work.result / stem(files[i]) if len(listed) > 1 else work.result)
        finish(
            work,
            {
                **job,
                "seed": config.train.seed,
                "hardware": made_on,
                "machine": dict(work.machine),
                "seconds": round(time.monotonic() - started, 1),
                "seconds_before_writing": round(seconds, 1),
                "equalised": equalised,
                "said": before + said,
                "failed": failures,
            },
        )
    shown = [out / "report.html"] if len(listed) == 1 else [out / stem(file) / "report.html" for file in files]
    say("done: open " + ", ".join(str(page) for page in shown) + " in a browser")
    raise_failures(failures, len(listed))


def _planned(
    stacks: Mapping[Path, Stack],
    config: Config,
    model: Model | None,
    iterations: int | None,
    members: int,
    resources: Resources,
) -> Iterator[str]:
    """Yield how it would be done, in lines for the user."""
    settings, passes = config.train, iterations or config.predict.iterations
    if model is None:
        networks = max(stack.size("C") for stack in stacks.values()) * members
        yield f"plan: train {networks} network(s), {settings.steps} steps of {settings.batch} patches each"
    memory = resources.looks_at()
    for file, stack in stacks.items():
        size = describe_bytes(memory)
        if fits(stack, memory):
            yield f"plan: {file.name}: fits the {size} at hand; up to {passes} passes over the whole"
        else:
            yield f"plan: {file.name}: larger than the {size} at hand; k from an excerpt, then passes in shards"
    yield f"plan: up to {describe_bytes(_space(stacks.values(), passes))} on disk while at work"


def _space(stacks: Iterable[Stack], passes: int) -> int:
    """Return the bytes that K + 1 passes, result and fidelity map take in float, and the files that are written."""
    return sum(int(np.prod(stack.shape)) for stack in stacks) * 4 * (passes + 5)


def _bank_mb(memory: int | None) -> int | None:
    """Return the room for the planes that are trained on which leaves the rest of the training its own."""
    if memory is None:
        return None
    return max(1, int(min(BANK * memory, memory - resident() - LOOKING) / 1e6))


def _bounded(config: Config, bank_mb: int | None) -> Config:
    """Return the settings with no larger a bank of planes."""
    wanted = config.task.get("bank_mb")
    if wanted is None or bank_mb is None:
        return config
    return config.model_copy(update={"task": {**config.task, "bank_mb": min(wanted, bank_mb)}})


def _check_memory(stacks: Iterable[Stack], patch: int, memory: int) -> None:
    """Refuse, before anything is trained, stacks of which not even the smallest excerpt can be looked at.

    Raises:
        InputError: says how much is needed.
    """
    for stack in stacks:
        needed = least(stack, patch)
        if not fits(stack, memory) and needed > memory:
            left, enough = describe_bytes(max(0, memory)), (resident() + LOOKING + int(1.1 * needed)) // 10**6 + 1
            raise InputError(
                f"looking at '{stack.source}' takes {describe_bytes(needed)}, {left} are left; "
                f"the least that works is --memory {enough}MB"
            )


def _open_usable(files: Sequence[Path], reading: Reading, say: Say) -> tuple[dict[Path, Stack], list[str]]:
    """Open images and say what they are; of several, those that cannot be used are left out and listed."""
    stacks, failures = {}, []
    for file in files:
        try:
            stack = reading.open(file)
            describe_stack(stack, say)
            container_suffix(file)
            check_stacks([stack])
            stacks[file] = stack
        except InputError as error:
            if len(files) == 1:
                raise
            failures.append(f"{file.name}: {error}")
            say(f"{file.name} is left out: {error}")
    if not stacks:
        raise_failures(failures, len(files))
    return stacks, failures

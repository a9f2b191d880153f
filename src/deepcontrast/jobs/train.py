"""``deepcontrast train``: images in, one model file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deepcontrast import __version__
from deepcontrast.accept import check_stacks, choose_device, surfaced
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.io import fingerprint
from deepcontrast.jobs.hardware import machine
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.say import Say, describe_stack, looked_at
from deepcontrast.learning import learn
from deepcontrast.model import load_model, save_model
from deepcontrast.output_checks import check_out, partial_folder
from deepcontrast.progress import Progress, silent
from deepcontrast.training import distributed, threads
from deepcontrast.workdir import finish_single, is_done, working


def train_images(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    members: int = 1,
    reading: Reading,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Train a model on images and write its file.

    Where ``torchrun`` started several processes, the first alone writes and speaks; the others need nothing but the
    images.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
    where = choose_device(device)
    with distributed.joined(where):
        if distributed.rank():
            _train_along(paths, out, config, members=members, reading=reading, device=where)
            return
        check_out(out, resume=resume, overwrite=overwrite, inputs=paths, folder=False)
        files = list_images(paths)
        stacks = [reading.open(file) for file in files]
        for stack in stacks:
            describe_stack(stack, say)
        check_stacks(stacks)
        prints = [fingerprint(file) for file in files]
        options = {"members": members, **asdict(reading), "order": prints}
        job: dict[str, Any] = {
            "version": __version__,
            "config": config.model_dump(),
            "images": sorted(prints),
            "options": options,
        }
        if resume and out.exists():
            there = load_model(out)
            if is_done(out, job, {"config": there.config.model_dump(), **there.provenance}):
                say(f"'{out}' is complete already; nothing to do")
                distributed.shared(0)
                return
        with (
            working(
                out, job, resume=resume, overwrite=overwrite, inputs=paths, folder=False, machine=machine(where)
            ) as work,
            threads(distributed.shared(work.machine["threads"])),
        ):
            placed = [surfaced(stack, reading.surface) for stack in stacks]
            for file, (stack, why) in zip(files, placed, strict=True):
                for line in looked_at(file.name, stack, why):
                    say(line)
            model, _ = learn(
                [stack for stack, _ in placed], config, members=members, device=where, folder=work.path,
                fingerprints=prints, progress=progress,
            )  # fmt: skip
            made = work.result / out.name
            save_model(made, replace(model, provenance={**model.provenance, "options": options}))
            finish_single(work, made)
    say(f"done: {out}")


def _train_along(
    paths: Sequence[Path], out: Path, config: Config, *, members: int, reading: Reading, device: str
) -> None:
    """Take part in the training that the first process leads, with its thread count; nothing is written."""
    count = distributed.shared(0)
    if not count:
        return
    with threads(count):
        placed = [surfaced(reading.open(file), reading.surface)[0] for file in list_images(paths)]
        learn(placed, config, members=members, device=device, folder=partial_folder(out))

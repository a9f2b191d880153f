"""``deepcontrast train``: images in, one model file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deepcontrast import __version__
from deepcontrast.accept import check_stacks, choose_device, surfaced
from deepcontrast.config import Config
from deepcontrast.enhancing import learn
from deepcontrast.errors import InputError
from deepcontrast.io import fingerprint
from deepcontrast.jobs.hardware import machine
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.say import Say, describe_stack, looked_at
from deepcontrast.model import load_model, save_model
from deepcontrast.output_checks import check_out
from deepcontrast.progress import Progress, silent
from deepcontrast.training import threads
from deepcontrast.workdir import finish_file, is_done, working


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
    """Train a model on images and write its file."""
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
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
        made = load_model(out)
        if is_done(out, job, {"config": made.config.model_dump(), **made.provenance}):
            say(f"'{out}' is complete already; nothing to do")
            return
    where = choose_device(device)
    with (
        working(
            out, job, resume=resume, overwrite=overwrite, inputs=paths, folder=False, machine=machine(where)
        ) as work,
        threads(work.machine["threads"]),
    ):
        placed = [surfaced(stack, reading.surface) for stack in stacks]
        for file, (stack, why) in zip(files, placed, strict=True):
            for line in looked_at(file.name, stack, why):
                say(line)
        model, _ = learn(
            [stack for stack, _ in placed], config, members=members, device=where, folder=work.path,
            fingerprints=prints, progress=progress,
        )  # fmt: skip
        save_model(out, replace(model, provenance={**model.provenance, "options": options}))
        finish_file(work)
    say(f"done: {out}")

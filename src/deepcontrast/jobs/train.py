"""``deepcontrast train``: images in, one model file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deepcontrast import __version__
from deepcontrast.accept import check_paired, check_stacks, choose_device, surfaced
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.io import fingerprint
from deepcontrast.jobs.hardware import machine
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.pairs import open_pairs
from deepcontrast.jobs.say import Say, describe_stack, looked_at
from deepcontrast.learning import learn
from deepcontrast.model import load_model, save_model
from deepcontrast.output_checks import check_out, partial_folder
from deepcontrast.progress import Progress, silent
from deepcontrast.stack import Stack
from deepcontrast.training import distributed, threads
from deepcontrast.workdir import finish_single, is_done, working


def train_images(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    targets: Sequence[Path] = (),
    register: bool = False,
    members: int = 1,
    reading: Reading,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Train a model on images, or on pairs of images and targets, and write its file.

    Where ``torchrun`` started several processes, the first alone writes and speaks; the others need nothing but the
    images.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
    where = choose_device(device)
    check_paired(config, bool(targets))
    if register and not targets:
        raise InputError("--register shifts targets; there are none")
    inputs = [*paths, *targets]
    images = _Images(paths, targets, reading, register)
    with distributed.joined(where):
        if distributed.rank():
            _train_along(images, out, config, members=members, device=where)
            return
        check_out(out, resume=resume, overwrite=overwrite, inputs=inputs, folder=False)
        files, stacks, truths = images.open(say)
        prints = [fingerprint(file) for file in files]
        options = {"members": members, **asdict(reading), "order": prints, "register": register}
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
                out, job, resume=resume, overwrite=overwrite, inputs=inputs, folder=False, machine=machine(where)
            ) as work,
            threads(distributed.shared(work.machine["threads"])),
        ):
            placed = images.place(stacks, say)
            model, _ = learn(
                placed, config, targets=truths, members=members, device=where, folder=work.path,
                fingerprints=prints, progress=progress,
            )  # fmt: skip
            made = work.result / out.name
            save_model(made, replace(model, provenance={**model.provenance, "options": options}))
            finish_single(work, made)
    say(f"done: {out}")


@dataclass(frozen=True)
class _Images:
    """What is trained on: images, or pairs of them, and how they are understood."""

    paths: Sequence[Path]
    targets: Sequence[Path]
    reading: Reading
    register: bool

    def open(self, say: Say) -> tuple[list[Path], list[Stack], list[Stack]]:
        """Return files, images, and their targets, which the files end with."""
        if self.targets:
            pairs = open_pairs(self.paths, self.targets, self.reading, register=self.register, say=say)
            files = [file for n in (0, 1) for file in (pair.files[n] for pair in pairs)]
            return files, [pair.image for pair in pairs], [pair.target for pair in pairs]
        files = list_images(self.paths)
        stacks = [self.reading.open(file) for file in files]
        for stack in stacks:
            describe_stack(stack, say)
        check_stacks(stacks)
        return files, stacks, []

    def place(self, stacks: Sequence[Stack], say: Say) -> list[Stack]:
        """Return the images with their surface, which is told of; pairs have none that matters."""
        if self.targets:
            return [stack.with_optics(surface="first") for stack in stacks]
        placed = [surfaced(stack, self.reading.surface) for stack in stacks]
        for stack, why in placed:
            for line in looked_at(Path(stack.source).name, stack, why):
                say(line)
        return [stack for stack, _ in placed]


def _unsaid(line: str) -> None:
    """Keep to oneself what another process says."""


def _train_along(images: _Images, out: Path, config: Config, *, members: int, device: str) -> None:
    """Take part in the training that the first process leads, with its thread count; nothing is written."""
    count = distributed.shared(0)
    if not count:
        return
    with threads(count):
        _, stacks, truths = images.open(_unsaid)
        placed = images.place(stacks, _unsaid)
        learn(placed, config, targets=truths, members=members, device=device, folder=partial_folder(out))

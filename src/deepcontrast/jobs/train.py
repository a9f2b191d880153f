"""``deepcontrast train``: images in, one model file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from deepcontrast import __version__, registry
from deepcontrast.accept import check_paired, check_stacks, choose_device, surfaced, with_inputs
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.io import fingerprint
from deepcontrast.jobs.hardware import machine
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.pairs import open_pairs
from deepcontrast.jobs.say import Say, describe_stack, looked_at
from deepcontrast.learning import checkpoint_of, learn, lessons
from deepcontrast.model import load_model, save_model
from deepcontrast.output_checks import check_out, partial_folder
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.scale.journal import Record, Shard
from deepcontrast.scale.runners import Processes, Report, Work
from deepcontrast.stack import Stack
from deepcontrast.training import distributed, settle, threads, train
from deepcontrast.workdir import finish_single, is_done, working


def train_images(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    targets: Sequence[Path] = (),
    register: bool = False,
    members: int = 1,
    workers: int = 1,
    reading: Reading,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Train a model on images, or on pairs of images and targets, and write its file.

    Several ``workers``, local processes, train as many networks at the same time and share the threads. Where
    ``torchrun`` started several processes, the first alone writes and speaks; the others need nothing but the images.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
    where = choose_device(device)
    config = with_inputs(config, len(paths))
    check_paired(config, bool(targets))
    if register and not targets:
        raise InputError("--register shifts targets; there are none")
    inputs = [*paths, *targets]
    images = Images(paths, targets, reading, register, config)
    with distributed.joined(where):
        if workers > 1 and distributed.size() > 1:
            raise InputError("torchrun trains one network with all processes, --workers one with each; leave one out")
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
        networks = members * (1 if config.task.get("joint") else stacks[0].size("C"))
        workers = min(workers, networks)
        began = machine(where)
        began["threads"] = max(1, began["threads"] // workers)
        with (
            working(out, job, resume=resume, overwrite=overwrite, inputs=inputs, folder=False, machine=began) as work,
            threads(distributed.shared(work.machine["threads"])),
        ):
            placed = images.place(stacks, say)
            if workers > 1:
                order = _Networks(images, config, members, where, work.path.resolve(), work.machine["threads"])
                order.train(placed, truths, networks, workers, progress)
            model, _ = learn(
                placed, config, targets=truths, members=members, device=where, folder=work.path,
                fingerprints=prints, progress=progress,
            )  # fmt: skip
            made = work.result / out.name
            save_model(made, replace(model, provenance={**model.provenance, "options": options}))
            finish_single(work, made)
    say(f"done: {out}")


@dataclass(frozen=True)
class Images:
    """What is trained on: images, or pairs of them, and how they are understood."""

    paths: Sequence[Path]
    targets: Sequence[Path]
    reading: Reading
    register: bool
    config: Config

    def open(self, say: Say) -> tuple[list[Path], list[Stack], list[Stack]]:
        """Return files, images, and their targets, which the files end with."""
        if self.targets:
            pairs = open_pairs(self.paths, self.targets, self.reading, self.config, register=self.register, say=say)
            files = [file for n in (0, 1) for file in (pair.files[n] for pair in pairs)]
            return files, [pair.image for pair in pairs], [pair.target for pair in pairs]
        task: Any = registry.load("tasks", self.config.task_name)
        if not self.paths:
            stack = task.simulated(self.config)
            describe_stack(stack, say)
            return [], [stack], []
        files = list_images(self.paths)
        stacks = [self.reading.open(file) for file in files]
        for stack in stacks:
            describe_stack(stack, say)
            for line in task.assumed(stack, self.config) if task.SIMULATED else ():
                say(line)
        check_stacks(stacks, flat=task.SIMULATED)
        return files, stacks, []

    def place(self, stacks: Sequence[Stack], say: Say) -> list[Stack]:
        """Return the images with their surface, which is told of where it matters."""
        if not registry.load("tasks", self.config.task_name).DEEP:
            return [stack.with_optics(surface="first") for stack in stacks]
        placed = [surfaced(stack, self.reading.surface) for stack in stacks]
        for stack, why in placed:
            for line in looked_at(Path(stack.source).name, stack, why):
                say(line)
        return [stack for stack, _ in placed]


@dataclass(frozen=True)
class _Networks:
    """Networks that processes train at the same time, each to its checkpoint; it can be pickled."""

    images: Images
    config: Config
    members: int
    device: str
    folder: Path
    threads: int

    def train(
        self, stacks: Sequence[Stack], targets: Sequence[Stack], count: int, workers: int, progress: Progress
    ) -> None:
        """Train so many, the members of every channel one after the other, some at a time."""
        channels = lessons(stacks, self.config, targets=targets, progress=progress)
        task: Any = registry.load("tasks", self.config.task_name)
        begun = [checkpoint_of(self.folder, *divmod(n, self.members)) for n in range(count)]
        settled = settle(task, *channels[0], self.config, begun=begun, device=self.device, progress=progress)
        done = 0

        def tell(shares: Mapping[Shard, float]) -> None:
            percent = int(100 * (done + sum(shares.values())) / count)
            progress(Event("train", percent, 100, {"networks": f"{done}/{count}"}))

        with Processes(workers).open(replace(self, config=settled)) as run:
            for (_, n), record in run([("network", n) for n in range(count)], tell):
                done += 1
                for line in record["said"]:
                    progress(Event("train", values={"message": f"network {n}: {line}"}))
        tell({})

    def __call__(self) -> Work:
        torch.set_num_threads(self.threads)
        _, stacks, targets = self.images.open(_unsaid)
        channels = lessons(self.images.place(stacks, _unsaid), self.config, targets=targets)
        task: Any = registry.load("tasks", self.config.task_name)

        def work(shard: Shard, report: Report) -> Record:
            c, m = divmod(shard[1], self.members)
            said = []

            def progress(event: Event) -> None:
                if "message" in event.values:
                    said.append(event.values["message"])
                elif event.stage == "train" and event.total:
                    report(event.done / event.total)

            checkpoint = checkpoint_of(self.folder, c, m)
            train(
                task, *channels[c], self.config,
                member=m, checkpoint=checkpoint, device=self.device, progress=progress,
            )  # fmt: skip
            return {"said": said}

        return work


def _unsaid(line: str) -> None:
    """Keep to oneself what another process says."""


def _train_along(images: Images, out: Path, config: Config, *, members: int, device: str) -> None:
    """Take part in the training that the first process leads, with its thread count; nothing is written."""
    count = distributed.shared(0)
    if not count:
        return
    with threads(count):
        _, stacks, truths = images.open(_unsaid)
        placed = images.place(stacks, _unsaid)
        learn(placed, config, targets=truths, members=members, device=device, folder=partial_folder(out))

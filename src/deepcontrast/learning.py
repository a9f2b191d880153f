"""A model of one experiment: every channel fitted and trained on all its stacks and time points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deepcontrast import __version__, registry
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.model import Channel, Model
from deepcontrast.prediction import load_nets
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.scale.members import Member, restore, volumes_for
from deepcontrast.stack import Stack
from deepcontrast.task import Source
from deepcontrast.training import Trained, train
from deepcontrast.trust import trust
from deepcontrast.valid import survey

MATCHED = 128
"""Voxels along each side of the part of a stack whose spectra are matched."""


def learn(
    stacks: Sequence[Stack],
    config: Config,
    *,
    targets: Sequence[Stack] = (),
    members: int = 1,
    device: str = "cpu",
    folder: Path,
    fingerprints: Sequence[str] = (),
    progress: Progress = silent,
) -> tuple[Model, list[Mapping[str, Sequence[float]]]]:
    """Fit and train every channel of stacks that know their surface.

    Args:
        stacks: all of one experiment.
        config: the settings.
        targets: of every stack, for a task that learns from pairs.
        members: networks of the ensemble.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        folder: where checkpoints are kept; training goes on from those that are there.
        fingerprints: of the images, for the model's provenance.
        progress: gets events.

    Returns:
        The model, and the training curves of every channel's first network.
    """
    task: Any = registry.load("tasks", config.task_name)
    channels, histories = [], []
    settled, trained = config, list[Trained]()
    for c, (sources, fit) in enumerate(lessons(stacks, config, targets=targets, progress=progress)):
        if not (trained and sources[0].together):
            trained = []
            for m in range(members):
                trained.append(
                    train(
                        task, sources, fit, settled,
                        member=m, checkpoint=checkpoint_of(folder, c, m), device=device, progress=progress,
                    )
                )  # fmt: skip
                # What the first network was trained in, by its trial or its checkpoint, holds for all.
                settled = trained[-1].mode.settle(config)
        kept = tuple(one.last if config.train.keep == "last" else one.best for one in trained)
        if config.task.get("match", "off") != "off" and task.matches(fit):
            nets = load_nets(task, kept, fit, config, device)
            fit = matched(task, sources, fit, config, nets, device=device, progress=progress)
        trusted = None
        if config.train.loss == "laplace":
            nets = load_nets(task, kept, fit, config, device)
            shown = task.pairs(sources, config) if task.SIMULATED else sources
            trusted = trust(task, shown, fit, config, nets, device=device, progress=progress)
            for line in trusted.describe():
                progress(Event("trust", values={"message": line}))
            if trusted.after:
                fit = replace(fit, widened=trusted.after.factor, levels=trusted.after.levels)
        table, arrays = fit.encode()
        names = stacks[0].channels
        name = names[c] if c < len(names) else str(c)
        channels.append(Channel(name, table, arrays, kept, trusted.encode() if trusted else None))
        histories.append(trained[0].history)
    how = asdict(trained[0].mode)
    provenance = {"version": __version__, "torch": torch.__version__, "images": sorted(fingerprints), **how}
    return Model(config.task_name, config, tuple(channels), provenance), histories


def matched(
    task: Any,
    sources: Sequence[Source],
    fit: Any,
    config: Config,
    nets: Sequence[nn.Module],
    *,
    device: str,
    progress: Progress,
) -> Any:
    """Return the fit set right by what its networks make of the middle of the first stack, where the task does that."""
    first = sources[0]
    grids = [task.on_grid(one.stack, fit) for one in first.channels]
    frames = [grid.frame(one.t, one.c) for grid, one in zip(grids, first.channels, strict=True)]
    surveys = [survey(frame).with_saturation() for frame in frames]
    norms = [task.own_norm(fit, frame, known) for frame, known in zip(frames, surveys, strict=True)]
    c = first.c if first.together else 0
    member = Member(nets, fit if None in norms else task.normed(fit, norms, c), config, 1.0)

    def volume(one: Member, n: int) -> Any:
        return task.cleaned(frames[n], one.fit, surveys[n])

    def report(share: float) -> None:
        progress(Event("match", int(100 * share), 100))

    z, y, x = (slice((n - min(n, MATCHED)) // 2, (n + min(n, MATCHED)) // 2) for n in frames[0].shape)
    volumes = volumes_for(task, [member], c, volume)
    maps, _ = restore(task, [member], volumes, device=device, report=report, box=(z, y, x))
    found = task.matched(fit, maps["mean"])
    most = float(np.abs(np.fft.fft(found.match)).max())
    progress(Event("match", values={"message": f"fine detail along the axis is multiplied by up to {most:.1f}"}))
    return found


def sources_of(stack: Stack, c: int, target: Stack | None = None) -> list[Source]:
    """Return the time points of a channel."""
    return [Source(stack, t, c, depths(stack), target) for t in range(stack.size("T"))]


def checkpoint_of(folder: Path, c: int, m: int) -> Path:
    """Return where the training of a network of a channel, or of all together, is kept."""
    return folder / f"checkpoint_channel{c}_member{m}.safetensors"


Lesson = tuple[list[Source], Any]
"""The time points of a channel of all stacks, and its fit."""


def lessons(
    stacks: Sequence[Stack], config: Config, *, targets: Sequence[Stack] = (), progress: Progress = silent
) -> list[Lesson]:
    """Return what is trained on, of every channel; where they are restored together, each knows of all."""
    task: Any = registry.load("tasks", config.task_name)
    truths: Sequence[Stack | None] = targets or [None] * len(stacks)
    pairs = list(zip(stacks, truths, strict=True))
    count = stacks[0].size("C")
    images = [[source for stack, target in pairs for source in sources_of(stack, c, target)] for c in range(count)]
    fits = [task.fit(sources, config, progress=progress) for sources in images]
    if config.task.get("joint") and count > 1:
        every = list(zip(*images, strict=True))
        images = [[replace(one, together=all_) for one, all_ in zip(own, every, strict=True)] for own in images]
        fits = task.join(fits)
    return list(zip(images, fits, strict=True))

"""The main job: fit, train, predict, choose k and measure, for stacks of one experiment.

A stack larger than the memory is learned from where it lies; k is chosen and the result measured on an excerpt of it,
and the passes over the whole are left to :mod:`deepcontrast.scale`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import __version__, registry
from deepcontrast.accept import check_mask, check_stacks, surfaced
from deepcontrast.brightness import Brightness, blend, match_brightness
from deepcontrast.config import Config
from deepcontrast.depth import bins, depth_unit, depths
from deepcontrast.equalise import Equalisation, equalise
from deepcontrast.errors import InputError, OutputError
from deepcontrast.evaluation import Fidelity, Row, contrast_rows, fidelity, fidelity_rows
from deepcontrast.excerpt import Excerpt, excerpt
from deepcontrast.excerpt import fits as whole_fits
from deepcontrast.fidelity_map import fidelity_map, flagged_rows
from deepcontrast.model import Channel, Model
from deepcontrast.patches import unseen
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.select import Choice, by_mask, fixed, haze_gone, haze_left, structures_kept
from deepcontrast.stack import Stack
from deepcontrast.task import Source
from deepcontrast.training import train

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Restored:
    """One time point of one channel, enhanced.

    Attributes:
        source: what was enhanced: a stack's volume, or that of its excerpt.
        passes: raw, then k = 1 .. K (Z, Y, X), grey levels, float32; maps of files in the working folder.
        enhanced: the chosen iterations in the raw's brightness, empty and saturated voxels as they were.
        chosen: k of every plane (Z,); between whole numbers a mixture.
        fidelity: whether it is still the raw's, per fifth of the depth.
        band_pass: the same for a Gaussian band-pass, for comparison.
        map: where structure was lost (+) and added (-) (Z, Y, X), in standard deviations of the raw's noise.
        rows: its part of metrics.json.
    """

    source: Source
    passes: tuple[Volume, ...]
    enhanced: Volume
    chosen: NDArray[np.float64]
    fidelity: tuple[Fidelity, ...]
    band_pass: tuple[Fidelity, ...]
    map: Volume
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Enhanced:
    """What :func:`enhance` gives.

    Attributes:
        stacks: the inputs, with the surface that was found or given.
        why_surface: the reason, per stack.
        model: trained, or the one that was given.
        fits: the numbers of every channel.
        histories: training curves of every channel's first network; empty where a model was given.
        choices: k by depth, of every channel.
        brightness: of the passes, of every channel.
        excerpts: what was looked at of every stack; ``None`` where it was the whole.
        restored: of every stack, or its excerpt, the channels, each its time points.
        equalised: how the planes of every stack's channels are multiplied when they are written; empty where they
            are not.
    """

    stacks: tuple[Stack, ...]
    why_surface: tuple[str, ...]
    model: Model
    fits: tuple[Any, ...]
    histories: tuple[Mapping[str, Sequence[float]], ...]
    choices: tuple[Choice, ...]
    brightness: tuple[Brightness, ...]
    excerpts: tuple[Excerpt | None, ...]
    restored: tuple[tuple[tuple[Restored, ...], ...], ...]
    equalised: tuple[tuple[Equalisation, ...], ...] = ()

    def equalise(self, progress: Progress = silent) -> Enhanced:
        """Return the same, to be written with the structures of every stack and channel equally bright at all depths.

        All time points of a channel take the factors of the first. What was measured is that of the result before.
        """
        found = []
        for channels in self.restored:
            of_stack = []
            for (one, *_), fit in zip(channels, self.fits, strict=True):
                camera, source = fit.camera, one.source
                of_stack.append(
                    equalise(
                        one.enhanced,
                        one.passes[0],
                        source.depth,
                        gain=camera.gain,
                        intercept=camera.intercept,
                        offset=fit.norm.offset,
                        valid=source.invalid.valid,
                        progress=progress,
                    )
                )
            found.append(tuple(of_stack))
        return replace(self, equalised=tuple(found))

    def image(self, index: int = 0) -> Stack:
        """Return an enhanced stack in float32, with the axes of its input, equalised where that was asked for.

        Raises:
            InputError: it is larger than the memory.
        """
        if self.excerpts[index] is not None:
            raise InputError(f"'{self.stacks[index].source}' is larger than the memory; its passes are made in shards")
        return self._stack(index, lambda one: self._written(index, one))

    def map(self, index: int = 0) -> Stack:
        """Return where structure was lost (+) and added (-), in standard deviations of the raw's noise.

        Of a stack that is larger than the memory, it is that of the excerpt.
        """
        return self._stack(index, lambda one: one.map)

    def _written(self, index: int, one: Restored) -> Volume:
        if not self.equalised:
            return one.enhanced
        source = one.source
        return self.equalised[index][source.c].apply(one.enhanced, source.depth, source.invalid.valid)

    def _stack(self, index: int, volume: Callable[[Restored], Volume]) -> Stack:
        part = self.excerpts[index]
        stack = self.stacks[index] if part is None else part.stack
        out = np.empty(stack.shape, np.float32)
        for channels in self.restored[index]:
            for one in channels:
                out[stack.index(one.source.t, one.source.c)] = volume(one)
        return replace(stack, array=out)


def enhance(
    stacks: Sequence[Stack],
    config: Config,
    *,
    model: Model | None = None,
    iterations: int | None = None,
    mask: NDArray[np.bool_] | None = None,
    surface: str = "auto",
    members: int = 1,
    device: str = "cpu",
    memory: int | None = None,
    folder: Path,
    fingerprints: Sequence[str] = (),
    progress: Progress = silent,
) -> Enhanced:
    """Enhance stacks of one experiment: one model, one camera fit and one choice of k for all.

    Args:
        stacks: each with Z, Y, X, and T and C where there are; equal channels.
        config: the settings; with ``model``, only ``predict`` is used.
        model: a trained model, which skips training.
        iterations: k for all planes; ``None`` chooses it by depth.
        mask: structures of the first stack (Z, Y, X); chooses k by IoU.
        surface: ``"first"``, ``"last"`` or ``"auto"``.
        members: networks of the ensemble.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        memory: bytes for looking at a stack; of one that needs more, an excerpt is looked at.
        folder: where checkpoints and passes are kept, so that the same call goes on after an interruption. The
            result's passes are maps of files in it.
        fingerprints: of the inputs, for the model's provenance, and to know an image that a given model was trained on.
        progress: gets events; may raise Cancelled.

    Raises:
        InputError: an image that cannot be enhanced: NaN, constant, one plane, other channels than the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_stacks(stacks, progress)
    found = [surfaced(stack, surface) for stack in stacks]
    placed = [stack for stack, _ in found]
    check_mask(mask, placed[0])
    count = placed[0].size("C")
    task: Any = registry.load("tasks", model.task if model else config.task_name)
    # Of several images the order they were trained in is not known, and the squares are numbered by it.
    known = len(fingerprints) == 1 and model is not None and model.provenance.get("images") == list(fingerprints)
    trained_on = model is None or known
    histories: list[Mapping[str, Sequence[float]]] = []
    if model is None:
        model, histories = learn(
            placed,
            config,
            members=members,
            device=device,
            folder=folder,
            fingerprints=fingerprints,
            progress=progress,
        )
    elif len(model.channels) != count:
        raise InputError(f"the model has {len(model.channels)} channels, the image has {count}")
    used = model.config.model_copy(update={"predict": config.predict})
    excerpts = [_excerpt(stack, i, model, task, memory) for i, stack in enumerate(placed)]
    fits, choices, brightnesses = [], [], []
    results: list[list[tuple[Restored, ...]]] = [[] for _ in placed]
    for c, channel in enumerate(model.channels):
        fit = task.Fit.decode(channel.fit, channel.arrays)
        nets = load_nets(task, channel.members, fit, used, device)
        k_max = iterations or config.predict.iterations
        parts = [
            _Part(i, source, excerpts[i], fit if part is None else task.windowed(fit, part.whole[1:], part.y, part.x))
            for i, (stack, part) in enumerate(zip(placed, excerpts, strict=True))
            for source in _sources(stack, c, part)
        ]
        passes = [
            _passes(task, nets, part, used, k_max, folder / "passes" / str(part.stack), device, progress)
            for part in parts
        ]
        regions = [part.unseen(fit, placed) if trained_on else None for part in parts]
        choice, brightness = _choose(task, parts, passes, regions, iterations, mask, progress)
        for part, volumes in zip(parts, passes, strict=True):
            one = _finish(task, part, volumes, choice, brightness, folder / "passes" / str(part.stack), progress)
            if part.source.t == 0:
                results[part.stack].append((one,))
            else:
                results[part.stack][-1] += (one,)
        fits.append(fit)
        choices.append(choice)
        brightnesses.append(brightness)
    return Enhanced(
        tuple(placed),
        tuple(why for _, why in found),
        model,
        tuple(fits),
        tuple(histories),
        tuple(choices),
        tuple(brightnesses),
        tuple(excerpts),
        tuple(tuple(channels) for channels in results),
    )


def learn(
    stacks: Sequence[Stack],
    config: Config,
    *,
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
    settled = config
    for c in range(stacks[0].size("C")):
        sources = [source for stack in stacks for source in _sources(stack, c)]
        fit = task.fit(sources, config, progress=progress)
        trained = []
        for m in range(members):
            one = train(
                task,
                sources,
                fit,
                settled,
                member=m,
                checkpoint=folder / f"checkpoint_channel{c}_member{m}.safetensors",
                device=device,
                progress=progress,
            )
            # What the first network was trained in, by its trial or its checkpoint, holds for all.
            settled = one.mode.settle(config)
            trained.append(one)
        table, arrays = fit.encode()
        names = stacks[0].channels
        name = names[c] if c < len(names) else str(c)
        kept = tuple(one.last if config.train.keep == "last" else one.best for one in trained)
        channels.append(Channel(name, table, arrays, kept))
        histories.append(trained[0].history)
    how = asdict(trained[0].mode)
    provenance = {"version": __version__, "torch": torch.__version__, "images": sorted(fingerprints), **how}
    return Model(config.task_name, config, tuple(channels), provenance), histories


@dataclass(frozen=True, eq=False)
class _Part:
    """What is looked at of one stack: one time point, whole or an excerpt, and the fit for its window."""

    stack: int
    source: Source
    excerpt: Excerpt | None
    fit: Any

    def unseen(self, fit: Any, stacks: Sequence[Stack]) -> NDArray[np.bool_]:
        """Return the pixels (Y, X) that training did not see."""
        whole = unseen(fit.held_out, fit.patch, stacks[self.stack].frame().shape[1:], self.stack)
        return whole if self.excerpt is None else whole[self.excerpt.y, self.excerpt.x]

    def marked(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the structures that a mask of the whole stack marks in it (Z, Y, X)."""
        return mask if self.excerpt is None else mask[self.excerpt.planes, self.excerpt.y, self.excerpt.x]


def _sources(stack: Stack, c: int, excerpt: Excerpt | None = None) -> list[Source]:
    if excerpt is not None:
        return [Source(excerpt.stack, 0, c, excerpt.depth)]
    return [Source(stack, t, c, depths(stack)) for t in range(stack.size("T"))]


def _excerpt(stack: Stack, index: int, model: Model, task: Any, memory: int | None) -> Excerpt | None:
    """Return what is looked at of a stack that is too large to be looked at whole."""
    if memory is None or whole_fits(stack, memory):
        return None
    fit = task.Fit.decode(model.channels[0].fit, model.channels[0].arrays)
    field = stack.frame().shape[1:]
    squares = [
        (y, x) for of, y, x in fit.held_out if of == index and y + fit.patch <= field[0] and x + fit.patch <= field[1]
    ]
    return excerpt(stack, squares, fit.patch, memory)


def _passes(
    task: Any,
    nets: Sequence[torch.nn.Module],
    part: _Part,
    config: Config,
    k_max: int,
    folder: Path,
    device: str,
    progress: Progress,
) -> tuple[Volume, ...]:
    """Apply the networks k_max times over the whole volume; finished passes of an earlier run are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    source, fit = part.source, part.fit
    volume = source.volume()
    current = task.clean(volume, fit, source.invalid)
    passes: list[Volume] = []
    for k in range(k_max + 1):
        path = folder / f"t{source.t}_c{source.c}_k{k}.npy"
        if not path.exists():
            unfinished = path.with_suffix(".tmp")
            out = _mapped(unfinished, volume.shape)
            if k == 0:
                out[:] = volume
            else:
                stage = f"predict {k}/{k_max}"
                predict_pass(task, nets, current, fit, config, out=out, device=device, progress=progress, stage=stage)
            out.flush()
            del out
            unfinished.replace(path)
        passes.append(np.load(path, mmap_mode="r"))
        current = passes[-1] if k else current
    return tuple(passes)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    """Return a new float32 array in a file, all its space taken: a full disk must not kill the process later.

    Raises:
        OutputError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink()
            raise OutputError(f"cannot write '{path}': {error.strerror}") from None
    return array


def _choose(
    task: Any,
    parts: Sequence[_Part],
    passes: Sequence[tuple[Volume, ...]],
    regions: Sequence[NDArray[np.bool_] | None],
    iterations: int | None,
    mask: NDArray[np.bool_] | None,
    progress: Progress,
) -> tuple[Choice, Brightness]:
    """Choose k for one channel and match the brightness, from the first time point of every stack."""
    # Raw as the network saw it: nothing may be judged by a camera pattern, or by the rim of a hole.
    first = [
        (part, (task.clean(part.source.volume(), part.fit, part.source.invalid), *volumes[1:]))
        for part, volumes in zip(parts, passes, strict=True)
        if part.source.t == 0
    ]
    depths_of = [part.source.depth for part, _ in first]
    edges = bins(depths_of)
    valid = [part.source.invalid.valid for part, _ in first]
    brightness = match_brightness([p for _, p in first], depths_of, edges, valid)
    if iterations is not None:
        return fixed(iterations, f"k = {iterations}, as given"), brightness
    if mask is not None:
        return by_mask(first[0][1], first[0][0].marked(mask), valid[0]), brightness
    haze, kept = [], []
    regions = [region for part, region in zip(parts, regions, strict=True) if part.source.t == 0]
    for (part, volumes), known, region in zip(first, valid, regions, strict=True):
        depth, offset = part.source.depth, part.fit.norm.offset
        haze.append(haze_left(volumes, depth, edges, offset=offset, valid=known))
        apart = 1 + max(part.fit.layers)
        kept.append(structures_kept(volumes, depth, edges, known, region, apart=apart, progress=progress))
    return haze_gone(haze, kept, edges, limit=first[0][0].fit.haze), brightness


def _finish(
    task: Any,
    part: _Part,
    passes: tuple[Volume, ...],
    choice: Choice,
    brightness: Brightness,
    folder: Path,
    progress: Progress,
) -> Restored:
    """Blend the chosen passes in the raw's brightness, put invalid voxels back, measure."""
    source, fit = part.source, part.fit
    volume = source.volume()
    valid = source.invalid.valid
    chosen = choice.at(source.depth)
    enhanced = _mapped(folder / f"t{source.t}_c{source.c}_enhanced.npy", volume.shape)
    blend(chosen, source.depth, brightness, offset=fit.norm.offset).write(dict(enumerate(passes)), enhanced)
    unit = depth_unit(source.stack)
    depth_um = [float(d) if unit == "um" else None for d in source.depth]
    raw = task.clean(volume, fit, source.invalid)
    camera = {"gain": fit.camera.gain, "intercept": fit.camera.intercept, "valid": valid}
    band = registry.load("baselines", "band_pass_2d")(raw) + np.float32(fit.norm.offset)
    where = {"t": source.t, "c": source.c}
    rows: list[Row] = []
    for k, result in enumerate(passes):
        method = "deepcontrast" if k else "raw"
        rows += contrast_rows(result, method=method, k=k, depth_um=depth_um, valid=valid, **where)
        progress(Event("measure", k + 1, len(passes) + 4))
    rows += contrast_rows(enhanced, method="deepcontrast", k=None, depth_um=depth_um, valid=valid, **where)
    rows += contrast_rows(band, method="band_pass", k=None, depth_um=depth_um, valid=valid, **where)
    found = fidelity(raw, enhanced, source.depth, **camera)
    differs = _mapped(folder / f"t{source.t}_c{source.c}_fidelity_map.npy", volume.shape)
    fidelity_map(
        raw, enhanced, source.depth, **camera, offset=fit.norm.offset, correlation=fit.camera.whiteness[1:],
        out=differs, progress=progress,
    )  # fmt: skip
    rows += flagged_rows(differs, method="deepcontrast", k=None, depth_um=depth_um, valid=valid, **where)
    if valid is not None:
        enhanced[~valid] = volume[~valid]
    progress(Event("measure", len(passes) + 2, len(passes) + 4))
    beside = fidelity(raw, band, source.depth, **camera)
    known = unit == "um"
    rows += fidelity_rows(found, method="deepcontrast", k=None, known=known, **where)
    rows += fidelity_rows(beside, method="band_pass", k=None, known=known, **where)
    progress(Event("measure", len(passes) + 4, len(passes) + 4))
    return Restored(source, passes, enhanced, chosen, tuple(found), tuple(beside), differs, tuple(rows))

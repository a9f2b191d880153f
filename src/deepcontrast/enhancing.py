"""The main job: learn a model, apply it, choose k and measure, for stacks of one experiment.

A stack larger than the memory is learned from where it lies; k is chosen and the result measured on an excerpt of it,
and the passes over the whole are left to :mod:`deepcontrast.scale`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.accept import check_mask, check_stacks, surfaced
from deepcontrast.brightness import Brightness, blend, match_brightness
from deepcontrast.config import Config
from deepcontrast.depth import bins, depth_unit
from deepcontrast.enhanced import Enhanced, Restored
from deepcontrast.errors import InputError, OutputError
from deepcontrast.evaluation import Row, contrast_rows, fidelity, fidelity_rows
from deepcontrast.excerpt import Excerpt, excerpt
from deepcontrast.excerpt import fits as whole_fits
from deepcontrast.fidelity_map import fidelity_map, flagged_rows
from deepcontrast.learning import learn, sources_of
from deepcontrast.model import Model
from deepcontrast.patches import unseen
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.select import Choice, by_mask, fixed, haze_gone, haze_left, structures_kept
from deepcontrast.stack import Stack
from deepcontrast.task import Source

Volume = NDArray[np.float32]


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
    return sources_of(stack, c)


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
                for run in [slice(None)] if part.excerpt is None else part.excerpt.runs:
                    predict_pass(
                        task, nets, current[run], fit, config, out=out[run], device=device, progress=progress,
                        stage=f"predict {k}/{k_max}",
                    )  # fmt: skip
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
        apart = part.fit.independent
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

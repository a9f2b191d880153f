"""One call: our own run, every baseline, and the scores of all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.accept import check_mask
from deepcontrast.baselines import Scene
from deepcontrast.comparison.cost import measured, size
from deepcontrast.comparison.scoring import CONTRACT, WRITTEN, Job, Known, Scorer, middle, own, tile_ious
from deepcontrast.comparison.table import COST, Column, columns, wins
from deepcontrast.comparison.table import lines as table_lines
from deepcontrast.comparison.tuning import AS_A_USER, Applied, apply
from deepcontrast.config import Config
from deepcontrast.depth import structure_radius
from deepcontrast.enhanced import Enhanced, Restored
from deepcontrast.enhancing import enhance
from deepcontrast.errors import InputError, nearest
from deepcontrast.evaluation import Row, mean_known
from deepcontrast.model import Model
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report.compare_data import ON_TRUTH, OURS, RAW, MethodResult
from deepcontrast.stack import Stack

Volume = NDArray[np.float32]

BUDGET = 120.0
"""Seconds that one method may take; a slower one is applied to a crop."""


@dataclass(frozen=True, eq=False)
class Compared:
    """What :func:`compare` gives.

    Attributes:
        enhanced: our own run.
        scene: what the settings of the baselines were chosen from.
        known: truth, mask and labels.
        methods: raw, ours for k = 1 .. K, ours as written, then the baselines; volumes are maps of files.
        rows: of metrics.json.
        columns: of the table: those that what is known allows.
        iou_tiles: label of a method to the best-threshold IoU of its tiles, NaN where none of the mask is valid.
        skipped: what was not done and why, a sentence each.
    """

    enhanced: Enhanced
    scene: Scene
    known: Known
    methods: tuple[MethodResult, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    iou_tiles: Mapping[str, NDArray[np.float64]]
    skipped: tuple[str, ...]

    @property
    def one(self) -> Restored:
        """Our own results."""
        return self.enhanced.restored[0][0][0]


def compare(
    stack: Stack,
    config: Config,
    *,
    methods: Sequence[str] | None = None,
    known: Known | None = None,
    model: Model | None = None,
    surface: str = "auto",
    device: str = "cpu",
    budget: float = BUDGET,
    folder: Path,
    progress: Progress = silent,
) -> Compared:
    """Enhance a stack, apply the baselines to it, and score all of them alike.

    A baseline sees the raw without camera pattern and empty voxels, as our network does, with the settings of a
    user who knows the scene and, where there is a truth, also with those, of these and its ``CHOICES``, whose
    foreground SSIM (without a mask: SSIM), averaged over the planes, is highest. The latter favours the baseline,
    and is marked.
    One that would take longer than the budget is applied to the middle of every plane; raw and ours are then
    scored there as well.

    Args:
        stack: (Z, Y, X), one channel and time point.
        config: settings of our own run.
        methods: names of baselines; all of them where ``None``.
        known: truth, mask and labels.
        model: a trained model, which skips training.
        surface: ``"first"``, ``"last"`` or ``"auto"``.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        budget: seconds that one method may take with one set of settings.
        folder: where all results are kept; those of the methods are maps of files in it.
        progress: gets events; may raise Cancelled.

    Raises:
        InputError: several channels or time points, an unknown method, a truth, mask or labels of another shape.
    """
    names, known = check_methods(methods), known or Known()
    _check(stack, known)
    spent, listen = _stopwatch(progress)
    enhanced, cost = measured(
        lambda: enhance([stack], config, model=model, surface=surface, device=device, folder=folder, progress=listen)
    )
    one, fit = enhanced.restored[0][0][0], enhanced.fits[0]
    task: Any = registry.load("tasks", enhanced.model.task)
    clean = task.clean(one.source.volume(), fit, one.source.invalid)
    scorer = Scorer(one, fit.camera.gain, fit.camera.intercept, clean, known, progress)
    scene = scene_of(clean, enhanced.stacks[0], fit)
    scored = []
    for label, k, volume in own(one):
        passes = sum(spent.get(f"predict {i}/{len(one.passes) - 1}", 0.0) for i in range(1, (k or 0) + 1))
        said = "" if model else "time with fit and training"
        own_cost = (*cost, said) if k is None else (passes or None, None, "")
        scored.append(scorer(Job(RAW if k == 0 else OURS, label, k), volume, scorer.everything, *own_cost))
    skipped = []
    judge = None if known.truth is None else scorer.agreement
    for done, name in enumerate(names):
        progress(Event("compare", done, len(names), {"method": name}))
        try:
            applied = apply(
                name, clean, scene, judge=judge, budget=budget, device=device, seed=config.train.seed, progress=progress
            )
            for made in applied:
                if made.region not in [result.region for result, _ in scored]:
                    for label, k, volume in ((RAW, 0, one.passes[0]), (WRITTEN, None, one.enhanced)):
                        job = Job(RAW if k == 0 else OURS, f"{label}, {middle(made.region)}", k)
                        scored.append(scorer(job, volume[made.region], made.region))
                volume = kept(folder / "methods" / f"{len(scored)}.npy", made.volume)
                job = Job(name, _label(name, made), made.k, made.tuned)
                scored.append(scorer(job, volume, made.region, made.seconds, made.peak_mb, made.parameters))
        except InputError as error:
            skipped.append(f"{name} is left out: {error}")
    progress(Event("compare", len(names), len(names)))
    results = tuple(result for result, _ in scored)
    return Compared(
        enhanced,
        scene,
        known,
        results,
        tuple(row for _, rows in scored for row in rows),
        columns(truth=known.truth is not None, mask=known.mask is not None, labels=known.labels is not None),
        tile_ious(results, known.mask, one.source.invalid.valid),
        tuple(skipped),
    )


def check_methods(methods: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the baselines that are asked for, each once; all of them for ``None``.

    Raises:
        InputError: one that is not there, with the nearest that is.
    """
    accepted = registry.names("baselines")
    in_files = {contract: name for name, contract in CONTRACT.items()}
    wanted = accepted if methods is None else tuple(dict.fromkeys(in_files.get(name, name) for name in methods))
    for name in wanted:
        if name not in accepted:
            raise InputError(f"no method '{name}'; accepted: {', '.join(accepted)}{nearest(name, accepted)}")
    return wanted


def scene_of(clean: Volume, stack: Stack, fit: Any) -> Scene:
    """Return what a user knows of a stack: structure size, noise, camera, optics.

    Args:
        clean: the raw (Z, Y, X) without camera pattern and empty voxels.
        stack: where it is from.
        fit: of its channel.
    """
    z, _, x = stack.optics.voxel_size
    photons = max(float(np.median(clean)) - fit.camera.intercept, fit.camera.gain)
    return Scene(
        radius=structure_radius(clean),
        anisotropy=z / x if z and x else 1.0,
        noise=float(np.sqrt(fit.camera.gain * photons)),
        background=float(fit.norm.offset),
        gain=float(fit.camera.gain),
        optics=stack.optics,
    )


def means(result: MethodResult) -> dict[str, float]:
    """Return the line of a method: its scores, averaged over the planes, and its cost."""
    speed = result.voxels_per_second
    return {
        **{name: mean_known(values) for name, values in result.scores.items()},
        **result.stack_scores,
        **({} if result.seconds is None else {"seconds": result.seconds}),
        **({} if speed is None else {"mvoxel_per_s": speed / 1e6}),
        **({} if result.peak_mb is None else {"peak_mb": result.peak_mb}),
    }


def lines(compared: Compared) -> list[str]:
    """Return the printed table, what stands in it, and in what the baselines beat our written result."""
    table = {result.label: means(result) for result in compared.methods}
    said = table_lines(table, (*compared.columns, *COST))
    if compared.known.truth is not None:
        said.append("clipped: every grey level below the plane's median set to it; fg: mask dilated by 3 px")
    return [*said, *verdict(compared), *compared.skipped]


def leaders(compared: Compared) -> str:
    """Return in one sentence how many baselines, as a user would tune them, are ahead of ours in which scores."""
    found = [result for result in compared.methods if result.tuned == AS_A_USER]
    ours = {size(r.region): means(r) for r in compared.methods if r.name == OURS and r.k is None}
    ahead = []
    for column in compared.columns:
        pairs = [(r.label, means(r).get(column.metric), ours[size(r.region)].get(column.metric)) for r in found]
        better = [(a, b, n) for n, a, b in pairs if a is not None and b is not None and column.better * (a - b) > 0]
        if better:
            value, own_value, label = max(better, key=lambda one: column.better * (one[0] - one[1]))
            ahead.append(f"{column.name} {len(better)} (most {label}, {value:.3f} against {own_value:.3f})")
    which = f"of {len(found)} baselines, as a user would tune them,"
    if not ahead:
        return f"None {which} is ahead of what would be written in any of these scores."
    return f"So many {which} are ahead of what would be written: {'; '.join(ahead)}."


def verdict(compared: Compared) -> list[str]:
    """Return, for every baseline, in which scores it beats our written result on the same part of the stack."""
    table = {result.label: means(result) for result in compared.methods}
    said = []
    for sizes in dict.fromkeys(size(result.region) for result in compared.methods):
        here = [result for result in compared.methods if size(result.region) == sizes]
        ours = next(result.label for result in here if result.name == OURS and result.k is None)
        others = [result.label for result in here if result.name not in (RAW, OURS)]
        said += wins(table, ours, others, compared.columns, values=False)
    return said


def check_single(stack: Stack) -> None:
    """Refuse a stack of several channels or time points.

    Raises:
        InputError: says which.
    """
    for axis, what in (("C", "channels; --channel selects one"), ("T", "time points; compare takes one")):
        if stack.size(axis) > 1:
            raise InputError(f"'{stack.source}' has {stack.size(axis)} {what}")


def _check(stack: Stack, known: Known) -> None:
    check_single(stack)
    shape = tuple(stack.size(axis) for axis in "ZYX")
    for name, given in (("truth", known.truth), ("labels", known.labels)):
        if given is not None and given.shape != shape:
            raise InputError(f"the {name} has shape {given.shape}, the stack {shape} (Z, Y, X)")
    check_mask(known.mask, stack)


def _stopwatch(progress: Progress) -> tuple[dict[str, float], Progress]:
    """Return seconds by stage, filled while the listener beside it is told of events at the end of each step."""
    spent: dict[str, float] = {}
    last = [time.perf_counter()]

    def listen(event: Event) -> None:
        now = time.perf_counter()
        spent[event.stage] = spent.get(event.stage, 0.0) + now - last[0]
        progress(event)
        last[0] = time.perf_counter()

    return spent, listen


def _label(name: str, made: Applied) -> str:
    if made.tuned == ON_TRUTH:
        return f"{name} (tuned {ON_TRUTH})"
    return name if made.k is None else f"{name} k={made.k:g}"


def kept(path: Path, volume: Volume) -> Volume:
    """Return the volume as a map of a file: many results of a large stack do not fit into memory."""
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.asarray(volume, np.float32))
    mapped: Volume = np.load(path, mmap_mode="r")
    return mapped

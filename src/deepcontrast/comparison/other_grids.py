"""One call for models whose result lies on another grid than the stack: ours, what a user would do, and scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.axial_blur import width_of
from deepcontrast.baselines import nlm
from deepcontrast.comparison.cost import fitting, measured, window
from deepcontrast.comparison.grid_scores import Cutoff, GridScorer, Judge, cutoff_of
from deepcontrast.comparison.scoring import Known
from deepcontrast.comparison.side_by_side import kept
from deepcontrast.comparison.table import COST, Column, lines, wins
from deepcontrast.comparison.tuning import AS_A_USER, in_words
from deepcontrast.errors import InputError, nearest
from deepcontrast.evaluation import Row
from deepcontrast.metrics import Measurement
from deepcontrast.model import Model
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report.compare_data import ON_TRUTH, OURS
from deepcontrast.report.grids_data import TRUTH, GridMethod
from deepcontrast.stack import Stack
from deepcontrast.upsamplers.linear import linear

Volume = NDArray[np.float32]
Run = Callable[[Volume, Mapping[str, Any]], tuple[Volume, Volume | None]]
"""From a volume (Z, Y, X) and changed settings to a result (Z', Y, X) and its height (Y, X)."""

FOLDERS = {"isotropic": "upsamplers", "project": "projections"}
"""Tasks whose result lies on another grid than the stack, and where the methods to compare with are."""
NLM = " + nlm"
FIRST = "linear"
"""What every network for axial sections is given: it is always in the table."""


@dataclass(frozen=True, eq=False)
class Ours:
    """What our model makes of the stack, and what it cost; see :class:`GridMethod`."""

    volume: Volume
    height: Volume | None
    spread: Volume | None
    seconds: float | None
    peak_mb: float | None


@dataclass(frozen=True, eq=False)
class GridsCompared:
    """What :func:`compare_grids` gives.

    Attributes:
        methods: those that are compared, then the truth, where it is known; volumes are maps of files.
        rows: of metrics.json.
        columns: of the table: those that what is known allows.
        cutoff: of the planes; ``None`` for projections.
        settings: what the methods were told of the stack, in words.
        skipped: what was not done and why, a sentence each.
    """

    methods: tuple[GridMethod, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cutoff: Cutoff | None
    settings: str
    skipped: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Made:
    """A result of a method with one set of settings."""

    tuned: str
    parameters: str
    volume: Volume
    height: Volume | None
    seconds: float
    peak_mb: float | None


def check_grid_methods(task: str, methods: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the methods that are asked for, each once; all of them for ``None``.

    Of a projection there is also ``NAME + nlm``. Linear interpolation comes first, asked for or not.

    Raises:
        InputError: one that is not there, with the nearest that is.
    """
    names = registry.names(FOLDERS[task])
    accepted = names if task == "isotropic" else tuple(both for name in names for both in (name, name + NLM))
    wanted = accepted if methods is None else tuple(methods)
    for name in wanted:
        if name not in accepted:
            raise InputError(f"no method '{name}'; accepted: {', '.join(accepted)}{nearest(name, accepted)}")
    return tuple(dict.fromkeys((*((FIRST,) if task == "isotropic" else ()), *wanted)))


def compare_grids(
    stack: Stack,
    model: Model,
    ours: Ours,
    *,
    methods: Sequence[str] | None = None,
    known: Known | None = None,
    budget: float,
    device: str = "cpu",
    folder: Path,
    progress: Progress = silent,
) -> GridsCompared:
    """Apply to a stack what a user would do instead of a model, and score all of it alike.

    A method is applied with its default settings and, where there is a truth, also with those of its ``CHOICES`` whose
    SSIM with the truth is highest: the latter favours the method, and is marked. They are tried on as much of the
    middle of the planes as ``budget`` allows for all of them together. A projection with NLM is the one so made, then
    NLM; of the one that was tuned, NLM is tuned as well. Methods are never cut.

    Args:
        stack: (Z, Y, X), one channel and time point.
        model: of the task ``isotropic`` or ``project``.
        ours: its result.
        methods: names, see :func:`check_grid_methods`.
        known: truth and labels on the grid of the result.
        budget: seconds that the trials of one method may take together.
        device: ``"cpu"`` or ``"cuda"``, for those that use one.
        folder: where results are kept.
        progress: gets events; may raise Cancelled.

    Raises:
        InputError: an unknown method.
    """
    names, known = check_grid_methods(model.task, methods), known or Known()
    volume = np.asarray(stack.volume(), np.float32)
    fixed: dict[str, Any] = {"device": device}
    cutoff = None
    if model.task == "isotropic":
        task: Any = registry.load("tasks", model.task)
        fit = task.Fit.decode(model.channels[0].fit, model.channels[0].arrays)
        sigma = width_of(np.asarray(fit.axial.kernel))
        fixed |= {"factor": fit.factor, "sigma": sigma, "offset": fit.axial.zero}
        cutoff = cutoff_of(linear(volume, factor=fit.factor), stack.optics)
    scorer = GridScorer(known, cutoff)
    judge = None if known.truth is None else scorer.agreement
    scored = [_scored(GridMethod(OURS, OURS, "written", "", "", ours.volume, ours.height, ours.spread,
                                 ours.seconds, ours.peak_mb), scorer)]  # fmt: skip
    skipped: list[str] = []
    projected: dict[str, list[_Made]] = {}
    for done, name in enumerate(names):
        progress(Event("compare", done, len(names), {"method": name}))
        try:
            for made in _results(FOLDERS[model.task], name, volume, fixed, judge, budget, projected):
                at = folder / "methods" / f"{len(scored)}.npy"
                label = f"{name} (tuned {ON_TRUTH})" if made.tuned == ON_TRUTH else name
                kind = "truth" if made.tuned == ON_TRUTH else "raw" if name == FIRST else "user"
                one = GridMethod(
                    name, label, kind, made.tuned, made.parameters, kept(at, made.volume), made.height,
                    seconds=made.seconds, peak_mb=made.peak_mb,
                )  # fmt: skip
                scored.append(_scored(one, scorer))
        except InputError as error:
            skipped.append(f"{name} is left out: {error}")
    progress(Event("compare", len(names), len(names)))
    scored.sort(key=lambda one: one[0].kind != "raw")
    if known.truth is not None:
        truth = GridMethod(TRUTH, TRUTH, "known", "", "", known.truth)
        scored.append(_with(truth, *scorer.phi(known.truth)))
    return GridsCompared(
        tuple(one for one, _ in scored),
        tuple(row for _, rows in scored for row in rows),
        scorer.columns,
        cutoff,
        in_words({key: value for key, value in fixed.items() if key != "device"}),
        tuple(skipped),
    )


def grid_lines(compared: GridsCompared) -> list[str]:
    """Return the printed table, and in what the methods beat our result."""
    table = {one.label: _means(one) for one in compared.methods}
    said = lines(table, (*compared.columns, *(column for column in COST if column.metric != "mvoxel_per_s")))
    others = [one.label for one in compared.methods if one.kind in ("raw", "user", "truth")]
    if any(column.better for column in compared.columns) and others:
        said += wins(table, OURS, others, compared.columns, values=False)
    return [*said, *compared.skipped]


def grid_summary(compared: GridsCompared) -> tuple[str, ...]:
    """Return in a sentence per score how ours stands to the best that a user would do; of Phi, before and after."""
    by_label = {one.label: one for one in compared.methods}
    said = []
    for column in compared.columns:
        scores = {label: one.scores.get(column.metric, np.nan) for label, one in by_label.items()}
        known = {label: value for label, value in scores.items() if np.isfinite(value)}
        rivals = [label for label in known if by_label[label].kind in ("raw", "user")]
        if OURS not in known or not rivals:
            continue
        if column.better:
            best = max(rivals, key=lambda label: column.better * known[label])
            said.append(f"{column.name} {known[OURS]:.3f}; the best of the others, as a user would apply them, "
                        f"is {best} with {known[best]:.3f}.")  # fmt: skip
        else:
            before = f"{column.name} is {known[FIRST]:.2f} before and {known[OURS]:.2f} after"
            said.append(before + (f"; of the truth it is {known[TRUTH]:.2f}." if TRUTH in known else "."))
    return tuple(said)


def _means(one: GridMethod) -> dict[str, float]:
    cost = {"seconds": one.seconds, "peak_mb": one.peak_mb}
    return {**one.scores, **{name: value for name, value in cost.items() if value is not None}}


def _results(
    folder: str,
    name: str,
    volume: Volume,
    fixed: Mapping[str, Any],
    judge: Judge | None,
    budget: float,
    projected: dict[str, list[_Made]],
) -> Iterator[_Made]:
    """Yield the results of a method: as a user would apply it, then, where it has choices and a judge, tuned.

    Projections are kept in ``projected``, for the same with NLM.
    """
    base = name.removesuffix(NLM)
    function: Any = registry.load(folder, base)
    told = {key: value for key, value in fixed.items() if key in inspect.signature(function).parameters}
    run = partial(_upsampled if folder == "upsamplers" else _projected, function, told)
    choices = registry.module(folder, base).CHOICES
    made = partial(_tuned, run, _defaults(function) | told, choices, volume, judge, budget)
    if folder == "upsamplers":
        yield from made()
        return
    if base not in projected:
        projected[base] = list(made())
    if name == base:
        yield from projected[base]
        return
    # A projection without choices has one result, to which NLM is applied in both ways.
    for before, tune in ((projected[base][0], None), *(((projected[base][-1], judge),) if judge else ())):
        *_, after = _tuned(_denoised, _defaults(nlm.nlm), nlm.CHOICES, before.volume, tune, budget)
        words = "; ".join(filter(None, (before.parameters, after.parameters)))
        seconds = before.seconds + after.seconds
        yield _Made(after.tuned, words, after.volume, before.height, seconds, after.peak_mb)


def _tuned(
    run: Run,
    settings: Mapping[str, Any],
    choices: Sequence[Mapping[str, Any]],
    volume: Volume,
    judge: Judge | None,
    budget: float,
) -> Iterator[_Made]:
    (result, height), cost = measured(lambda: run(volume, {}))
    used = _Made(AS_A_USER, _worded(settings, {}), result, height, *cost)
    yield used
    tried: list[Mapping[str, Any]] = [{}, *(choice for choice in choices if choice)]
    if judge is None or len(tried) == 1:
        return
    _, spent = measured(lambda: judge(result, slice(None), slice(None)))
    rate = (cost.seconds + spent.seconds, volume.size)
    box = window(volume.shape, fitting(volume.shape, budget / len(tried), rate, rate))
    scores = [judge(run(volume[box], choice)[0], box[1], box[2]) for choice in tried]
    best = tried[int(np.argmax(scores))]
    (result, height), cost = measured(lambda: run(volume, best))
    yield _Made(ON_TRUTH, _worded(settings, best), result, height, *cost)


def _upsampled(
    function: Any, told: Mapping[str, Any], volume: Volume, choice: Mapping[str, Any]
) -> tuple[Volume, Volume | None]:
    return function(volume, **{**told, **choice}), None


def _projected(
    function: Any, told: Mapping[str, Any], volume: Volume, choice: Mapping[str, Any]
) -> tuple[Volume, Volume | None]:
    made = function(volume, **{**told, **choice})
    return made.image[None], made.height


def _denoised(volume: Volume, choice: Mapping[str, Any]) -> tuple[Volume, Volume | None]:
    return nlm.nlm(volume, **choice), None


def _defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _worded(settings: Mapping[str, Any], choice: Mapping[str, Any]) -> str:
    """Return the settings in words, without what every method of a stack shares or nobody chose."""
    shown = {**settings, **choice}
    return in_words({k: v for k, v in shown.items() if k not in ("device", "factor", "offset") and v is not None})


def _scored(one: GridMethod, scorer: GridScorer) -> tuple[GridMethod, list[Row]]:
    return _with(one, *scorer(one.volume))


def _with(one: GridMethod, measured: Sequence[Measurement], curves: Mapping[str, Any]) -> tuple[GridMethod, list[Row]]:
    """Return a method with its scores, and its rows of metrics.json."""
    scores = {row.metric: np.nan if row.value is None else row.value for row in measured}
    rows = [Row(one.label, None, 0, 0, None, None, row.metric, row.value, row.reason) for row in measured]
    return replace(one, scores=scores, curves=curves), rows

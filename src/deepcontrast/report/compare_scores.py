"""Scores of many methods as tables: which columns, which numbers, which of them is the best."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepcontrast.report.compare_data import ON_TRUTH, OURS, RAW, CompareData, MethodResult
from deepcontrast.report.data import Array
from deepcontrast.report.wording import number

CLIPPED = "_clipped"
CONTRAST = ("wci", "pci")
FIDELITY = "fidelity_"
DETAILS = ("_level_", "_threshold")
"""Left to metrics.json: contrast of single levels, and where the best threshold lies."""

LEFT_OUT = (*DETAILS, "_resolution", "_width", "_depth")
"""The same of results on another grid than the stack's."""

FEWER_SCALES = re.compile(r"_(\d)_scales")
"""In the name of MS-SSIM on planes too small for all its scales."""

UNKNOWN = "—"
MOST_COLUMNS = 16


@dataclass(frozen=True)
class Family:
    """A metric, whole or in the foreground, as written or clipped.

    Attributes:
        short: head of its columns.
        name: what it is in full.
        form: format of a value.
        better: 1 where higher is better, -1 where lower is, 0 where neither can be said.
    """

    short: str
    name: str
    form: str
    better: int


FAMILIES = {
    "wci": Family("WCI", "WCI, wavelet contrast index", ".2f", 0),
    "pci": Family("PCI", "PCI, percentile contrast index", ".2f", 0),
    "iou": Family("IoU", "IoU at the best threshold of each plane", ".3f", 1),
    "ssim": Family("SSIM", "SSIM, structural similarity", ".3f", 1),
    "ssim_foreground": Family("SSIM, foreground", "SSIM in the foreground", ".3f", 1),
    "ms_ssim": Family("MS-SSIM", "MS-SSIM, multi-scale structural similarity", ".3f", 1),
    "ms_ssim_foreground": Family("MS-SSIM, foreground", "MS-SSIM in the foreground", ".3f", 1),
    "pearson": Family("r", "Pearson correlation r", ".3f", 1),
    "pearson_foreground": Family("r, foreground", "Pearson correlation r in the foreground", ".3f", 1),
    "nrmse": Family("NRMSE", "NRMSE, lower is better", ".3f", -1),
    "nrmse_foreground": Family("NRMSE, foreground", "NRMSE in the foreground, lower is better", ".3f", -1),
    "psnr": Family("PSNR (dB)", "PSNR (dB)", ".1f", 1),
    "psnr_foreground": Family("PSNR (dB), foreground", "PSNR in the foreground (dB)", ".1f", 1),
    "seg": Family("SEG", "SEG, mean IoU of matched objects", ".3f", 1),
    "error": Family("ERROR", "ERROR, share of unmatched objects, lower is better", ".3f", -1),
    "isotropy": Family("Φ", "Φ, power along z over power along x and y", ".3f", 0),
    "fourier_shell_mean": Family("FSC", "FSC, mean Fourier shell correlation", ".3f", 1),
    "fourier_shell_mean_axial": Family("FSC about z", "FSC about z", ".3f", 1),
    "membrane_seg": Family("SEG", "SEG, mean IoU of matched cells", ".3f", 1),
}


@dataclass(frozen=True)
class Column:
    """Values of one metric, one per method, and how they are shown.

    Attributes:
        family: head over this and neighbouring columns.
        variant: head of this one.
        form: format of a value, or ``"time"``.
        better: 1, -1 or 0, see ``Family``.
        values: one per method.
        per_voxel: a method that saw a crop may be compared with the others.
    """

    family: str
    variant: str
    form: str
    better: int
    values: tuple[float, ...]
    per_voxel: bool = False


@dataclass(frozen=True)
class Cell:
    """A value as it is shown, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table: heads of the families with the number of their columns, heads of the columns, a row per method."""

    heads: tuple[tuple[str, int], ...]
    variants: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def base(metric: str) -> str:
    """Return the name of a metric without what was done to the image."""
    return metric.removesuffix(CLIPPED)


def family(metric: str) -> Family:
    """Return what is known of a metric; of an unknown one its name, and no opinion on which end is better."""
    scales = FEWER_SCALES.search(metric)
    if scales:
        whole, said = family(FEWER_SCALES.sub("", metric)), f"MS-SSIM ({scales[1]} scales)"
        return replace(whole, short=whole.short.replace("MS-SSIM", said), name=whole.name.replace("MS-SSIM", said))
    words = base(metric).replace("_", " ")
    return FAMILIES.get(base(metric), Family(words, words, ".3g", 0))


def families(metrics: Iterable[str]) -> list[str]:
    """Return the families that some metrics belong to, in the order of FAMILIES, unknown ones last."""
    found = list(dict.fromkeys(base(metric) for metric in metrics))
    places = {name: place for place, name in enumerate(FAMILIES)}
    return sorted(found, key=lambda name: places.get(FEWER_SCALES.sub("", name), len(places)))


def measured(data: CompareData) -> list[str]:
    """Return the metrics that any method has, by family, each as written and then clipped."""
    names = {
        name
        for m in data.methods
        for name, values in m.scores.items()
        if np.isfinite(values).any() and not any(part in name for part in DETAILS)
    }
    given = [name for m in data.methods for name in m.scores]
    return [name for kin in families(given) for name in (kin, kin + CLIPPED) if name in names]


def mean(values: Array | None) -> float:
    """Return the mean of what is defined; NaN where nothing is."""
    known = np.asarray(() if values is None else values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else float("nan")


def cropped(data: CompareData, method: MethodResult) -> bool:
    """Return whether a method saw less than the whole stack."""
    return method.volume.shape != data.methods[0].volume.shape


def aside(data: CompareData, method: MethodResult) -> bool:
    """Return whether this is the raw or ours on a crop: there to be read beside a slow method, shown in full above."""
    return cropped(data, method) and method.name in (RAW, OURS)


def is_pass(method: MethodResult) -> bool:
    """Return whether this is one pass of ours, rather than what is written."""
    return method.name == OURS and method.k is not None and method.k == round(method.k)


def kind(method: MethodResult) -> str:
    """Return ``raw``, ``pass``, ``written``, ``truth`` (a baseline tuned on it) or ``user``."""
    if method.name == RAW:
        return "raw"
    if method.name == OURS:
        return "pass" if is_pass(method) else "written"
    return "truth" if method.tuned == ON_TRUTH else "user"


def score_columns(data: CompareData) -> list[Column]:
    """Return the columns of quality: means over planes, then the scores of whole stacks."""
    columns = []
    for metric in measured(data):
        about = family(metric)
        if base(metric) not in CONTRAST:
            values = tuple(mean(m.scores.get(metric)) for m in data.methods)
            variant = "clipped" if metric.endswith(CLIPPED) else "written"
            columns.append(Column(about.short, variant, about.form, about.better, values))
    for metric in _of_stack(data):
        if not metric.startswith(FIDELITY):
            about = family(base(metric).removesuffix("_stack"))
            words = about.short + (", clipped" if metric.endswith(CLIPPED) else "")
            columns.append(Column("Whole stack", words, about.form, about.better, _stack_values(data, metric)))
    return columns


def split(columns: Sequence[Column]) -> list[list[Column]]:
    """Return columns in as few tables as fit the page, about equally wide; a family stays together."""
    count = -(-len(columns) // MOST_COLUMNS)
    parts: list[list[Column]] = [[]]
    for i, column in enumerate(columns):
        begins = i > 0 and column.family != columns[i - 1].family
        if begins and i * count >= len(parts) * len(columns):
            parts.append([])
        parts[-1].append(column)
    return parts if columns else []


def contrast_columns(data: CompareData) -> list[Column]:
    """Return the columns of contrast, means over planes, and of fidelity to the raw.

    None is the best: more contrast is not always better, and nothing is as faithful to the raw as the raw.
    """
    columns = []
    for metric in measured(data):
        about = family(metric)
        if base(metric) in CONTRAST:
            values = tuple(mean(m.scores.get(metric)) for m in data.methods)
            columns.append(Column(about.short, "clipped" if metric.endswith(CLIPPED) else "", about.form, 0, values))
    return columns + [
        Column("Fidelity", metric.removeprefix(FIDELITY), ".3f", 0, _stack_values(data, metric))
        for metric in _of_stack(data)
        if metric.startswith(FIDELITY)
    ]


def _of_stack(data: CompareData) -> list[str]:
    given = dict.fromkeys(name for m in data.methods for name in m.stack_scores)
    return [name for name in given if not any(part in name for part in DETAILS)]


def _stack_values(data: CompareData, metric: str) -> tuple[float, ...]:
    return tuple(float(m.stack_scores.get(metric, np.nan)) for m in data.methods)


def cost_columns(data: CompareData) -> list[Column]:
    """Return time, throughput and memory."""
    columns = [Column("Time", "measured", "time", -1, tuple(_value(m.seconds) for m in data.methods))]
    if any(cropped(data, m) for m in data.methods):
        columns.append(
            Column("Time", "whole stack", "time", -1, tuple(whole_time(data, m) for m in data.methods), True)
        )
    rate = tuple(_value(m.voxels_per_second) / 1e6 for m in data.methods)
    memory = tuple(_value(m.peak_mb) for m in data.methods)
    return [*columns, Column("Mvoxel/s", "", ".3g", 1, rate, True), Column("Memory (MB)", "", ".0f", -1, memory)]


def whole_time(data: CompareData, method: MethodResult) -> float:
    """Return the seconds for the whole stack: measured, or from the throughput in the crop; NaN where unknown."""
    if not cropped(data, method):
        return _value(method.seconds)
    rate = _value(method.voxels_per_second)
    return data.methods[0].volume.size / rate if rate > 0 else float("nan")


def _value(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def table(data: CompareData, columns: Sequence[Column], *, order: Sequence[int]) -> Table:
    """Return columns as a table, its rows in the given order of methods.

    The best of a column is set apart, and where it was tuned on the truth, the best of the others, too. Methods
    that saw a crop are scored on other voxels and do not compete.
    """
    cells = []
    for column in columns:
        competes = [column.per_voxel or not cropped(data, m) for m in data.methods]
        honest = [here and kind(m) != "truth" for here, m in zip(competes, data.methods, strict=True)]
        texts = [shown(value, column.form) for value in column.values]
        best = {_best(column, texts, competes), _best(column, texts, honest)}
        cells.append([Cell(text, here and text in best) for text, here in zip(texts, competes, strict=True)])
    heads: dict[str, int] = {}
    for column in columns:
        heads[column.family] = heads.get(column.family, 0) + 1
    rows = tuple(tuple(column[i] for column in cells) for i in order)
    return Table(tuple(heads.items()), tuple(column.variant for column in columns), rows)


def _best(column: Column, texts: Sequence[str], competes: Sequence[bool]) -> str | None:
    """Return the best value as it is shown, so that what looks equal is marked alike."""
    known = [i for i, value in enumerate(column.values) if competes[i] and np.isfinite(value)]
    if column.better == 0 or len(known) < 2:
        return None
    return texts[max(known, key=lambda i: column.better * column.values[i])]


def shown(value: float, form: str) -> str:
    """Return a value in the form of its column; a dash where there is none."""
    if not np.isfinite(value):
        return UNKNOWN
    return duration(value) if form == "time" else number(value, form)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for below, unit, size in ((1.0, "ms", 1e-3), (120.0, "s", 1.0), (7200.0, "min", 60.0)):
        if seconds < below:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"

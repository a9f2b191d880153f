"""The table of a comparison: its columns, its lines, and the sentence that says who beats us in what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """A column: metric, heading, what a sentence calls it; more of it is better (1), worse (-1) or neither (0)."""

    metric: str
    head: str
    name: str
    better: int = 1


IOU = (Column("iou", "IoU", "IoU"),)
TRUTH = (
    Column("ssim", "SSIM", "SSIM"),
    Column("ssim_clipped", "clipped", "SSIM clipped"),
    Column("ssim_foreground", "SSIM fg", "SSIM fg"),
    Column("ssim_foreground_clipped", "clipped", "SSIM fg clipped"),
    Column("pearson", "corr.", "corr."),
    Column("pearson_clipped", "clipped", "corr. clipped"),
    Column("nrmse", "NRMSE", "NRMSE", -1),
    Column("psnr", "PSNR", "PSNR"),
)
LABELS = (Column("seg", "SEG", "SEG"), Column("error", "ERROR", "ERROR", -1))
CONTRAST = (Column("wci", "WCI", "WCI", 0),)
BLIND = (
    Column("pci", "PCI", "PCI", 0),
    Column("fidelity_correlation", "fidelity", "correlation with the raw's structures"),
    Column("fidelity_unsupported", "unsupp.", "share of structures without support in the raw", -1),
)
COST = (
    Column("seconds", "s", "time", -1),
    Column("mvoxel_per_s", "Mvox/s", "throughput"),
    Column("peak_mb", "MB", "memory", -1),
)

WIDTH = 9

Table = Mapping[str, Mapping[str, float]]
"""Label of a method to its means by metric; NaN or missing where undefined."""


def columns(*, truth: bool, mask: bool, labels: bool) -> tuple[Column, ...]:
    """Return the columns of scores that what is known of a stack allows."""
    against = tuple(c for c in TRUTH if mask or "foreground" not in c.metric) if truth else ()
    return (*(IOU if mask else ()), *against, *(LABELS if labels else ()), *CONTRAST, *(() if truth else BLIND))


def lines(table: Table, shown: Sequence[Column]) -> list[str]:
    """Return the heading and one line per method; a dash where a score is not defined."""
    width = max(24, *(len(label) + 1 for label in table))
    heading = f"{'method':<{width}}" + "".join(f"{c.head:>{WIDTH}}" for c in shown)
    return [heading, *(f"{label:<{width}}" + "".join(_cell(row, c) for c in shown) for label, row in table.items())]


def wins(table: Table, ours: str, others: Sequence[str], shown: Sequence[Column], values: bool = True) -> list[str]:
    """Return, per method, in which columns it beats ours; those that do in none share a sentence."""
    said, none = [], []
    for label in others:
        better = [
            c.name + (f" ({theirs:.3f} against {own:.3f})" if values else "")
            for c in shown
            if c.better * (theirs := _value(table[label], c)) > c.better * (own := _value(table[ours], c))
        ]
        if better:
            said.append(f"{label} wins in: {', '.join(better)}")
        else:
            none.append(label)
    return [*said, *([f"{', '.join(none)} {'wins' if len(none) == 1 else 'win'} in none of these"] if none else [])]


def _value(row: Mapping[str, float], column: Column) -> float:
    return row.get(column.metric, math.nan)


def _cell(row: Mapping[str, float], column: Column) -> str:
    value = _value(row, column)
    digits = 1 if column.metric in ("psnr", "seconds", "mvoxel_per_s") else 0 if column.metric == "peak_mb" else 3
    return f"{'-':>{WIDTH}}" if math.isnan(value) else f"{value:>{WIDTH}.{digits}f}"

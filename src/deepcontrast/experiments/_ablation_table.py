"""The table of the ablation, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.experiments import Cell, Run
from deepcontrast.experiments._scores import spread

RAW, ORACLE, AUTO, ALL = "raw", "oracle", "auto", "all"
SCORES = ("iou", "ssim_clipped", "ssim_foreground_clipped", "pearson_clipped")
SHORT = {
    "iou": "IoU", "ssim_clipped": "SSIM", "ssim_foreground_clipped": "SSIM of the foreground",
    "pearson_clipped": "correlation",
}  # fmt: skip
DEEP = 2
"""Parts of the depth that are the deep ones."""
LEAST = 0.01
"""Gap between raw and oracle of which a share is still a number."""
Array = NDArray[np.float64]
Scored = Mapping[tuple[str, str], Mapping[str, Array]]
"""Scores (part of the depth, score) by method and k, and then by stack."""


@dataclass(frozen=True)
class Table:
    """Columns and rows of a finding: over all stacks first, then over those of each phantom."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def tabulate(runs: Sequence[Run]) -> Table:
    """Return means over all stacks for every k, and over those of each phantom for what ``enhance`` writes."""
    every, phantoms = _scored(runs), {str(run["stack"]): str(run["phantom"]) for run in runs}
    spent = {(run["method"], run["k"], run["stack"]): run["cpu_s"] for run in runs}
    rows = []
    for phantom in (ALL, *dict.fromkeys(phantoms.values())):
        there = [stack for stack, kind in phantoms.items() if phantom in (ALL, kind)]
        for (method, k), scores in every.items():
            if phantom != ALL and k not in ("", AUTO):
                continue
            values = np.array([scores[stack] for stack in there])
            whole, deep = _mean(values, 1), _mean(values[:, -DEEP:], 1)
            cells: list[Cell] = [phantom, method, k, len(there)]
            for part in (whole, deep):
                for n in range(len(SCORES)):
                    cells += spread(part[:, n].tolist())
            share = closed(every, method, k, there)
            cells += [None, None] if share is None else [_shares(share), _percent(share)]
            cells += [worst(every, method, k, there), spread([spent[method, k, one] for one in there])[0]]
            rows.append(tuple(cells))
    columns = [f"{part}{score}{sd}" for part in ("", "deep_") for score in SCORES for sd in ("", "_sd")]
    return Table(("phantom", "method", "k", "stacks", *columns, "closed", "closed_mean", "worst", "cpu_s"), tuple(rows))


def closed(every: Scored, method: str, k: str, stacks: Sequence[str]) -> Array | None:
    """Return the share of the gap between raw and oracle that is closed (score,); ``None`` without an oracle.

    The mean over the stacks whose oracle is better than the raw; NaN where none is.
    """
    best = every.get((ORACLE, ""))
    if best is None:
        return None
    raw, scores = every[RAW, ""], every[method, k]
    gap = np.array([_mean(best[one] - raw[one], 0) for one in stacks])
    gained = np.array([_mean(scores[one] - raw[one], 0) for one in stacks])
    share: Array = _mean(np.where(gap > LEAST, gained / np.where(gap > LEAST, gap, 1), np.nan), 0)
    return share


def worst(every: Scored, method: str, k: str, stacks: Sequence[str]) -> float:
    """Return by how much the worst score of the worst part of the depth is above the raw's."""
    gained = _mean(np.array([every[method, k][one] - every[RAW, ""][one] for one in stacks]), 0)
    return float(gained[np.isfinite(gained)].min(initial=np.inf))


def told(runs: Sequence[Run], steps: Sequence[str], beside: Sequence[str]) -> tuple[str, ...]:
    """Return what the last step closes, how it compares with the filters, and what each step adds.

    Args:
        runs: of all methods.
        steps: methods, each with one idea more than the one before.
        beside: methods that are compared with the last step.
    """
    every, table = _scored(runs), tabulate(runs)
    stacks = list(every[RAW, ""])
    said = []
    if steps:
        last = steps[-1]
        share = closed(every, last, AUTO, stacks)
        if share is not None and np.isfinite(share).all():
            parts = ", ".join(f"{100 * s:.0f} % in {SHORT[name]}" for s, name in zip(share, SCORES, strict=True))
            said.append(f"Of the gap between raw and oracle '{last}' closes {parts}; {_percent(share)} % in the mean.")
        said.append(_bins(table, last))
        filters = [method for method, k in every if k == "" and method not in (RAW, ORACLE)]
        said += [_against(every, (last, AUTO), (other, ""), stacks) for other in filters]
        said += [_against(every, (other, AUTO), (last, AUTO), stacks) for other in beside]
    ideas = zip(steps, steps[1:], strict=False)
    return (*said, *(_against(every, (idea, AUTO), (before, AUTO), stacks) for before, idea in ideas))


def _against(every: Scored, one: tuple[str, str], other: tuple[str, str], stacks: Sequence[str]) -> str:
    """Return a sentence about the difference of two methods, over the depth and in the deep."""
    gaps = np.array([every[one][stack] - every[other][stack] for stack in stacks])
    higher = int((_mean(_mean(gaps, 1), 1) > 0).sum())
    whole, deep = _mean(_mean(gaps, 1), 0), _mean(_mean(gaps[:, -DEEP:], 1), 0)
    parts = ", ".join(f"{SHORT[s]} {w:+.3f} ({d:+.3f})" for s, w, d in zip(SCORES, whole, deep, strict=True))
    verdict = f"mean of the four higher in {higher} of {len(stacks)} stacks"
    return f"'{one[0]}' less '{other[0]}', in brackets in the deep two fifths: {parts}; {verdict}."


def _bins(table: Table, method: str) -> str:
    column = table.columns.index("worst")
    least = {str(row[0]): row[column] for row in table.rows if row[1:3] == (method, AUTO) and row[0] != ALL}
    below = [f"{name} {value:+.3f}" for name, value in least.items() if isinstance(value, float) and value < 0]
    if not below:
        return f"For no phantom is '{method}' below the raw in any score of any fifth of the depth."
    return f"'{method}' is below the raw in a score of a fifth of the depth: {', '.join(below)}."


def _scored(runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, Array]]:
    found: dict[tuple[str, str], dict[str, list[list[float]]]] = {}
    for run in runs:
        stack = found.setdefault((str(run["method"]), str(run["k"])), {}).setdefault(str(run["stack"]), [])
        stack.append([np.nan if (value := run[name]) is None else float(value) for name in SCORES])
    return {key: {stack: np.array(values) for stack, values in stacks.items()} for key, stacks in found.items()}


def _mean(values: Array, axis: int) -> Array:
    """Return the mean of what is defined along an axis, NaN where nothing is."""
    known = np.isfinite(values)
    total: Array = np.where(known, values, 0).sum(axis=axis)
    return np.where(known.any(axis=axis), total / np.maximum(known.sum(axis=axis), 1), np.nan)


def _shares(share: Array) -> str:
    return " / ".join(f"{100 * one:.0f}" if np.isfinite(one) else "-" for one in share)


def _percent(share: Array) -> int | None:
    return round(100 * float(share.mean())) if np.isfinite(share).all() else None

"""The picture of an experiment: planes above, scores below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.experiments import Cell
from deepcontrast.experiments._scores import WORDS
from deepcontrast.report.canvas import new_figure, plain_style, png_bytes
from deepcontrast.report.figures import MARKER_COLOURS
from deepcontrast.report.pictures import LONG_SIDE, display_range, shrink

Plane = NDArray[np.float32]
Pictures = Sequence[tuple[str, Mapping[str, Plane]]]
"""Rows of pictures: what stands before the row, and its planes (Y, X) by the title of their column."""


def figure(
    pictures: Pictures,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    x: str,
    scores: Sequence[str],
    series: str | None = None,
    joined: bool = True,
) -> bytes:
    """Return a PNG of planes, each between its own percentiles 1 and 99.8, above a panel for every score.

    Args:
        pictures: the planes; every row has the same columns.
        columns, rows: the table of the experiment; ``<score>_sd`` is drawn as a bar.
        x: the column that the scores are drawn against, in the order of the rows.
        scores: columns to draw.
        series: the column whose values become lines of different colours.
        joined: whether lines join the scores, as where ``x`` is an amount.
    """
    first = next(iter(pictures[0][1].values()))
    wide = 1120 / len(pictures[0][1])
    tall = (wide * first.shape[0] / first.shape[1] + 8) * len(pictures) + 24
    with plain_style():
        whole = new_figure(1120, tall + 300)
        parts: Any = whole.subfigures(2, 1, height_ratios=(tall, 300))
        upper, lower = parts
        _draw_pictures(upper, pictures)
        panels = lower.subplots(1, len(scores), squeeze=False)[0]
        table = [dict(zip(columns, row, strict=True)) for row in rows]
        places = {value: n for n, value in enumerate(dict.fromkeys(row[x] for row in table))}
        lines = list(dict.fromkeys(row[series] for row in table)) if series else [None]
        for axes, score in zip(panels, scores, strict=True):
            for n, line in enumerate(lines):
                shown = [row for row in table if (series is None or row[series] == line) and row[score] is not None]
                axes.errorbar(
                    [places[row[x]] for row in shown],
                    [row[score] for row in shown],
                    [row.get(f"{score}_sd") or 0.0 for row in shown],
                    marker="o", markersize=4, linestyle="-" if joined else "none", capsize=3, label=str(line),
                    color=MARKER_COLOURS[n % len(MARKER_COLOURS)],
                )  # fmt: skip
            axes.set_title(WORDS.get(score, score))
            axes.set_xticks(range(len(places)), [str(value) for value in places])
            long = max(len(str(value)) for value in places) * len(places) * len(scores) > 150
            if long:
                axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
            axes.set_xlabel(x)
        if series:
            lower.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, title=series)
        return png_bytes(whole)


def _draw_pictures(figure: Any, pictures: Pictures) -> None:
    grid = figure.subplots(len(pictures), len(pictures[0][1]), squeeze=False)
    for n, (line, (label, planes)) in enumerate(zip(grid, pictures, strict=True)):
        for m, (axes, (title, plane)) in enumerate(zip(line, planes.items(), strict=True)):
            small = shrink(np.asarray(plane, np.float32), max(1, max(plane.shape) // (LONG_SIDE // 2)))
            low, high = display_range(small)
            axes.imshow(small, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            if n == 0:
                axes.set_title(title)
            if m == 0:
                axes.set_ylabel(label)

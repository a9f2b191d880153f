"""The plots of the comparison: arrays to PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy import stats

from deepcontrast.report.canvas import INK, RAW, new_figure, plain_style, room, say, small_png_bytes
from deepcontrast.report.data import Array

WRITTEN, TRUTH, PALE = "#0a2550", "#f0dca0", "#c9c9c9"
BASELINES = (
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#7b3294",
    "#b2182b",
    "#5a8f00",
    "#8c564b",
    "#ff7f6e",
    "#e0218a",
    "#3c3c3c",
    "#a0522d",
    "#f0a500",
    "#4d4d00",
)
"""Of the baselines, by name; our own are blue."""

PANELS = 6
"""Panels of profiles in a row."""

LABELS = 190
"""CSS pixels for the names of methods left of a plot."""


@dataclass(frozen=True)
class Line:
    """How one method is drawn.

    Attributes:
        label: what it is called.
        kind: ``raw``, ``pass``, ``written``, ``user`` or ``truth``.
        colour: of its line.
    """

    label: str
    kind: str
    colour: Any

    @property
    def width(self) -> float:
        return 2.4 if self.kind == "written" else 1.5

    @property
    def dashes(self) -> Any:
        return (0, (4, 1.6)) if self.kind == "truth" else "solid"

    @property
    def fill(self) -> Any:
        """Of violins and bars: there the label says which baseline it is."""
        return {"user": "#9a9a9a", "truth": "#cfae7d"}.get(self.kind, self.colour)


@dataclass(frozen=True)
class Curve:
    """A line against depth: bins (B,), mean, lower and upper end of the band, NaN where there is none."""

    line: Line
    depth: Array
    mean: Array
    low: Array
    high: Array


def colour_of_pass(k: float, last: float) -> Any:
    """Return the blue of pass k, from light to dark; what is written is darker than any."""
    return colormaps["Blues"](0.38 + 0.42 * (k - 1) / max(last - 1, 1))


def against_depth(
    rows: Sequence[tuple[str, Sequence[Curve], Sequence[Curve], Sequence[Curve]]],
    depth: Array,
    depth_label: str,
) -> bytes:
    """Plot a metric against depth: ours on the left, the baselines on the right, a row per variant, one scale.

    Args:
        rows: title, curves of the left panel, of the right one, and those that stay pale behind the right one.
        depth: (Z,) of all planes.
        depth_label: the axis in words.
    """
    height = 48 + 248 * len(rows)
    with plain_style():
        figure = new_figure(1120, height, solve=False)
        panels = figure.subplots(len(rows), 2, squeeze=False, sharey=True)
        figure.subplots_adjust(
            left=44 / 1120, right=930 / 1120, wspace=0.56, top=1 - 24 / height, bottom=44 / height, hspace=0.27
        )
        for (title, left, right, pale), pair in zip(rows, panels, strict=True):
            for curve in pale:
                pair[1].plot(curve.depth, curve.mean, color=PALE, linewidth=0.9, linestyle=curve.line.dashes)
            for axes, curves in zip(pair, (left, right), strict=True):
                for curve in curves:
                    line = curve.line
                    axes.fill_between(curve.depth, curve.low, curve.high, color=line.colour, alpha=0.11, linewidth=0)
                    axes.plot(
                        curve.depth,
                        curve.mean,
                        color=line.colour,
                        linewidth=line.width,
                        linestyle=line.dashes,
                        marker="o" if np.isfinite(curve.mean).sum() == 1 else "",
                    )
                room(axes, depth)
            pair[0].set_title(title)
            if not any(np.isfinite(curve.mean).any() for curve in (*left, *right, *pale)):
                say(pair[0], "not defined in any plane")
        for axes in panels[-1]:
            axes.set_xlabel(depth_label)
        for pair, (_, left, right, _) in zip(panels, rows, strict=True):
            _name_ends(pair[0], left)
            _name_ends(pair[1], right)
        return small_png_bytes(figure)


def _name_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write each label at the deep end of its line, moved up or down until none covers another."""
    ends = []
    low, high = axes.get_ylim()
    for curve in curves:
        known = np.flatnonzero(np.isfinite(curve.mean))
        if known.size:
            at = known[-1]
            ends.append((float(curve.mean[at] - low) / (high - low), float(curve.depth[at]), curve.line))
    ends.sort(key=lambda end: end[0])
    for (y, x, line), place in zip(ends, spread([end[0] for end in ends], 0.062), strict=True):
        axes.annotate(
            line.label,
            (x, low + y * (high - low)),
            xytext=(1.03, place),
            textcoords="axes fraction",
            color=line.colour,
            va="center",
            fontweight="bold" if line.kind == "written" else "normal",
            arrowprops={"arrowstyle": "-", "color": line.colour, "linewidth": 0.6, "alpha": 0.6, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending places moved as little as a gap between neighbours demands, within 0 to 1 if they fit."""
    groups: list[tuple[float, int]] = []
    for place in places:
        centre, count = place, 1
        while groups and groups[-1][0] + gap * (groups[-1][1] + count) / 2 > centre:
            before, members = groups.pop()
            centre, count = (before * members + centre * count) / (members + count), members + count
        groups.append((centre, count))
    moved = [centre + gap * (i - (count - 1) / 2) for centre, count in groups for i in range(count)]
    if moved and gap * (len(moved) - 1) <= 1:
        for i in range(len(moved)):
            moved[i] = max(moved[i], i * gap)
        for i in range(len(moved)):
            moved[-1 - i] = min(moved[-1 - i], 1 - i * gap)
    return moved


def against_k(
    panels: Sequence[tuple[str, Array, float]], ks: Array, rivals: Sequence[Sequence[tuple[Line, float]]]
) -> bytes:
    """Plot means over planes against the number of passes: one panel per metric.

    Args:
        panels: title, value at each k, value of what is written (NaN where there is none).
        ks: 0 for raw, then the passes.
        rivals: per panel the baselines to beat, with their means.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 24 + 274 * columns, 34 + 200 * rows
    with plain_style():
        figure = new_figure(width, height, solve=False)
        for i, ((title, values, written), others) in enumerate(zip(panels, rivals, strict=True)):
            row, column = divmod(i, columns)
            axes = figure.add_axes(
                ((46 + 274 * column) / width, 1 - (178 + 200 * row) / height, 224 / width, 136 / height)
            )
            for line, value in others:
                axes.axhline(value, color=line.fill, linestyle=line.dashes, linewidth=1.3)
            if np.isfinite(written):
                axes.axhline(written, color=WRITTEN, linewidth=1.3)
            axes.plot(ks, values, color=PALE, linewidth=1.2)
            for k, value in zip(ks, values, strict=True):
                colour = RAW if k == 0 else colour_of_pass(float(k), float(ks.max()))
                axes.plot([k], [value], "o", color=colour, markersize=6)
            axes.set_title(title, pad=17, x=-0.2)
            names = " · ".join(("dashed: " if line.kind == "truth" else "grey: ") + line.label for line, _ in others)
            axes.text(-0.2, 1.045, names, transform=axes.transAxes, fontsize=7, color="#666666")
            axes.set_xticks(ks, ["raw", *(f"{k:.0f}" for k in ks[1:])])
            axes.tick_params(labelsize=8)
        figure.text(0.5, 3 / height, "k, number of passes", ha="center", va="bottom", color=INK)
        return small_png_bytes(figure)


def profiles(
    position: Array, lines: Sequence[tuple[Line, Array | None]], raw: Array, truth: Array | None, x_label: str
) -> bytes:
    """Plot every method along one line, a panel each: the raw behind it, the truth as a filled area.

    Args:
        position: along the line (N,).
        lines: each method with its values (N,) as shares of its display range; ``None`` where not measured.
        raw, truth: the same of these (N,).
        x_label: the axis in words.
    """
    rows = -(-len(lines) // PANELS)
    height = 38 + 104 * rows
    with plain_style():
        figure = new_figure(1120, height, solve=False)
        for i, (line, values) in enumerate(lines):
            row, column = divmod(i, PANELS)
            left, width = (34 + column * 182) / 1120, 168 / 1120
            axes = figure.add_axes((left, 1 - (18 + row * 104 + 78) / height, width, 78 / height))
            if truth is not None:
                axes.fill_between(position, 0, truth, color=TRUTH, linewidth=0)
            axes.plot(position, raw, color="#a8a8a8" if line.kind != "raw" else RAW, linewidth=0.8)
            if values is None:
                say(axes, "not measured here")
            elif line.kind != "raw":
                axes.plot(position, values, color=line.colour, linewidth=1.4)
            axes.set_title(
                line.label, fontsize=8, pad=2.5, color=INK, fontweight="bold" if line.kind == "written" else "normal"
            )
            axes.set_ylim(-0.15, 1.25)
            axes.set_yticks([0, 1], ["0", "1"] if column == 0 else [])
            below = i + PANELS >= len(lines)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.tick_params(labelsize=7.5, length=2, pad=2, labelbottom=below)
            room(axes, position)
        figure.text(0.5, 2 / height, x_label, ha="center", va="bottom", color=INK)
        return small_png_bytes(figure)


def violins(rows: Sequence[tuple[Line, Array]], x_label: str) -> bytes:
    """Plot a distribution per method as a violin with its median and quartiles (the paper's figure 5).

    Where the distributions differ in size, each row says how many values it has. Dashed lines go on with the
    medians of the first raw and of the first written result.

    Args:
        rows: each method with its finite values, from the top down.
        x_label: the axis in words.
    """
    with plain_style():
        height = 50 + 25 * len(rows)
        figure = new_figure(1120, height, solve=False)
        axes = figure.add_axes((LABELS / 1120, 44 / height, 1 - (LABELS + 10) / 1120, 1 - 50 / height))
        places = np.arange(len(rows))[::-1]
        uneven = len({len(values) for _, values in rows}) > 1
        for y, (line, values) in zip(places, rows, strict=True):
            low, middle, high = np.percentile(values, [25, 50, 75])
            if np.ptp(values) > 0:
                across = np.linspace(values.min(), values.max(), 100)
                half = stats.gaussian_kde(values)(across)
                half *= 0.43 / half.max()
                axes.fill_between(across, y - half, y + half, color=line.fill, alpha=0.75, linewidth=0)
            axes.plot([low, high], [y, y], color=INK, linewidth=2.6, solid_capstyle="butt")
            axes.plot([middle], [y], "o", color="white", markersize=4.6, markeredgecolor=INK, markeredgewidth=0.9)
            if uneven:
                axes.text(
                    1.0, y, f"N = {len(values)}", transform=axes.get_yaxis_transform(), ha="right", va="center",
                    fontsize=7.5, color="#666666",
                )  # fmt: skip
        for kind in ("raw", "written"):
            first = next(((line, values) for line, values in rows if line.kind == kind), None)
            if first is not None:
                axes.axvline(float(np.median(first[1])), color=first[0].colour, linewidth=1.1, linestyle=(0, (3, 2)))
        axes.set_yticks(places, [line.label for line, _ in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(x_label)
        return small_png_bytes(figure)


def costs(lines: Sequence[Line], panels: Sequence[tuple[str, Array, Sequence[str]]]) -> bytes:
    """Plot time and memory as dots on logarithmic axes, a row per method.

    Args:
        lines: the methods, from the top down.
        panels: title, values (methods,), NaN where not measured, and the values in words.
    """
    with plain_style():
        height = 50 + 20 * len(lines)
        figure = new_figure(1120, height, solve=False)
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        figure.subplots_adjust(
            left=LABELS / 1120, right=1 - 10 / 1120, wspace=0.06, top=1 - 22 / height, bottom=28 / height
        )
        places = np.arange(len(lines))[::-1]
        for axes, (title, values, texts) in zip(grid, panels, strict=True):
            known = np.flatnonzero(np.isfinite(values) & (values > 0))
            axes.set_title(title)
            axes.set_ylim(-0.7, len(lines) - 0.3)
            if not known.size:
                say(axes, "not measured")
                axes.set_xticks([])
                continue
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlim(float(values[known].min()) / 1.6, float(values[known].max()) * 4)
            for i in (int(n) for n in known):
                axes.plot([values[i]], [places[i]], "o", color=lines[i].fill, markersize=6)
                axes.annotate(
                    texts[i],
                    (values[i], places[i]),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color="#444444",
                )
        grid[0].set_yticks(places, [line.label for line in lines])
        return small_png_bytes(figure)

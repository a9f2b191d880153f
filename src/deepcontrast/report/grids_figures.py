"""The plots of results on another grid than the stack's: arrays to PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from deepcontrast.report.canvas import INK, RAW, new_figure, plain_style, png_bytes, say, small_png_bytes
from deepcontrast.report.compare_figures import BASELINES, WRITTEN, Line
from deepcontrast.report.data import Array

COLUMNS = 4
"""Height maps in a row."""


@dataclass(frozen=True)
class Panel:
    """A panel of lines.

    Attributes:
        title: above it.
        x_label: the axis in words.
        lines: each with its x and y; what is not finite is left out.
        logarithmic: whether the y axis is.
        marked: from where to where along x a band is shaded; ``None`` for none.
        limits: of the y axis; ``None`` for those of the lines.
    """

    title: str
    x_label: str
    lines: Sequence[tuple[Line, Array, Array]]
    logarithmic: bool = False
    marked: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None


def line_of(label: str, kind: str, place: int) -> Line:
    """Return how a method is drawn, the ``place``-th of the baselines."""
    own = {"raw": RAW, "written": WRITTEN, "known": INK}
    return Line(label, kind, own.get(kind, BASELINES[place % len(BASELINES)]))


def curves(panels: Sequence[Panel]) -> bytes:
    """Plot panels of lines side by side, named once on the right; the truth is dotted."""
    with plain_style():
        figure = new_figure(1120, 330)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        named: dict[str, Line2D] = {}
        for axes, panel in zip(grid, panels, strict=True):
            if panel.marked is not None:
                axes.axvspan(*panel.marked, color="#eef3f7", linewidth=0)
            for line, x, y in panel.lines:
                known = np.isfinite(y) & (y > 0 if panel.logarithmic else True)
                dashes = (0, (1, 1.2)) if line.kind == "known" else line.dashes
                [drawn] = axes.plot(x[known], y[known], color=line.colour, linewidth=line.width, linestyle=dashes)
                named.setdefault(line.label, drawn)
            if not panel.lines:
                say(axes, "not defined")
            if panel.logarithmic:
                axes.set_yscale("log")
            if panel.limits is not None:
                axes.set_ylim(*panel.limits)
            axes.set_title(panel.title)
            axes.set_xlabel(panel.x_label)
        figure.legend(list(named.values()), list(named), loc="outside right upper")
        return small_png_bytes(figure)


def dots(lines: Sequence[Line], values: Array, x_label: str, mark: float) -> bytes:
    """Plot one value per method as a dot, a row each, with a line at a value that stands out."""
    with plain_style():
        figure = new_figure(760, 52 + 22 * len(lines))
        axes = figure.subplots()
        places = np.arange(len(lines))[::-1]
        axes.axvline(mark, color="#999999", linewidth=1)
        for place, line, value in zip(places, lines, values, strict=True):
            if np.isfinite(value):
                axes.plot([0, value], [place, place], color=line.colour, linewidth=1.2, alpha=0.5)
                axes.plot([value], [place], "o", color=line.colour, markersize=6)
                axes.annotate(
                    f"{value:.2f}", (value, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8
                )
        axes.set_yticks(places, [line.label for line in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlim(0, 1.12 * max(mark, float(np.nanmax(values, initial=0.0))))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(x_label)
        return small_png_bytes(figure)


def maps(images: Sequence[tuple[str, NDArray[np.float32]]], limits: tuple[float, float], label: str) -> bytes:
    """Show maps (Y, X) on one colour scale.

    Args:
        images: each with its title.
        limits: values of the darkest and the brightest colour.
        label: of the scale.
    """
    count = _columns(len(images))
    rows = -(-len(images) // count)
    height, width = images[0][1].shape
    tall = min(420.0, max(90.0, 250 * height / width))
    with plain_style():
        figure = new_figure(width_of(len(images)), 34 + (tall + 26) * rows)
        grid = figure.subplots(rows, count, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (title, image) in zip(grid.flat, images, strict=False):
            shown = axes.imshow(image, cmap="viridis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
            axes.set_title(title, fontsize=8.5, fontweight="normal")
        figure.colorbar(shown, ax=grid, label=label, shrink=0.9)
        return png_bytes(figure)


def width_of(images: int) -> int:
    """Return the width of so many maps in CSS pixels."""
    return round(1120 * (_columns(images) + 0.4) / (COLUMNS + 0.4))


def _columns(images: int) -> int:
    return max(2, min(COLUMNS, images))


def heights_on(section: Array, limits: tuple[float, float], ratio: float, lines: Sequence[tuple[Line, Array]]) -> bytes:
    """Draw heights on an xz section of the stack.

    Args:
        section: (Z, X), grey levels.
        limits: grey levels of black and white.
        ratio: distance of planes in pixels.
        lines: each with its height (X,), in planes from the first.
    """
    planes, columns = section.shape
    tall = min(560.0, max(160.0, 880 * planes * ratio / columns))
    with plain_style():
        figure = new_figure(1120, 60 + tall)
        axes = figure.subplots()
        axes.imshow(section, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=ratio, interpolation="nearest")
        for line, height in lines:
            colour = "#56b4e9" if line.kind == "written" else line.colour
            axes.plot(
                np.arange(columns), height, color=colour, linewidth=line.width, linestyle=line.dashes, label=line.label
            )
        _label_section(axes, planes, columns)
        figure.legend(loc="outside right upper")
        return png_bytes(figure)


def _label_section(axes: Axes, planes: int, columns: int) -> None:
    axes.grid(visible=False)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(planes - 0.5, -0.5)
    axes.set_xlabel("x (px)")
    axes.set_ylabel("plane")

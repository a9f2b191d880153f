"""Pairs to look at, on one sheet: what a network is given beside what it should make of it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepcontrast.report.canvas import new_figure, plain_style, png_bytes
from deepcontrast.report.data import Array
from deepcontrast.report.pictures import display_range

COLUMNS = 3
WIDTH, WORDS = 480, 100
"""CSS pixels of a pair, and of what is said below it."""
SIDE = 512
"""Pixels of a plane that are shown: its middle."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A pair on the sheet: its name, both planes (Y, X), and the parameters it was made with."""

    name: str
    image: Array
    target: Array
    drawn: Mapping[str, float | str]


def contact_sheet(pairs: Sequence[Shown]) -> bytes:
    """Return a PNG: input and target of every pair, each between its own percentiles 1 and 99.8, and its parameters."""
    rows = max(1, math.ceil(len(pairs) / COLUMNS))
    with plain_style():
        figure = new_figure(COLUMNS * WIDTH, rows * (WIDTH // 2 + WORDS), solve=False)
        for n, pair in enumerate(pairs):
            row, column = divmod(n, COLUMNS)
            left, top = column / COLUMNS, 1 - row / rows
            panel = (0.49 / COLUMNS, 0.49 * WIDTH / (rows * (WIDTH // 2 + WORDS)))
            for side, (kind, plane) in enumerate((("input", pair.image), ("target", pair.target))):
                axes = figure.add_axes((left + side * 0.5 / COLUMNS, top - 0.06 / rows - panel[1], *panel))
                y, x = (slice((size - min(size, SIDE)) // 2, (size + min(size, SIDE)) // 2) for size in plane.shape)
                low, high = display_range(plane)
                axes.imshow(plane[y, x], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
                axes.set_axis_off()
                axes.set_title(f"{kind}, {low:.3g} to {high:.3g}", fontsize=7, fontweight="normal", pad=2)
            words = ", ".join(f"{key} {_short(value)}" for key, value in pair.drawn.items() if key != "seed")
            below = "\n".join([pair.name, *textwrap.wrap(words, 100)])
            figure.text(left + 0.01 / COLUMNS, top - 0.07 / rows - panel[1], below, fontsize=5.5, va="top")
        return png_bytes(figure)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"

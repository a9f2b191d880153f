"""A sheet to plot on and the look of every plot: arrays to PNG bytes. No pyplot, no window, no state left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from deepcontrast.report.data import Array

CSS_DPI, SHARPNESS = 100, 1.7
RAW, ENHANCED, INK = "#767676", "#0072b2", "#1a1a1a"
STYLE: Any = {  # the keys' type differs between matplotlib versions
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.8,
    "axes.titlesize": 9.4,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def plain_style() -> Iterator[None]:
    """The page looks the same whatever matplotlibrc the user has."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def new_figure(width: float, height: float, *, solve: bool = True) -> Figure:
    """Return a figure that is so many CSS pixels wide and high.

    Its layout is solved when drawn, unless the panels are placed by hand: over many, solving takes longer than all
    the rest.
    """
    size = (width / CSS_DPI, height / CSS_DPI)
    return Figure(figsize=size, dpi=CSS_DPI * SHARPNESS, layout="constrained" if solve else None)


def png_bytes(figure: Figure) -> bytes:
    """Draw a figure and return it as PNG: equal plots, equal bytes."""
    buffer = BytesIO()
    # Not savefig, which would lay out and draw everything twice.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    figure.clear()
    return buffer.getvalue()


def small_png_bytes(figure: Figure) -> bytes:
    """Draw a figure as ``png_bytes`` does, in 256 colours: a third of the bytes, for pages of many plots."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    figure.clear()
    buffer = BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def room(axes: Axes, x: Array) -> None:
    """Let the x axis span the values and a little more."""
    low, high = float(np.min(x)), float(np.max(x))
    pad = 0.015 * (high - low) or 0.5
    axes.set_xlim(low - pad, high + pad)


def say(axes: Axes, text: str) -> None:
    """Write in the middle of a panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555")

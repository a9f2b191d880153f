"""One picture for a first look: raw, enhanced and truth of a deep plane, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepcontrast.report.pictures import display_range


def write_before_after(
    path: Path,
    raw: NDArray[np.float32],
    enhanced: NDArray[np.float32],
    truth: NDArray[np.float32],
    *,
    fraction: float = 0.6,
) -> None:
    """Write a PNG of raw, enhanced and truth (Z, Y, X), at ``fraction`` of the stack's planes.

    Each is shown between its own percentiles 1 and 99.8 of that plane.
    """
    z = int(fraction * (len(raw) - 1))
    height, width = raw.shape[1:]
    figure = Figure(figsize=(9.6, 9.6 / 3 * height / width + 0.3), dpi=100)
    FigureCanvasAgg(figure)
    for i, (name, volume) in enumerate((("raw", raw), ("enhanced", enhanced), ("truth", truth))):
        axes = figure.add_axes((i / 3 + 0.003, 0.0, 1 / 3 - 0.006, 1 - 0.3 / figure.get_figheight()))
        plane = np.asarray(volume[z])
        low, high = display_range(plane)
        axes.imshow(plane, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, fontsize=11)
    figure.savefig(path, metadata={"Software": None})

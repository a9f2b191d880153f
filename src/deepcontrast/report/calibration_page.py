"""One self-contained HTML page about how far the networks of a model can be trusted (CARE, supplementary figure 22)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator

from deepcontrast.atomic import write_atomic
from deepcontrast.calibration import Calibration, Reliability
from deepcontrast.report.canvas import INK, new_figure, plain_style, png_bytes
from deepcontrast.report.pictures import data_uri
from deepcontrast.report.sections import Plot
from deepcontrast.report.template import fill

FEWEST = 0.001
"""Share of the voxels from which a bin is drawn as a point."""


def write_calibration(
    path: str | os.PathLike[str],
    title: str,
    channels: Mapping[str, tuple[Sequence[Calibration], Calibration | None, Sequence[str]]],
    provenance: Sequence[tuple[str, str]],
) -> None:
    """Write the page as one file that needs no other: equal data, equal bytes.

    Args:
        path: of the page.
        title: what the model is.
        channels: by name, the calibration as trained of the first network, the first two, and so on; that of all
            set right, if they are; and lines of words.
        provenance: of the model, in pairs of words.

    Raises:
        OutputError: the file cannot be written. Nothing is left half written.
    """
    shown = [
        {
            "name": name,
            "lines": lines,
            "plot": Plot(data_uri(calibration(before, after)), f"calibration of {name}", 1120),
        }
        for name, (before, after, lines) in channels.items()
    ]
    html = fill("calibration.html.j2", {"title": title, "channels": shown, "provenance": provenance})
    write_atomic(Path(path), html.encode("utf-8"))


def calibration(before: Sequence[Calibration], after: Calibration | None) -> bytes:
    """Plot accuracy against confidence, the share of every bin, and the error against the distance, for all members.

    Dotted is what the networks were trained to, where their distributions are set right.
    """
    best = after or before[-1]
    with plain_style():
        figure = new_figure(1120, 380)
        diagram, shares, errors = figure.subplots(1, 3)
        count = len(best.diagrams)
        trained = _by_distance(before[-1]) if after else [None] * count
        for n, (one, was) in enumerate(zip(_by_distance(best), trained, strict=True)):
            colour = colormaps["viridis"](0.85 * n / max(count - 1, 1))
            if was:
                diagram.plot(*_points(was), ":", color=colour)
            diagram.plot(*_points(one), "o-", color=colour, label=f"{one.distance:.3f}", markersize=4)
            shares.plot([(k + 0.5) / len(one.share) for k in range(len(one.share))], one.share, color=colour)
        diagram.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        diagram.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title="Reliability")
        diagram.legend(title="within, of the range", loc="upper left")
        shares.set(xlim=(0, 1), ylim=(0, None), xlabel="confidence", ylabel="share of the voxels", title="How sure")
        drawn = [(one, f"{one.members} as trained", "-") for one in before]
        drawn += [(after, f"{after.members}, set right", "--")] if after else []
        for n, (curve, label, line) in enumerate(drawn):
            at = [one.distance for one in _by_distance(curve)]
            shade: Any = INK if line == "--" else colormaps["plasma"](0.85 * n / max(len(before) - 1, 1))
            percent = [100 * one.error for one in _by_distance(curve)]
            errors.plot(at, percent, f"o{line}", color=shade, label=label, markersize=4)
        errors.xaxis.set_major_locator(MaxNLocator(4))
        errors.set(
            ylim=(0, 1.6 * errors.get_ylim()[1]),
            xlabel="distance, of the range",
            ylabel="calibration error, %",
            title="Networks",
        )
        errors.legend(loc="upper right")
        return png_bytes(figure)


def _by_distance(one: Calibration) -> list[Reliability]:
    return sorted(one.diagrams, key=lambda diagram: diagram.distance)


def _points(one: Reliability) -> tuple[list[float], list[float]]:
    """Return confidence and accuracy of the bins that hold voxels."""
    kept = [k for k, share in enumerate(one.share) if share > FEWEST]
    return [one.confidence[k] for k in kept], [one.accuracy[k] for k in kept]

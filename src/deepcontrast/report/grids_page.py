"""One self-contained HTML page of results on another grid than the stack's: closer planes, or one plane."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.atomic import write_atomic
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report import compare_scores as scores
from deepcontrast.report import grids_figures as figures
from deepcontrast.report import views
from deepcontrast.report.canvas import INK, RAW
from deepcontrast.report.compare_figures import Line
from deepcontrast.report.data import Array
from deepcontrast.report.grids_data import GridMethod, GridsData
from deepcontrast.report.grids_figures import Panel
from deepcontrast.report.pictures import PERCENTILES, data_uri, display_range, picture
from deepcontrast.report.sections import Plot
from deepcontrast.report.template import fill

SHARP = 440
"""Longest side of a picture in pixels: longer ones are averaged in blocks."""
PLANES = 8
"""Planes that are looked at to find the section with the most structure."""


def write_grids(path: str | os.PathLike[str], data: GridsData, *, progress: Progress = silent) -> None:
    """Write the page as one file that needs no other: equal data, equal bytes.

    Raises:
        OutputError: the file cannot be written. Nothing is left half written.
        Cancelled: raised by ``progress``. Nothing is written.
    """
    write_atomic(Path(path), render(data, progress=progress).encode("utf-8"))


def render(data: GridsData, *, progress: Progress = silent) -> str:
    """Return the page as HTML."""
    isotropic = data.task == "isotropic"
    steps = {
        "table": table,
        "pictures": section_pictures if isotropic else plane_pictures,
        "spectra": spectra,
        "phi": phi,
        "blur": blur,
        "shells": shells,
        "errors": errors,
        "heights": heights,
        "section": section_with_heights,
    }
    content: dict[str, Any] = {
        "title": data.title,
        "isotropic": isotropic,
        "summary": data.summary,
        "facts": data.facts,
        "blur_words": data.blur_words,
        "percentiles": PERCENTILES,
        "on_truth": any(one.kind == "truth" for one in data.methods),
        "known": any(one.kind == "known" for one in data.methods),
        "skipped": data.skipped,
        "provenance": data.provenance,
    }
    for done, (name, make) in enumerate(steps.items()):
        progress(Event("report", done, len(steps), {"part": name}))
        content[name] = make(data)
    html = fill("grids.html.j2", content)
    progress(Event("report", len(steps), len(steps)))
    return html


def lines(data: GridsData) -> list[Line]:
    """Return how every method is drawn; one and the same baseline has one colour however it was tuned."""
    names = list(dict.fromkeys(one.name for one in data.methods if one.kind in ("user", "truth")))
    return [
        figures.line_of(
            one.label.replace("tuned on the truth", "truth"),
            one.kind,
            names.index(one.name) if one.name in names else 0,
        )
        for one in data.methods
    ]


def table(data: GridsData) -> dict[str, Any]:
    """Return the scores, cost and settings: heads, and a row per method."""
    given = dict.fromkeys(name for one in data.methods for name in one.scores)
    metrics = [name for name in scores.families(given) if not any(part in name for part in scores.LEFT_OUT)]
    columns = [
        (scores.family(name).short, scores.family(name).form, scores.family(name).better,
         [one.scores.get(name, np.nan) for one in data.methods])
        for name in metrics
    ]  # fmt: skip
    seconds = [np.nan if one.seconds is None else one.seconds for one in data.methods]
    columns.append(("Time", "time", -1, seconds))
    cells = [_column(data, values, form, better) for _, form, better, values in columns]
    rows = [
        {"label": one.label, "kind": one.kind, "settings": one.parameters, "cells": [column[i] for column in cells]}
        for i, one in enumerate(data.methods)
    ]
    return {"heads": [head for head, *_ in columns], "rows": rows}


def _column(data: GridsData, values: Sequence[float], form: str, better: int) -> list[scores.Cell]:
    """Return the cells of a column; the best is set apart, and where it was tuned on the truth, the next, too."""
    texts = [scores.shown(value, form) for value in values]
    best = set()
    for kinds in (("raw", "written", "user", "truth"), ("raw", "written", "user")):
        ranked = [i for i, m in enumerate(data.methods) if m.kind in kinds and np.isfinite(values[i])]
        if better and len(ranked) > 1:
            best.add(texts[max(ranked, key=lambda i: better * values[i])])
    return [scores.Cell(text, m.kind != "known" and text in best) for text, m in zip(texts, data.methods, strict=True)]


def section_pictures(data: GridsData) -> list[dict[str, Any]]:
    """Return xz and yz sections of every method, in the middle and where there is most structure."""
    guide = np.asarray(data.methods[-1].volume if data.methods[-1].kind == "known" else data.methods[0].volume)
    planes = np.unique(np.linspace(0, len(guide) - 1, PLANES).astype(int)).tolist()
    found = []
    for axis, name, line in ((1, "xz", "y"), (2, "yz", "x")):
        seen = guide if axis == 1 else guide.transpose(0, 2, 1)
        for place, words in ((seen.shape[1] // 2, "the middle"), (views.section_row(seen, planes), "most structure")):
            box = views.inset_side((seen.shape[0], seen.shape[2]))
            corner = views.inset(seen[:, place], box)
            found.append(_group(data, f"{name} section, {line} = {place}: {words}", axis, place, (*corner, box)))
    return found


def plane_pictures(data: GridsData) -> list[dict[str, Any]]:
    """Return the plane that every method makes."""
    guide = np.asarray(data.methods[-1].volume[0])
    side = views.inset_side((guide.shape[0], guide.shape[1]))
    return [_group(data, "The whole plane, and where there is most structure", 0, 0, (*views.inset(guide, side), side))]


def _group(data: GridsData, heading: str, axis: int, place: int, box: tuple[int, int, int]) -> dict[str, Any]:
    """Return a section of every method with an inset (first row, first column, side)."""
    row, column, side = box
    cells: list[dict[str, Any]] = []
    for one in data.methods:
        image = np.asarray(one.volume.take(place, axis), np.float32)
        cut = image[row : row + side, column : column + side]
        alt = f"{one.label}, {heading}"
        pixel = (data.pixel_um, data.pixel_um)
        whole = picture(image, alt, pixel=pixel, long_side=SHARP, bar=not cells)
        inset = picture(cut, f"inset of {alt}", pixel=pixel, bar=not cells)
        cells.append({"label": one.label, "kind": one.kind, "whole": whole, "inset": inset})
    rows, columns = image.shape
    place_of_box = (100 * column / columns, 100 * row / rows, 100 * side / columns, 100 * side / rows)
    return {"heading": heading, "cells": cells, "box": place_of_box, "wide": columns > 1.7 * rows}


def _drawn(data: GridsData, name: str) -> list[tuple[Line, Array, Array]]:
    """Return the curves of a name that methods have."""
    pairs = zip(lines(data), data.methods, strict=True)
    return [(line, *one.curves[name]) for line, one in pairs if name in one.curves]


def spectra(data: GridsData) -> Plot | None:
    """Return power along z and along the planes of every method, or nothing where it was not measured."""
    along = [
        Panel(f"Power along {name}", "frequency (cycles per pixel)",
              _drawn(data, curve), logarithmic=True, marked=data.band)
        for name, curve in (("z", "axial"), ("x and y", "lateral"))
    ]  # fmt: skip
    if not along[0].lines:
        return None
    powers = [y[np.isfinite(y) & (y > 0)] for panel in along for _, _, y in panel.lines]
    limits = (max(1e-8, float(min(y.min() for y in powers))) / 1.5, 2.0)
    panels = [Panel(p.title, p.x_label, p.lines, True, p.marked, limits) for p in along]
    return Plot(data_uri(figures.curves(panels)), "power spectra along z and along the planes", 1120)


def phi(data: GridsData) -> Plot | None:
    """Return the isotropy ratio of every method, or nothing where it is defined for none."""
    values = np.array([one.scores.get("isotropy", np.nan) for one in data.methods])
    if not np.isfinite(values).any():
        return None
    png = figures.dots(lines(data), values, "Φ, power along z over power along x and y", 1.0)
    return Plot(data_uri(png), "isotropy ratio of every method", 760)


def blur(data: GridsData) -> Plot | None:
    """Return the spectra that the axial blur was estimated from, or nothing where it was not."""
    if not data.blur:
        return None
    named = (
        ("planes, along x and y", "lateral", Line("planes, along x and y", "user", RAW)),
        ("sections, along z", "axial", Line("sections, along z", "user", INK)),
        ("planes, blurred and undersampled", "modelled", Line("planes, blurred and undersampled", "user", "#d55e00")),
    )
    drawn = [(line, data.blur["frequency"], data.blur[key]) for _, key, line in named]
    panel = Panel("Power where there is structure across", "frequency (cycles per pixel)", drawn, logarithmic=True)
    return Plot(data_uri(figures.curves([panel])), "spectra that the axial blur was estimated from", 1120)


def shells(data: GridsData) -> Plot | None:
    """Return the Fourier shell correlation with the truth, or nothing where there is none."""
    panels = [
        Panel(title, "frequency (cycles per pixel)", _drawn(data, curve), limits=(-0.15, 1.05))
        for title, curve in (("All directions", "shells"), ("Within 30° of z", "shells_axial"))
        if _drawn(data, curve)
    ]
    if not panels:
        return None
    return Plot(data_uri(figures.curves(panels)), "Fourier shell correlation with the truth", 1120)


def errors(data: GridsData) -> Plot | None:
    """Return ERROR against the threshold, or nothing where it was not measured."""
    drawn = _drawn(data, "errors")
    if not drawn:
        return None
    highest = max(1.1, min(3.0, 1.05 * max(float(y.max()) for _, _, y in drawn)))
    panel = Panel("ERROR", "threshold, from percentile 3 (0) to 99 (1) of each", drawn, limits=(0.0, highest))
    return Plot(data_uri(figures.curves([panel])), "segmentation ERROR against the threshold", 1120)


def heights(data: GridsData) -> list[Plot]:
    """Return the height maps of all projections on one scale, and how unsure ours is."""
    short = dict(zip((one.label for one in data.methods), (line.label for line in lines(data)), strict=True))
    known = [(short[one.label], one.height) for one in _surfaces(data) if one.height is not None]
    if not known:
        return []
    limits = display_range(np.stack([height for _, height in known]), percentiles=(0.5, 99.5))
    plots = [
        Plot(data_uri(figures.maps(known, limits, "height (planes)")), "height maps", figures.width_of(len(known)))
    ]
    spread = [(f"{one.label}, spread", one.spread) for one in data.methods if one.spread is not None]
    if spread:
        high = display_range(spread[0][1], percentiles=(0.0, 99.5))[1]
        png = figures.maps(spread, (0.0, high), "spread of the height (planes)")
        plots.append(Plot(data_uri(png), "spread of the height", figures.width_of(len(spread))))
    return plots


def section_with_heights(data: GridsData) -> Plot | None:
    """Return an xz section of the stack with the heights drawn on it, or nothing where there are none."""
    # The maximum knows no surface: its height jumps from column to column and would hide the others.
    surfaces = [one for one in _surfaces(data) if one.name != "maximum"]
    if not surfaces:
        return None
    planes = np.unique(np.linspace(0, len(data.stack) - 1, PLANES).astype(int)).tolist()
    y = views.section_row(data.stack, planes)
    drawn = dict(zip((one.label for one in data.methods), lines(data), strict=True))
    section: NDArray[np.float32] = np.asarray(data.stack[:, y])
    # Ours last, on top of the others.
    ordered = sorted(surfaces, key=lambda one: one.kind == "written")
    rows = [(drawn[one.label], one.height[y]) for one in ordered if one.height is not None]
    png = figures.heights_on(section, display_range(section), data.factor, rows)
    return Plot(data_uri(png), f"xz section at y = {y} with the heights", 1120)


def _surfaces(data: GridsData) -> list[GridMethod]:
    """Return the methods that know a height, without what NLM made of them: it leaves the height as it is."""
    return [one for one in data.methods if one.height is not None and not one.name.endswith("nlm")]

"""One self-contained HTML page that sets every method side by side on one stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from deepcontrast.atomic import write_atomic
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report import compare_sections as sections
from deepcontrast.report import views
from deepcontrast.report.compare_data import CompareData
from deepcontrast.report.pictures import PERCENTILES
from deepcontrast.report.template import fill


def write_compare(path: str | os.PathLike[str], data: CompareData, *, progress: Progress = silent) -> None:
    """Write the page as one file that needs no other: equal data, equal bytes.

    Raises:
        OutputError: the file cannot be written. Nothing is left half written.
        Cancelled: raised by ``progress``. Nothing is written.
    """
    write_atomic(Path(path), render(data, progress=progress).encode("utf-8"))


def render(data: CompareData, *, progress: Progress = silent) -> str:
    """Return the page as HTML."""
    planes = views.by_depth(data.depth_um, 3)
    side = sections.thumbnail_side(data, len(planes))
    content: dict[str, Any] = {
        "title": data.title,
        "summary": data.summary,
        "facts": data.facts,
        "percentiles": PERCENTILES,
        "truth": data.truth is not None,
        "against": f"Scores against {', '.join(sections.references(data))}",
        "mask_note": data.mask_note,
        "skipped": data.skipped,
        "provenance": data.provenance,
    }
    contrast, quality = sections.depth_families(data)
    once: dict[str, Callable[[CompareData], object]] = {
        "tables": sections.tables,
        "against_k": sections.against_k,
        "violins": sections.violins,
        "costs": sections.costs,
        "band": sections.band_words,
    }
    often: dict[str, list[Callable[[CompareData], object]]] = {
        "pictures": [partial(sections.depth_pictures, z=z, long_side=side) for z in planes],
        "profiles": [partial(sections.profile, z=z) for z in planes],
        "contrast": [partial(sections.against_depth, base=base) for base in contrast],
        "quality": [partial(sections.against_depth, base=base) for base in quality],
    }
    steps = [(name, make) for name, makers in often.items() for make in makers] + list(once.items())
    made: dict[str, list[object]] = {name: [] for name in (*often, *once)}
    for done, (name, make) in enumerate(steps):
        progress(Event("report", done, len(steps), {"part": name.replace("_", " ")}))
        made[name].append(make(data))
    content |= {name: made[name][0] if name in once else made[name] for name in made}
    html = fill("compare.html.j2", content)
    progress(Event("report", len(steps), len(steps)))
    return html

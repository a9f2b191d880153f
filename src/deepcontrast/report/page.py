"""One self-contained HTML page about a result: what is seen, what was gained, how far to trust it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepcontrast.atomic import write_atomic
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report import sections, views
from deepcontrast.report.data import ReportData
from deepcontrast.report.pictures import LONG_SIDE, PERCENTILES
from deepcontrast.report.template import fill


def write_report(path: str | os.PathLike[str], data: ReportData, *, progress: Progress = silent) -> None:
    """Write the page as one file that needs no other: equal data, equal bytes.

    Raises:
        OutputError: the file cannot be written. Nothing is left half written.
        Cancelled: raised by ``progress``. Nothing is written.
    """
    write_atomic(Path(path), render(data, progress=progress).encode("utf-8"))


def render(data: ReportData, *, progress: Progress = silent) -> str:
    """Return the page as HTML."""
    shown = views.by_depth(data.depth_um, 5, data.valid)
    three = views.by_depth(data.depth_um, 3, data.valid)
    content: dict[str, Any] = {
        "title": data.title,
        "summary": data.summary,
        "facts": data.facts,
        "percentiles": PERCENTILES,
        "block": max(1, -(-max(int(n) for n in data.enhanced.shape[1:]) // LONG_SIDE)),
        "scores": data.scores,
        "fidelity": data.fidelity,
        "provenance": data.provenance,
    }
    parts: dict[str, Callable[[], object]] = {
        "before_after": lambda: [sections.before_after(data, z) for z in shown],
        "section": lambda: sections.section(data, shown),
        "contrast": lambda: sections.contrast(data, shown),
        "profiles": lambda: [sections.profile(data, z) for z in three],
        "strips": lambda: [sections.strip(data, z) for z in three],
        "choice": lambda: sections.choice(data),
        "intensity": lambda: sections.intensity(data),
        "equalised": lambda: sections.equalised(data),
        "invalid": lambda: sections.invalid(data),
        "camera": lambda: sections.camera(data),
        "degradation": lambda: sections.degradation(data),
        "training": lambda: sections.training(data),
        "fidelity_map": lambda: sections.fidelity_map(data, three),
    }
    for done, (name, make) in enumerate(parts.items()):
        progress(Event("report", done, len(parts), {"part": name.replace("_", " ")}))
        content[name] = make()
    html = fill("page.html.j2", content)
    progress(Event("report", len(parts), len(parts)))
    return html

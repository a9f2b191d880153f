"""``deepcontrast evaluate``: a result scored against truth, raw, mask and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepcontrast import __version__
from deepcontrast.accept import check_volume
from deepcontrast.comparison import Known
from deepcontrast.depth import depth_unit, depths
from deepcontrast.evaluation import Row, contrast_rows, depth_means, truth_rows
from deepcontrast.io import fingerprint
from deepcontrast.jobs.images import open_image
from deepcontrast.jobs.known import known_of, open_known
from deepcontrast.jobs.results import write_metrics
from deepcontrast.jobs.say import Say
from deepcontrast.output_checks import check_out
from deepcontrast.stack import Stack
from deepcontrast.valid import find_invalid
from deepcontrast.workdir import finish, working


def evaluate_image(
    result: Path,
    out: Path,
    *,
    truth: Path | None = None,
    raw: Path | None = None,
    mask: Path | None = None,
    labels: Path | None = None,
    say: Say = print,
    overwrite: bool = False,
) -> None:
    """Score a result, every time point and channel, against truth, mask and labels, and write metrics.json.

    Raises:
        InputError: raw, truth, mask or labels have not the result's shape, or are not what they are given as.
    """
    paths = {"raw": raw, "truth": truth, "mask": mask, "labels": labels}
    given = {"result": result, **{name: path for name, path in paths.items() if path is not None}}
    check_out(out, overwrite=overwrite, inputs=list(given.values()))
    one = open_image(result)
    beside = open_known(paths, one)
    scored = {"result": one, **({"raw": beside["raw"]} if raw else {})}
    rows: list[Row] = []
    frames = [(t, c) for t in range(one.size("T")) for c in range(one.size("C"))]
    for t, c in frames:
        known = known_of(beside, t, c)
        for name, stack in scored.items():
            found = _scored(stack, name, t, c, known, beside.get("raw"))
            which = f" t {t}, channel {c}" if len(frames) > 1 else ""
            means = depth_means(found, one.size("Z"), count=1)
            values = [f"{m} {v[0]:.3f}" for m, v in means.items() if "level" not in m and not np.isnan(v[0])]
            values += [f"{row.metric} {row.value:.3f}" for row in found if row.z is None and row.value is not None]
            say(f"{name}{which}: " + ", ".join(values))
            rows += found
    run = {
        "version": __version__,
        "verb": "evaluate",
        "input": {name: fingerprint(path) for name, path in given.items()},
    }
    with working(out, overwrite=overwrite, inputs=list(given.values())) as work:
        write_metrics(work.result, rows)
        finish(work, run)


def _scored(stack: Stack, method: str, t: int, c: int, known: Known, raw: Stack | None) -> list[Row]:
    """Return the scores of one time point and channel."""
    volume = stack.volume(t, c).astype(np.float32)
    check_volume(volume, stack.source)
    depth_um = [float(d) if depth_unit(stack) == "um" else None for d in depths(stack)]
    valid = find_invalid(stack.volume(t, c)).valid
    rows = contrast_rows(volume, method=method, k=None, t=t, c=c, depth_um=depth_um, valid=valid)
    # A result's own flat background may be all it made of noise: only the raw says what was not measured.
    counted = None if raw is None else find_invalid(raw.volume(t, c)).valid
    return rows + truth_rows(
        volume, known.truth, known.mask, labels=known.labels, method=method, k=None, t=t, c=c, depth_um=depth_um,
        valid=counted,
    )  # fmt: skip

"""``deepcontrast evaluate``: a result scored against truth, raw and mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcontrast import __version__
from deepcontrast.accept import check_volume
from deepcontrast.depth import depth_unit, depths
from deepcontrast.errors import InputError
from deepcontrast.evaluation import Row, contrast_rows, depth_means, truth_rows
from deepcontrast.io import fingerprint
from deepcontrast.jobs.images import open_image
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
    say: Say = print,
    overwrite: bool = False,
) -> None:
    """Score a result, every time point and channel, against truth and mask, and write metrics.json.

    Raises:
        InputError: raw, truth or mask has not the result's shape.
    """
    paths = {"result": result, "raw": raw, "truth": truth, "mask": mask}
    given = {name: path for name, path in paths.items() if path is not None}
    check_out(out, overwrite=overwrite, inputs=list(given.values()))
    stacks = {name: open_image(path) for name, path in given.items()}
    shapes = {name: tuple(stack.size(axis) for axis in "TCZYX") for name, stack in stacks.items()}
    for name, shape in shapes.items():
        if shape != shapes["result"]:
            raise InputError(f"the {name} has shape {shape}, the result has {shapes['result']} (T, C, Z, Y, X)")
    rows: list[Row] = []
    one = stacks["result"]
    frames = [(t, c) for t in range(one.size("T")) for c in range(one.size("C"))]
    for t, c in frames:
        true = stacks["truth"].volume(t, c).astype(np.float32) if truth else None
        marked = stacks["mask"].volume(t, c) > 0 if mask else None
        if marked is not None and (not marked.any() or marked.all()):
            raise InputError(f"the mask '{mask}' marks no voxel, or all of them")
        for name in ("result", "raw"):
            if name in stacks:
                found = _scored(stacks[name], name, t, c, true, marked)
                means = depth_means(found, one.size("Z"))
                which = f" t {t}, channel {c}" if len(frames) > 1 else ""
                values = (f"{m} {np.nanmean(v):.3f}" for m, v in means.items() if "level" not in m)
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


def _scored(
    stack: Stack,
    method: str,
    t: int,
    c: int,
    truth: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
) -> list[Row]:
    """Return the scores of one time point and channel."""
    volume = stack.volume(t, c).astype(np.float32)
    check_volume(volume, stack.source)
    depth_um = [float(d) if depth_unit(stack) == "um" else None for d in depths(stack)]
    valid = find_invalid(stack.volume(t, c)).valid
    rows = contrast_rows(volume, method=method, k=None, t=t, c=c, depth_um=depth_um, valid=valid)
    return rows + truth_rows(volume, truth, mask, method=method, k=None, t=t, c=c, depth_um=depth_um)

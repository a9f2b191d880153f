"""Does the network invert the degradation? Model B, trained one degradation deeper, must give back Model A's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.experiments import Finding, Run, Subject, pairs
from deepcontrast.experiments._figures import Pictures, figure
from deepcontrast.experiments._networks import Volume, clean, learned, like, seeded, shown_planes, source_of
from deepcontrast.experiments._scores import spread
from deepcontrast.metrics.ssim import WINDOW, ssim
from deepcontrast.progress import Progress, silent

PHANTOMS = ("tissue",)
BINS = ("Very Deep", "Deep", "Intermediate", "Shallow", "Very Shallow")
LONG = ("depth", "compared", "ssim", "ssim_sd")
COLUMNS = ("MB1 vs raw", "MB2 vs MA1", "MB3 vs MA2")


def double_degradation(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
) -> Finding:
    """Return SSIM of Model B's k-th iteration and Model A's (k - 1)-th, by depth, for k = 1 .. 3.

    Model A learns (d(x), x). With d = d(x) drawn once, Model B learns (d(d), d), the outer degradation drawn
    anew in every step, with the same fit and the same held-out squares; it is applied to d. If a network inverts
    d, B's first result is the raw image and its k-th the (k - 1)-th of A.

    Args:
        subjects: stacks of at least 5 planes.
        config: the settings of both models.
        seeds: of training; a simulated stack is used with its own only.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.

    Raises:
        InputError: a stack has fewer planes than there are depth bins.

    Source: DeepContrast, section 4.5, table 1 and figure 6.
    """
    runs: list[Run] = []
    pictures: Pictures = ()
    for subject, seed in pairs(subjects, seeds):
        source = source_of(subject)
        if len(source.depth) < len(BINS):
            raise InputError(f"'{subject.name}' has {len(source.depth)} planes; {len(BINS)} depth bins need as many")
        settings = seeded(config, seed)
        model_a = learned(source, settings, device=device, progress=progress)
        task, fit = model_a.task, model_a.fit
        raw = clean(model_a, source)
        generator = torch.Generator().manual_seed(seed)
        degraded = like(source, task.degrade(source, fit, settings, generator))
        bare = replace(fit, pattern=None)
        model_b = learned(degraded, settings, fit=bare, device=device, progress=progress)
        start = clean(model_b, degraded)
        a = [raw, *model_a.passes(raw, len(COLUMNS) - 1, progress=progress)]
        b = model_b.passes(start, len(COLUMNS), progress=progress)
        for bin_, planes in zip(BINS, np.array_split(np.argsort(source.depth, kind="stable")[::-1], 5), strict=True):
            for z in sorted(planes.tolist()):
                where = {"stack": subject.name, "seed": seed, "depth": bin_, "z": z}
                for k, (result, target) in enumerate(zip(b, a, strict=True), 1):
                    fitted = ssim(result[z], target[z])[0].value
                    runs.append({**where, "k": k, "ssim": fitted, "ssim_no_fit": _ssim_no_fit(result[z], target[z])})
        if not pictures:
            twice = task.degrade(degraded, bare, settings, generator)
            shown = {"d(d(x))": twice, "d(x)": start, "MB1": b[0], "raw": raw, "MB3": b[2], "MA2": a[2]}
            deep = shown_planes(source.depth)
            pictures = [(f"plane {z}", {name: volume[z] for name, volume in shown.items()}) for z in deep]
    columns, rows, means = _table(runs)
    long = [
        (bin_, name, *spread([run["ssim"] for run in runs if run["depth"] == bin_ and run["k"] == k]))
        for k, name in enumerate(COLUMNS, 1)
        for bin_ in BINS
    ]
    return Finding(
        "Double degradation: does Model B give back what Model A was given?",
        "DeepContrast, section 4.5, table 1 and figure 6",
        columns,
        rows,
        tuple(runs),
        figure(pictures, LONG, long, x="depth", scores=("ssim",), series="compared"),
        sentences(means),
        {
            "SSIM": "window 7 x 7, data range 1; the target (raw or MA) scaled by its percentiles 0.1 and 99.9, MB "
            "fitted to it by least squares per plane (CARE); the paper names none. 'no fit': without that fit",
            "table": "mean and standard deviation over the planes of all runs",
            "model B": "A's camera, normalisation, blur and held-out squares; d drawn once, d(d) anew in every step",
        },
    )


def sentences(table: NDArray[np.float64]) -> tuple[str, ...]:
    """Return whether a table of mean SSIM (5 depths, very deep first; 3 values of k) has the shape of the paper's.

    The shape is: SSIM rises with k at every depth; at k = 1 it is higher at the surface than in the deep and rises
    in at least 3 of the 4 steps, as in the paper's table.
    """
    rises = [bool((np.diff(row) > 0).all()) for row in table]
    falls = [f"{name} ({_steepest_fall(row)})" for name, row, rise in zip(BINS, table, rises, strict=True) if not rise]
    first = table[:, 0]
    steps = int((np.diff(first) > 0).sum())
    toward = bool(first[-1] > first[0]) and steps >= 3
    with_k = "in all five depth bins" if not falls else f"in {sum(rises)} of five depth bins, not in {', '.join(falls)}"
    return (
        f"SSIM rises with k {with_k}.",
        f"At k = 1 it goes from {first[0]:.2f} ({BINS[0]}) to {first[-1]:.2f} ({BINS[-1]}) and rises in {steps} of 4 "
        "steps toward the surface (the paper: from 0.51 to 0.59, 3 of 4).",
        "The table has the paper's shape." if toward and not falls else "The table does not have the paper's shape.",
    )


def _steepest_fall(row: NDArray[np.float64]) -> str:
    """Return, in words, between which k the SSIM of one depth falls most."""
    steps = np.diff(row)
    if not np.isfinite(steps).all():
        return "not defined"
    k = int(np.argmin(steps))
    return f"{row[k]:.3f} at k = {k + 1}, {row[k + 1]:.3f} at k = {k + 2}"


def _table(runs: Sequence[Run]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...], NDArray[np.float64]]:
    """Return the paper's table: columns, rows, and the means (5, 3) of the fitted SSIM, NaN where undefined."""
    kinds = (("ssim", ""), ("ssim_no_fit", ", no fit"))
    names = [f"{name}{suffix}" for _, suffix in kinds for name in COLUMNS]
    rows = []
    for bin_ in BINS:
        cells: list[Any] = [bin_]
        for score, _ in kinds:
            for k in range(1, len(COLUMNS) + 1):
                cells += spread([run[score] for run in runs if run["depth"] == bin_ and run["k"] == k])
        rows.append(tuple(cells))
    fitted = [[np.nan if row[i] is None else row[i] for i in range(1, 2 * len(COLUMNS), 2)] for row in rows]
    columns = ("depth", *(column for name in names for column in (name, f"{name}_sd")))
    return columns, tuple(rows), np.array(fitted)


def _ssim_no_fit(image: Volume, target: Volume) -> float | None:
    """Return SSIM of planes (Y, X) on the target's scale (percentiles 0.1 and 99.9 become 0 and 1)."""
    low, high = np.percentile(target, (0.1, 99.9))
    if high <= low or min(target.shape) < WINDOW:
        return None
    one, other = ((plane.astype(np.float64) - low) / (high - low) for plane in (image, target))
    return float(structural_similarity(one, other, win_size=WINDOW, data_range=1.0))  # type: ignore[no-untyped-call]

"""What a result is scored with, and how scores of several runs are put together and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.depth import bins
from deepcontrast.evaluation import depth_means, fidelity, truth_rows
from deepcontrast.experiments import Cell, Run, Subject
from deepcontrast.patches import unseen
from deepcontrast.select import structures_kept
from deepcontrast.task import Source

Volume = NDArray[np.float32]

TOLERANCE = 0.01
"""Difference of a score that counts as none."""

TRUTH = ("iou", "iou_stack", "ssim", "ssim_clipped", "ssim_foreground", "ssim_foreground_clipped")
"""Scores against truth and mask: means over planes; ``iou_stack`` is of the whole stack."""

NO_TRUTH = ("neighbours", "correlation", "unsupported")
"""Scores that need no truth: means over parts of the depth; the share of unsupported components over the stack."""

WORDS = {
    "iou": "IoU",
    "iou_stack": "IoU, one threshold",
    "ssim": "SSIM",
    "ssim_clipped": "SSIM, clipped",
    "ssim_foreground": "SSIM of the foreground",
    "ssim_foreground_clipped": "SSIM of the foreground, clipped",
    "pearson_clipped": "correlation, clipped",
    "neighbours": "share explained of what the neighbouring raw planes show alike",
    "correlation": "correlation with the raw's structures",
    "unsupported": "share of unsupported components",
}

DEFINITIONS = {
    "iou": "best-threshold intersection over union with the mask, one threshold per plane; 'iou_stack': one for all",
    "ssim": "window 7 x 7, data range 1, truth scaled by its percentiles 0.1 and 99.9, result fitted to it by least "
    "squares per plane (CARE); 'foreground': mean over the mask dilated by 3 px; 'clipped': grey levels below the "
    "plane's median set to it",
    "neighbours": "share of the structures, high-passed, that the raw planes above and below have in common which the "
    "re-blurred result explains, in the square that training did not see (free of noise; mean over parts of the depth)",
    "correlation": "of the raw's structure band with its best fit by the re-blurred result",
    "unsupported": "share of the result's components over 9 voxels with nothing in the raw at their place",
}


def measure(subject: Subject, source: Source, raw: Volume, result: Volume, fit: Any) -> dict[str, Cell]:
    """Return the scores of a result (Z, Y, X) by name, ``None`` where undefined.

    Args:
        subject: truth and mask are taken from it, where it has them.
        source: depth of the planes, and which voxels hold a measurement.
        raw: (Z, Y, X), camera pattern removed.
        result: (Z, Y, X), in the same grey levels.
        fit: numbers of the stack: the raw's noise, and the square that training did not see.
    """
    found: dict[str, Cell] = {}
    valid = source.invalid.valid
    if subject.truth is not None or subject.mask is not None:
        nowhere = [None] * len(raw)
        rows = truth_rows(
            result, subject.truth, subject.mask, method="", k=None, depth_um=nowhere, valid=valid, metrics=("ssim",)
        )
        means = depth_means(rows, len(raw), count=1)
        values = {name: _number(float(mean[0])) for name, mean in means.items()}
        values |= {row.metric: row.value for row in rows if row.z is None}
        found |= {name: values[name] for name in TRUTH if name in values}
    region = unseen(fit.held_out, fit.patch, raw.shape[1:])
    score = structures_kept([raw, result], source.depth, bins([source.depth]), valid, region)[:, 1]
    camera = fit.camera
    parts = fidelity(raw, result, source.depth, gain=camera.gain, intercept=camera.intercept, valid=valid)
    components = sum(part.components for part in parts)
    found["neighbours"] = float(score[np.isfinite(score)].mean()) if np.isfinite(score).any() else None
    found["correlation"] = float(np.mean([part.correlation for part in parts]))
    found["unsupported"] = sum(part.unsupported for part in parts) / components if components else None
    return found


def scores_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the names of the scores that runs have, in the order they are shown."""
    return tuple(name for name in (*TRUTH, *NO_TRUTH) if any(name in run for run in runs))


def told(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the scores that a finding is told in: against the truth where there is one."""
    of_truth = ("iou", "ssim", "ssim_clipped", "ssim_foreground")
    return tuple(score for score in of_truth if score in scores_of(runs)) or NO_TRUTH[:2]


def definitions(runs: Sequence[Run]) -> dict[str, str]:
    """Return what the scores of runs are, by name."""
    return {name: DEFINITIONS[name] for name in scores_of(runs) if name in DEFINITIONS}


def summarise(runs: Sequence[Run], by: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Return columns and rows: mean and standard deviation of every score for each setting of ``by``.

    The standard deviation is the sample's (n - 1), ``None`` of one run. Settings stand in the order they came.
    """
    names = scores_of(runs)
    groups: dict[tuple[Cell, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in by), []).append(run)
    columns = (*by, "runs", *(column for name in names for column in (name, f"{name}_sd")))
    rows = tuple(
        (*setting, len(group), *(cell for name in names for cell in spread([run.get(name) for run in group])))
        for setting, group in groups.items()
    )
    return columns, rows


def spread(values: Sequence[Cell] | Sequence[float]) -> tuple[Cell, Cell]:
    """Return mean and sample standard deviation of the numbers among values, ``None`` where undefined."""
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    if not numbers:
        return None, None
    return float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """One score under two settings, run by run.

    Attributes:
        score: its name.
        one, other: means over the runs that have both.
        higher, lower: in how many of them ``one`` is above or below ``other``.
        count: of runs.
    """

    score: str
    one: float
    other: float
    higher: int
    lower: int
    count: int

    @property
    def difference(self) -> float:
        return self.one - self.other

    def __str__(self) -> str:
        verdict = f"higher in {self.higher} of {self.count} runs"
        return f"{WORDS[self.score]} {self.one:.3f} against {self.other:.3f} ({verdict})"


def compared(runs: Sequence[Run], score: str, one: Mapping[str, Cell], other: Mapping[str, Cell]) -> Comparison | None:
    """Compare a score under two settings over the runs of the same stack and seed; ``None`` where there is none."""
    first, second = (
        {(run["stack"], run["seed"]): run.get(score) for run in runs if setting.items() <= run.items()}
        for setting in (one, other)
    )
    both = [(a, b) for key, a in first.items() if isinstance(a, float) and isinstance(b := second.get(key), float)]
    if not both:
        return None
    a, b = np.array(both).T
    return Comparison(score, float(a.mean()), float(b.mean()), int((a > b).sum()), int((a < b).sum()), len(both))


def comparisons(
    runs: Sequence[Run], one: Mapping[str, Cell], other: Mapping[str, Cell], scores: Sequence[str] = ()
) -> list[Comparison]:
    """Return the comparisons of several scores, by default those a finding is told in."""
    found = (compared(runs, score, one, other) for score in scores or told(runs))
    return [one_score for one_score in found if one_score is not None]


def listed(found: Sequence[Comparison]) -> str:
    """Return comparisons as the end of a sentence."""
    return "; ".join(str(one) for one in found) if found else "no score is defined"


def verdict(found: Sequence[Comparison]) -> str:
    """Return how the one compares with the other in all scores and all runs, with a tolerance of 0.01.

    ``"better than"``: every score is higher in every run, one of them by more than the tolerance; ``"worse than"``
    likewise; ``"no different from"``: no score differs by more; else ``"neither better nor worse than"``.
    """
    if found and all(abs(one.difference) <= TOLERANCE for one in found):
        return "no different from"
    if found and all(one.higher == one.count for one in found):
        return "better than"
    if found and all(one.lower == one.count for one in found):
        return "worse than"
    return "neither better nor worse than"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""What the comparison page is made of: the result and scores of every method; nothing left to compute with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.report.data import Array

RAW, OURS = "raw", "deepcontrast"
"""Names by which the page tells the raw and our own results from the baselines."""

ON_TRUTH = "on the truth"


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method on one stack.

    Attributes:
        name: registry name, e.g. ``"clahe_2d"``; ``"raw"`` and ``"deepcontrast"`` for the raw and for ours.
        label: what the page calls it; no two methods share one.
        k: number of passes; ``None`` where there are none to count, and for what ``enhance`` would write, which
            may blend passes.
        tuned: ``""``, ``"as a user would"`` or ``"on the truth"``.
        parameters: the settings in words, may be empty.
        volume: (Z', Y', X') grey levels of ``region``.
        region: where ``volume`` lies in the whole stack; less than all of it for a slow method.
        seconds: time that ``region`` took.
        voxels_per_second: throughput.
        peak_mb: peak memory beyond what was held before, in MB.
        scores: metric to its value in each plane of the whole stack (Z,); NaN where undefined or not measured.
            A name that ends in ``_clipped`` is the metric of the result clipped at its own background.
        stack_scores: metric to its one value for the whole stack (or ``region``).
    """

    name: str
    label: str
    k: float | None
    tuned: str
    parameters: str
    volume: NDArray[np.float32]
    region: tuple[slice, slice, slice]
    seconds: float | None
    voxels_per_second: float | None
    peak_mb: float | None
    scores: Mapping[str, Array]
    stack_scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class CompareData:
    """Everything the comparison page shows of one stack.

    Attributes:
        title: heading of the page.
        summary: plain sentences for the top.
        facts: what was understood of the input, each (name, value).
        depth_um: (Z,) depth of each plane below the surface.
        depth_unit: ``"um"`` or ``"planes"``.
        voxel_size: (z, y, x) in um, ``None`` where unknown.
        methods: raw first and whole, then ours k = 1 .. K, ours as written, baselines.
        truth: (Z, Y, X), where it is known.
        mask: (Z, Y, X) of structure, where it is known.
        iou_tiles: label of a method to the best-threshold IoU of each tile (tiles,); NaN where undefined.
        skipped: what was not done and why, a sentence each.
        provenance: what is needed to do it again, each (name, value).
        mask_note: where the mask comes from and whom it favours.
    """

    title: str
    summary: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    depth_um: Array
    depth_unit: str
    voxel_size: tuple[float | None, float | None, float | None]
    methods: tuple[MethodResult, ...]
    truth: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    iou_tiles: Mapping[str, Array]
    skipped: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    mask_note: str

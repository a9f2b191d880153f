"""What the page of results on another grid than the stack's is made of; nothing left to compute with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepcontrast.report.data import Array

TRUTH = "truth"
"""Name by which the page tells the truth from the methods."""


@dataclass(frozen=True, eq=False)
class GridMethod:
    """One method on one stack, or the truth.

    Attributes:
        name: registry name; ``"deepcontrast"`` for ours and ``"truth"`` for the truth.
        label: what the page calls it; no two share one.
        kind: ``raw`` (interpolated, no more), ``written`` (ours), ``user`` or ``truth`` (tuned as a user would, or on
            the truth), ``known`` (the truth).
        tuned: ``""``, ``"as a user would"`` or ``"on the truth"``.
        parameters: the settings in words, may be empty.
        volume: (Z', Y, X) grey levels; Z' is 1 for a projection.
        height: (Y, X) of a projection, in planes; ``None`` where it knows none.
        spread: (Y, X), how unsure the height is, in planes; ``None`` where it does not say.
        seconds, peak_mb: what it cost; ``None`` where not measured.
        scores: metric to its value; NaN where undefined.
        curves: name to x and y of what the page plots: ``axial`` and ``lateral`` (power against frequency), ``shells``
            and ``shells_axial`` (Fourier shells, all and about z), ``errors`` (ERROR against the share of the sweep).
    """

    name: str
    label: str
    kind: str
    tuned: str
    parameters: str
    volume: NDArray[np.float32]
    height: NDArray[np.float32] | None = None
    spread: NDArray[np.float32] | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class GridsData:
    """Everything the page shows of one stack.

    Attributes:
        title: heading of the page.
        task: ``"isotropic"`` or ``"project"``.
        summary: plain sentences for the top.
        facts: what was understood of the input, each (name, value).
        stack: (Z, Y, X) as it was taken.
        factor: distance of its planes in pixels; 1 where unknown.
        pixel_um: size of a pixel; ``None`` where unknown.
        methods: those that are compared, then the truth, where it is known.
        band: lowest and highest frequency of Phi, in cycles per pixel; ``None`` for projections.
        blur_words: how the axial blur was found; empty for projections.
        blur: ``frequency``, ``lateral``, ``axial`` and ``modelled`` of the spectra it was found from; may be empty.
        skipped: what was not done and why, a sentence each.
        provenance: what is needed to do it again, each (name, value).
    """

    title: str
    task: str
    summary: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    stack: NDArray[np.float32]
    factor: float
    pixel_um: float | None
    methods: tuple[GridMethod, ...]
    band: tuple[float, float] | None
    blur_words: str
    blur: Mapping[str, Array]
    skipped: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]

"""The papers' own experiments, runnable on simulated tissue and on a user's stack, and ours; each file one.

A file holds one function of stacks and settings to a :class:`Finding`. Beside it stand ``PHANTOMS``, the kinds of
simulated tissue it needs, and ``sentences``, which says what the numbers show, whichever way they come out. One that
takes hours, on stacks that it simulates itself (``simulated``), keeps in a folder what is done, and may be given which
of its ideas to try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.stack import Stack

PAIR = (
    "train.loss=mae",
    "task.thin=0",
    "task.widths=[1]",
    "task.haze=0.02",
    "net.context=0",
    "net.dims=2",
    "predict.orientations=1",
)
"""What makes the published pair of images of the recipe ``contrast``."""
PUBLISHED = (
    *PAIR,
    "predict.iterations=6",
    "train.steps=1500",
    "train.batch=16",
    "train.learning_rate=1e-3",
    "train.clip=0",
)
"""The same, with the training that suits it better in the mean (docs/decisions.md): that of the papers' experiments."""

Cell = str | int | float | None
Run = Mapping[str, Cell]
"""One measurement by the names of its columns; ``None`` where undefined."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A stack that an experiment is made on: its first time point and channel.

    Attributes:
        name: of the tissue; stacks of one name are of one kind.
        stack: with its surface known.
        truth: what is there (Z, Y, X), where it is known.
        mask: structures (Z, Y, X), where they are known.
        seed: what a simulated stack was made from: it is trained on with the same seed. ``None`` for a measured
            stack, which is trained on with every seed.
    """

    name: str
    stack: Stack
    truth: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class Finding:
    """What an experiment found.

    Attributes:
        title: of the experiment.
        source: the paper and its figure or table.
        columns: of the table; a column ``x_sd`` is the standard deviation of ``x``.
        rows: means over runs and their standard deviations, ``None`` where undefined.
        runs: what the table is made from.
        figure: PNG.
        sentences: the finding in words, computed from the numbers.
        settings: what it was measured with, by name.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    runs: tuple[Run, ...]
    figure: bytes
    sentences: tuple[str, ...]
    settings: Mapping[str, str]


def pairs(subjects: Sequence[Subject], seeds: Sequence[int]) -> list[tuple[Subject, int]]:
    """Return every stack with every seed of training; a simulated one with its own only."""
    return [(subject, seed) for subject in subjects for seed in seeds if subject.seed in (None, seed)]

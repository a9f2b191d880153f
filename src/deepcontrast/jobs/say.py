"""What a job says: what the images are, what was found in them, which of them failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.stack import Stack
from deepcontrast.valid import survey

Say = Callable[[str], None]


def describe_stack(stack: Stack, say: Say) -> None:
    say(stack.describe())
    for note in stack.notes:
        say(f"  {note}")


def looked_at(name: str, stack: Stack, why: str) -> list[str]:
    """Return, before the long work starts, which plane is the surface and which voxels hold no measurement."""
    said = [f"{name}: the surface is the {stack.optics.surface} plane ({why})"]
    counts: dict[str, NDArray[np.int64]] = {}
    for t in range(stack.size("T")):
        for c in range(stack.size("C")):
            found = survey(stack.frame(t, c))
            for reason, planes in {**found.counts, "lowest": found.at_zero}.items():
                counts[reason] = counts.get(reason, np.zeros_like(planes)) + planes
    for reason, planes in counts.items():
        where = f"{int(planes.sum())} voxels in {np.count_nonzero(planes)} of {len(planes)} planes"
        if reason == "lowest" and planes.any():
            said.append(f"{name}: {where} pile up at the lowest value; they are kept, as dark")
        elif planes.any():
            said.append(f"{name}: {where} are {reason}; they are left out and come back unchanged")
    return said


def raise_failures(failures: Sequence[str], count: int) -> None:
    """Raise InputError where some of several images failed."""
    if failures:
        raise InputError(f"{len(failures)} of {count} images failed: " + "; ".join(failures))

"""What the grey levels themselves say, before any fit: whole numbers or not, and piles at the ends of their range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.noise.planes import Masks, Volumes, values_of

PARTS = 64
"""In which values are looked through, so that there is no second copy of all."""


@dataclass(frozen=True)
class Grey:
    """How the grey levels are laid out: whole numbers, their step, piles at either end, the range."""

    low: float
    high: float
    step: float  # 0 where the values are not whole numbers
    clipped: bool  # many voxels at the lowest value
    saturated: bool  # many voxels at the highest value
    shares: tuple[float, float]  # of the voxels at the lowest and at the highest value
    median: float
    dark: float  # 2nd percentile
    floor: float  # 0.1st percentile
    darkest: float  # one voxel in 100,000 is darker


def grey_levels(volumes: Volumes, masks: Masks) -> Grey | None:
    """Return the layout of the grey levels, or None where no voxel is usable."""
    values = values_of(volumes, masks)
    if not values.size:
        return None
    values.sort()
    whole = all(np.array_equal(part, np.round(part)) for part in np.array_split(values, PARTS))
    step, low, high = _step(values) if whole else 0.0, float(values[0]), float(values[-1])
    lowest, highest = _piles(values), _piles(values, from_top=True)
    tall = len(lowest) > 8
    # Their order is lost here.
    darkest, floor, dark, median = np.percentile(values, (0.001, 0.1, 2, 50), overwrite_input=True)
    return Grey(
        low=low,
        high=high,
        step=step,
        # Few photons pile up as well, but then the next levels fall as steeply.
        clipped=bool(tall and lowest[0] > 10 + 3 * lowest[1] and lowest[1] < 2 * lowest[2]),
        saturated=bool(tall and highest[0] > 10 + 5 * np.mean(highest[1:5])),
        shares=(lowest[0] / values.size, highest[0] / values.size),
        median=float(median),
        dark=float(dark),
        floor=float(floor),
        darkest=float(darkest),
    )


def _piles(values: NDArray[Any], *, from_top: bool = False) -> list[int]:
    """Return how many sorted values (n,) are at each of the nine lowest or highest levels, the outermost first."""
    counts: list[int] = []
    low, high = 0, len(values)
    while low < high and len(counts) < 9:
        if from_top:
            edge = int(np.searchsorted(values, values[high - 1], "left"))
            counts.append(high - edge)
            high = edge
        else:
            edge = int(np.searchsorted(values, values[low], "right"))
            counts.append(edge - low)
            low = edge
    return counts


def _step(values: NDArray[Any]) -> float:
    """Return the least distance of two levels among sorted whole numbers (n,), 0 where there is one level."""
    levels = values[np.append(True, values[1:] != values[:-1])].astype(np.float64)
    return float(np.diff(levels).min()) if len(levels) > 1 else 0.0


def grey_notes(grey: Grey) -> list[str]:
    """Return what is worth saying of the grey levels, one sentence each."""
    notes = []
    if grey.step == 0:
        notes.append(
            "The grey levels are not whole numbers, so they were averaged, rescaled or computed: "
            "the gain counts effective photons of the image as it is."
        )
    elif grey.high <= 255 and (grey.saturated or grey.clipped):
        notes.append(
            "The image uses 8 bits and piles up at an end of its range, as after rescaling: "
            "the gain counts effective photons of the image as it is."
        )
    ends = (
        (grey.saturated, grey.shares[1], f"highest value {grey.high:g}"),
        (grey.clipped, grey.shares[0], f"lowest value {grey.low:g}"),
    )
    for piled, share, end in ends:
        if piled:
            notes.append(f"{share:.2%} of the voxels are at the {end}; the fit leaves their surroundings out.")
    return notes

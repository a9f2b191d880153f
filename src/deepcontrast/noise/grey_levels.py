"""What the grey levels themselves say, before any fit: whole numbers or not, and piles at the ends of their range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepcontrast.noise.planes import Masks, Volumes, values_of


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
    levels, counts = np.unique(values, return_counts=True)
    levels = levels.astype(np.float64)
    whole, tall = bool(np.all(levels == np.round(levels))), len(levels) > 8
    darkest, floor, dark, median = np.percentile(values, (0.001, 0.1, 2, 50))
    return Grey(
        low=float(levels[0]),
        high=float(levels[-1]),
        step=float(np.diff(levels).min()) if whole and len(levels) > 1 else 0.0,
        # Few photons pile up as well, but then the next levels fall as steeply.
        clipped=bool(tall and counts[0] > 10 + 3 * counts[1] and counts[1] < 2 * counts[2]),
        saturated=bool(tall and counts[-1] > 10 + 5 * counts[-5:-1].mean()),
        shares=(float(counts[0] / values.size), float(counts[-1] / values.size)),
        median=float(median),
        dark=float(dark),
        floor=float(floor),
        darkest=float(darkest),
    )


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

"""Lengths as image files write them, in micrometres."""

from __future__ import annotations

import math
import re

VoxelSize = tuple[float | None, float | None, float | None]
UNKNOWN: VoxelSize = (None, None, None)

# Spellings of ImageJ, OME-XML and OME-Zarr. Inches and pixels are absent on purpose: they are what programs
# write when nobody measured anything.
_MICROMETRES = {
    "m": 1e6,
    "meter": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "picometer": 1e-6,
}


def micrometres(length: float | str | None, unit: str | None) -> float | None:
    """Return a length in micrometres; ``None`` if it is no positive number or the unit is not known."""
    factor = _MICROMETRES.get(_spelling(unit or ""))
    try:
        value = float(length) if length is not None else math.nan
    except ValueError:
        return None
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    return value if factor == 1.0 else value * factor


def _spelling(unit: str) -> str:
    # ImageJ escapes what is not ASCII; the micro sign and the Greek mu look alike.
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit).strip()
    return unit.replace("\u00b5", "u").replace("\u03bc", "u").replace("\u212b", "å").lower()

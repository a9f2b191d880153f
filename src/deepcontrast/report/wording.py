"""Depths, counts and numbers in words, as the page writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from deepcontrast.report.data import Array


class Depths(Protocol):
    """What a page knows of depth: of each plane (Z,), and in which unit."""

    @property
    def depth_um(self) -> Array: ...

    @property
    def depth_unit(self) -> str: ...


def unit_of(data: Depths) -> str:
    return "µm" if data.depth_unit == "um" else data.depth_unit


def rounded(data: Depths, depth: float) -> str:
    """Return a depth with as many decimals as the extent of the stack deserves."""
    extent = float(np.ptp(data.depth_um))
    return f"{depth:.{0 if extent >= 50 or data.depth_unit != 'um' else 1 if extent >= 5 else 2}f}"


def depth_of(data: Depths, z: int) -> str:
    return f"{rounded(data, float(data.depth_um[z]))} {unit_of(data)}"


def span(data: Depths, low: float, high: float) -> str:
    ends = rounded(data, low), rounded(data, high)
    return f"{ends[0] if ends[0] == ends[1] else ' to '.join(ends)} {unit_of(data)}"


def depth_axis(data: Depths) -> str:
    return f"depth below the surface ({unit_of(data)})"


def place(data: Depths, z: int) -> str:
    return f"{depth_of(data, z)} deep, plane {z + 1} of {len(data.depth_um)}"


def pass_words(k: int) -> str:
    return "raw" if k == 0 else f"k = {k}"


def k_words(k: float) -> str:
    if k == round(k):
        return "raw, unchanged" if k == 0 else f"k = {k:.0f}"
    return f"k = {k:.2f}, a blend of {int(k)} and {int(k) + 1}"


def number(value: float, form: str) -> str:
    return format(value, form).replace("-", "−") if np.isfinite(value) else "not defined"


def counted(n: Any) -> str:
    return f"{int(n):,}".replace(",", "\u202f")


def with_unit(value: Any, unit: str, otherwise: str = "not known") -> str:
    return otherwise if finite(value) is None else f"{value:.4g} {unit}"


def finite(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def words(value: Any) -> str:
    """Return a value of any kind as a reader would say it."""
    if value is None or isinstance(value, str):
        return value or "not known"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, (Sequence, np.ndarray)):
        return ", ".join(words(item) for item in value) or "not known"
    return number(float(value), ".3g")

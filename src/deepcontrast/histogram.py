"""How often each grey level occurs, and exact percentiles of images that are read in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Parts = Callable[[], Iterable[NDArray[Any]]]
"""Gives all parts of an image; called once for every reading."""

Keys = NDArray[np.unsignedinteger[Any]]
DIGIT = 16  # bits of a value that one reading counts
STEP = 2**20


@dataclass(frozen=True, eq=False)
class Histogram:
    """The levels of an image of 8 or 16 bit integers, and how often each occurs.

    Attributes:
        levels: the values that occur (n,), rising.
        counts: int64 (n,).
    """

    levels: NDArray[np.int64]
    counts: NDArray[np.int64]

    def percentile(self, q: float) -> float:
        """Return a percentile, between two values linearly interpolated, as ``np.percentile`` does."""
        below = np.cumsum(self.counts)
        return _interpolated(int(below[-1]), q, lambda rank: int(self.levels[np.searchsorted(below, rank, "right")]))

    def between(self, low: int, high: int) -> int:
        """Return the number of voxels of ``low <= value < high``."""
        return int(self.counts[(self.levels >= low) & (self.levels < high)].sum())


def countable(dtype: np.dtype[Any]) -> bool:
    """Return whether every level of a type can be counted for itself: integers of 8 and 16 bits."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def tally(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return how often each level of an 8 or 16 bit integer type occurs, from the type's lowest to its highest."""
    keys, table = _keys(values), np.zeros(2 ** (8 * values.dtype.itemsize), np.int64)
    for start in range(0, len(keys), STEP):  # bincount makes eight bytes of every value
        table += np.bincount(keys[start : start + STEP], minlength=len(table))
    return table


def histogram(table: NDArray[np.int64], dtype: np.dtype[Any]) -> Histogram:
    """Return the histogram of the sum of some tallies."""
    present = np.flatnonzero(table)
    return Histogram(present + int(np.iinfo(dtype).min), table[present])


def percentiles(parts: Parts, q: Sequence[float]) -> tuple[float, ...]:
    """Return percentiles of an image too large for memory, the very values of ``np.percentile``; NaN left out.

    The sought ranks are found digit by digit (radix selection): every reading counts the next 16 bits of the
    values that begin like a sought one. 8 and 16 bit types are read once, float32 twice, float64 four times;
    memory is that of one part and a table of 65,536 counts for every sought rank.

    Args:
        parts: gives the parts, all of one type; called anew for every reading.
        q: percentages, 0 to 100.

    Raises:
        ValueError: no voxel that is not NaN.
    """
    dtype, total, tables = _count(parts, {0}, 0)
    if not total:
        raise ValueError("no value to take a percentile of")
    bits = 8 * dtype.itemsize
    ranks = {rank for p in q for rank in _neighbours(total, p)}
    # Of every rank: the digits found so far, and its rank among the values that begin with them.
    found = {rank: (0, rank) for rank in ranks}
    for done in range(0, bits, DIGIT):
        if done:
            _, _, tables = _count(parts, {prefix for prefix, _ in found.values()}, done)
        width = min(DIGIT, bits - done)
        for rank, (prefix, left) in found.items():
            below = np.cumsum(tables[prefix])
            digit = int(np.searchsorted(below, left, "right"))
            found[rank] = (prefix << width | digit, left - int(below[digit - 1] if digit else 0))
    values = {rank: _value(key, dtype) for rank, (key, _) in found.items()}
    results = (_interpolated(total, p, values.__getitem__) for p in q)
    return tuple(float(dtype.type(r)) if dtype.kind == "f" else r for r in results)


def _count(parts: Parts, prefixes: set[int], done: int) -> tuple[np.dtype[Any], int, dict[int, NDArray[np.int64]]]:
    """Return the type, the number of values, and for every prefix of ``done`` bits the counts of the next digit."""
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    total, tables = 0, {prefix: np.zeros(1, np.int64) for prefix in prefixes}
    for part in parts():
        dtype = part.dtype
        bits = 8 * dtype.itemsize
        width = min(DIGIT, bits - done)
        keys = _keys(part)
        total += len(keys)
        for prefix in prefixes:
            begun = keys[keys >> (bits - done) == prefix] if done else keys
            digits = (begun >> (bits - done - width)) & (2**width - 1)
            tables[prefix] = tables[prefix] + np.bincount(digits.astype(np.intp), minlength=2**width)
    return dtype, total, tables


def _keys(values: NDArray[Any]) -> Keys:
    """Return unsigned integers (n,) in the order of the values; NaN left out."""
    values = np.ascontiguousarray(values).ravel()
    if values.dtype.kind == "f" and np.isnan(values).any():
        values = values[~np.isnan(values)]
    bits: Keys = values.view(f"{values.dtype.byteorder}u{values.dtype.itemsize}")
    sign = bits.dtype.type(1 << (8 * values.dtype.itemsize - 1))
    if values.dtype.kind == "f":
        return np.where(bits & sign, ~bits, bits | sign)
    return bits ^ sign if values.dtype.kind == "i" else bits


def _value(key: int, dtype: np.dtype[Any]) -> Any:
    """Return the value of a key; the inverse of :func:`_keys`."""
    bits, sign = 8 * dtype.itemsize, 1 << (8 * dtype.itemsize - 1)
    if dtype.kind == "f":
        raw = key ^ sign if key & sign else key ^ (2**bits - 1)
        return np.array(raw, f"u{dtype.itemsize}").view(f"f{dtype.itemsize}")[()]
    return key - sign if dtype.kind == "i" else key


def _neighbours(total: int, q: float) -> tuple[int, int]:
    rank = math.floor((total - 1) * (q / 100))
    return rank, min(rank + 1, total - 1)


def _interpolated(total: int, q: float, value: Callable[[int], Any]) -> float:
    low, high = (value(rank) for rank in _neighbours(total, q))
    if low == high:
        return float(low)
    place = (total - 1) * (q / 100)
    share = np.float64(place - math.floor(place))
    # From the nearer end, the difference in the image's own precision: NumPy's results, to the last bit.
    return float(low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share))

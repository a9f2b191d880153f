"""Voxels that hold no measurement: the empty borders of stitching, constant planes, saturation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.histogram import Histogram, countable, histogram, tally
from deepcontrast.progress import Event, Progress, silent

EMPTY, SATURATED = 1, 2
REASONS = {EMPTY: "empty", SATURATED: "saturated"}

SURVEYED = 2**32
"""Voxels of a volume that a survey reads; of a larger one, runs of planes with as many in all."""
RUN = 16
"""Planes of such a run: a chunk of a large stack is about as deep, and is read whole in any case."""
WHOLE = 4096 * 4096
"""Pixels of the largest plane whose empty border is followed from its rim."""
SLAB_BYTES = 128 * 2**20
THICK = 5  # voxels; thinner pieces of one value are not taken for a border
RIM = THICK - 1  # voxels around a window that decide on those inside

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Invalid:
    """Which voxels of a volume hold no measurement, and why.

    Attributes:
        codes: uint8 (Z, Y, X): 0 valid, 1 empty (filled border or constant plane), 2 saturated; ``None``
            where every voxel is valid.
        counts: voxels per plane (Z,) for each reason.
        at_zero: voxels per plane (Z,) that sit at a pile-up at the bottom of the range. They are counted and
            said, not left out: they do hold a measurement, "dark" (docs/decisions.md).
    """

    codes: NDArray[np.uint8] | None
    counts: dict[str, NDArray[np.int64]]
    at_zero: NDArray[np.int64]

    @property
    def valid(self) -> NDArray[np.bool_] | None:
        """Voxels that hold a measurement, (Z, Y, X), or ``None`` where all do."""
        return None if self.codes is None else self.codes == 0

    @property
    def bordered(self) -> bool:
        """Whether a plane has an empty border."""
        if (empty := self.empty) is None:
            return False
        return bool((empty.any(axis=(1, 2)) & ~empty.all(axis=(1, 2))).any())

    @property
    def empty(self) -> NDArray[np.bool_] | None:
        """Voxels that no light was recorded for, (Z, Y, X), or ``None`` where there are none."""
        return None if self.codes is None or not (self.codes == EMPTY).any() else self.codes == EMPTY


@dataclass(frozen=True, eq=False)
class Survey:
    """What one reading of a volume (Z, Y, X) tells: all that must be known of the whole to judge a part.

    Attributes:
        shape: of the volume.
        low, high: lowest and highest value; NaN where a voxel is.
        histogram: of 8 and 16 bit integers, else ``None``.
        not_finite: voxels that are NaN or infinite.
        seen: which planes were read (Z,); the numbers of the others are 0.
        blank: which planes have one value (Z,).
        bordered: which planes have an empty border (Z,).
        borders: whether the lowest value, in a thick piece at the border of a plane, means empty.
        piled_up: whether the highest value means saturated.
        level: mean of the voxels of each plane that are not empty (Z,).
        counts, at_zero: as of :class:`Invalid`.
        means: of every row (Z, Y), and of every column (Z, X); ``None`` where not every plane is seen, or one has an
            empty border.
    """

    shape: tuple[int, int, int]
    low: Any
    high: Any
    histogram: Histogram | None
    not_finite: int
    seen: NDArray[np.bool_]
    blank: NDArray[np.bool_]
    bordered: NDArray[np.bool_]
    borders: bool
    piled_up: bool
    level: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    at_zero: NDArray[np.int64]
    means: tuple[NDArray[np.float32], NDArray[np.float32]] | None

    @property
    def complete(self) -> bool:
        """Whether every plane was read."""
        return bool(self.seen.all())

    @property
    def all_valid(self) -> bool:
        """Whether every voxel holds a measurement, as far as was read."""
        return not self.counts

    @property
    def holes(self) -> NDArray[np.bool_]:
        """Planes (Z,) that have empty voxels, or may have."""
        return self.blank | self.bordered | (~self.seen & self.borders)

    def with_saturation(self) -> Survey:
        """Return the survey with saturated voxels taken for measurements: "bright", which a network can learn from."""
        counts = {reason: each for reason, each in self.counts.items() if reason != REASONS[SATURATED]}
        return replace(self, piled_up=False, counts=counts)

    def usable(self, share: float) -> NDArray[np.bool_]:
        """Return the planes (Z,) of which more than a share is valid; what was not read is taken to be."""
        size = self.shape[1] * self.shape[2]
        return (size - sum(self.counts.values(), np.zeros(self.shape[0], np.int64))) / size > share

    def note(self) -> str | None:
        """Return what to say where not every plane was read."""
        if self.complete:
            return None
        return (
            f"{int(self.seen.sum())} of {len(self.seen)} planes were looked at, in evenly spaced runs of {RUN}: range, "
            "empty and saturated voxels are judged by those, and counts are theirs"
        )


def survey(volume: Any, progress: Progress = silent) -> Survey:
    """Read a volume (Z, Y, X) once, slab by slab, and return what must be known of the whole to judge a part.

    A volume of more than ``SURVEYED`` voxels is judged by runs of ``RUN`` planes, evenly spaced, the first and
    the last among them. A plane of more than ``WHOLE`` pixels is read in bands of rows; there an empty border is
    any thick piece of the lowest value, whether it reaches the rim of the plane or not.

    Args:
        volume: anything with ``shape``, ``dtype`` and slicing, as it was read, before any arithmetic.
        progress: gets events.
    """
    planes, height, width = (int(n) for n in volume.shape)
    dtype, size = np.dtype(volume.dtype), height * width
    seen = _runs(planes, size)
    found = [_Plane() for _ in range(planes)]
    table = np.zeros(2 ** (8 * dtype.itemsize), np.int64) if countable(dtype) else None
    looked = 0
    for z, rows in _slabs(seen, (planes, height, width), dtype.itemsize):
        rim = slice(max(0, rows.start - RIM), min(height, rows.stop + RIM))
        slab = np.asarray(volume[z, rim])
        inner = slice(rows.start - rim.start, rows.stop - rim.start)
        for plane, part in zip(found[z], slab, strict=True):
            counts = plane.add(part, inner, whole=size <= WHOLE)
            if table is not None:
                table += counts
        looked += (z.stop - z.start) * (rows.stop - rows.start) * width
        progress(Event("survey", looked, int(seen.sum()) * size))
    return _judge(volume, found, seen, None if table is None else histogram(table, dtype))


class _Plane:
    """What is counted of one plane while its rows go by."""

    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None
        self.at_low = self.at_high = self.thick = self.not_finite = 0
        self.total = 0.0
        self.rows: list[NDArray[np.float32]] = []
        self.columns: Any = 0.0

    def add(self, part: NDArray[Any], inner: slice, *, whole: bool) -> NDArray[np.int64] | None:
        """Count the inner rows of a part (Y, X); return the tally of its levels where they can be counted."""
        rows = part[inner]
        self.rows.append(rows.mean(axis=1, dtype=np.float64).astype(np.float32))
        self.columns = self.columns + rows.sum(axis=0, dtype=np.float64)
        counts = None
        if countable(rows.dtype):
            counts = tally(rows)
            least = int(np.iinfo(rows.dtype).min)
            first, last = int(np.argmax(counts > 0)), len(counts) - 1 - int(np.argmax(counts[::-1] > 0))
            low, high, at_low, at_high = first + least, last + least, int(counts[first]), int(counts[last])
            self.total += float(counts @ np.arange(least, least + len(counts)))
        else:
            low, high = rows.min(), rows.max()
            at_low, at_high = int((rows == low).sum()), int((rows == high).sum())
            self.total += float(rows.sum(dtype=np.float64))
            if rows.dtype.kind == "f":
                self.not_finite += rows.size - int(np.isfinite(rows).sum())
        if self.low is None or low < self.low or low != low:
            self.low, self.at_low, self.thick = low, 0, 0
        if self.high is None or high > self.high or high != high:
            self.high, self.at_high = high, 0
        if low == self.low:
            self.at_low += at_low
            # A piece has its least voxels in a corner of the plane, where most of the square is beyond the rim.
            if at_low >= (THICK // 2 + 1) ** 2:
                self.thick += int(_pieces(part == low, whole)[inner].sum())
        if high == self.high:
            self.at_high += at_high
        return counts


def _judge(volume: Any, found: list[_Plane], seen: NDArray[np.bool_], levels: Histogram | None) -> Survey:
    """Put together what the planes say."""
    planes, height, width = (int(n) for n in volume.shape)
    dtype, size = np.dtype(volume.dtype), height * width
    looked = [found[z] for z in np.flatnonzero(seen)]
    # Not the functions of Python: they pass over NaN.
    low, high = np.min([p.low for p in looked]), np.max([p.high for p in looked])
    if dtype.kind != "f":
        low, high = int(low), int(high)

    def table(value: Any) -> NDArray[np.int64]:
        return np.array([value(p) if s else 0 for p, s in zip(found, seen, strict=True)], np.int64)

    blank = table(lambda p: p.low == p.high).astype(bool)
    at_low = np.where(blank, 0, table(lambda p: p.at_low if p.low == low else 0))
    thick = np.where(blank, 0, table(lambda p: p.thick if p.low == low else 0))
    lit = int((seen & ~blank).sum()) * size
    inside = lit - int(thick.sum())
    borders = bool(thick.any()) and (not inside or int((at_low - thick).sum()) < 0.01 * inside)
    thick = thick if borders else np.zeros_like(thick)
    at_top = table(lambda p: p.at_high if p.high == high else 0)
    piled_up = _piled_up(volume, seen, low, high, int(at_top.sum()), levels)
    counts = {
        "empty": np.where(blank, size, thick),
        "saturated": np.where(blank, 0, at_top) if piled_up else np.zeros(planes, np.int64),
    }
    bottom = at_low - thick
    dark = dtype.kind in "iu" and int(bottom.sum()) >= 0.001 * int(seen.sum()) * size
    total = np.array([p.total for p in found]) - np.where(thick > 0, thick * np.float64(low), 0)
    level = total / (size - thick)
    return Survey(
        shape=(planes, height, width),
        low=low,
        high=high,
        histogram=levels,
        not_finite=sum(p.not_finite for p in looked),
        seen=seen,
        blank=blank,
        bordered=thick > 0,
        borders=borders,
        piled_up=piled_up,
        level=np.interp(np.arange(planes), np.flatnonzero(seen), level[seen]),
        counts={reason: each for reason, each in counts.items() if each.any()},
        at_zero=bottom if dark else np.zeros(planes, np.int64),
        means=_means(found, height) if seen.all() and not thick.any() else None,
    )


def _means(found: list[_Plane], height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the means of every row (Z, Y) and every column (Z, X)."""
    rows = np.stack([np.concatenate(plane.rows) for plane in found])
    return rows, np.stack([plane.columns / height for plane in found]).astype(np.float32)


def find_invalid(volume: NDArray[Any]) -> Invalid:
    """Find empty and saturated voxels of a volume (Z, Y, X) as it was read, before any arithmetic.

    Empty is a plane of one value, or a border of one value: the lowest value of the volume, in a piece that
    touches the border of the plane and is at least 5 voxels thick, while that value is rare elsewhere (in a
    dim photon-counting stack zeros are common everywhere, and are measurements).
    Saturated is a pile-up at the highest value: the largest value of the type or of a 10 to 15 bit camera, or
    one that at least 20 voxels share and that is 20 times as frequent as the values just below it.
    """
    return invalid_of(volume, survey(volume))


def invalid_of(volume: Any, known: Survey) -> Invalid:
    """Return the invalid voxels of a whole volume, given its survey."""
    everything = (slice(0, known.shape[0]), slice(0, known.shape[1]), slice(0, known.shape[2]))
    return Invalid(None if known.all_valid else codes(volume, known, everything), known.counts, known.at_zero)


def codes(volume: Any, known: Survey, box: Box) -> NDArray[np.uint8]:
    """Return the codes of the voxels in a box (start and stop along Z, Y, X) of a volume, given its survey.

    They are those that :func:`find_invalid` gives for the whole, where every plane was surveyed.
    """
    z = box[0]
    found = np.zeros([b.stop - b.start for b in box], np.uint8)
    if known.piled_up:
        found[np.asarray(volume[box]) == known.high] = SATURATED
    found[known.blank[z]] = EMPTY
    for some, region, _, empty in bordered(volume, known, box):
        found[some.start - z.start : some.stop - z.start][empty[:, *within(box[1:], region)]] = EMPTY
    return found


def bordered(
    volume: Any, known: Survey, box: Box, margin: int = 0
) -> Iterator[tuple[slice, tuple[slice, slice], NDArray[Any], NDArray[np.bool_]]]:
    """Yield the planes of a box that have empty borders, a few at a time, as far as they must be read to know.

    That is the whole plane, up to ``WHOLE`` pixels; of a larger one, the box and ``margin`` pixels around it.

    Yields:
        Which planes; the region along Y and X that was read of them; its voxels (planes, Y, X); which are empty.
    """
    z, *window = box
    whole = known.shape[1] * known.shape[2] <= WHOLE
    inner, outer = [], []
    for b, n in zip(window, known.shape[1:], strict=True):
        inner.append(slice(0, n) if whole else slice(max(0, b.start - margin), min(n, b.stop + margin)))
        outer.append(slice(max(0, inner[-1].start - RIM), min(n, inner[-1].stop + RIM)))
    region, read = (inner[0], inner[1]), (outer[0], outer[1])
    kept = within(region, read)
    wanted = np.zeros(known.shape[0], bool)
    wanted[z] = (known.holes & ~known.blank)[z]
    at_once = max(1, SLAB_BYTES // max(1, 4 * math.prod(r.stop - r.start for r in read)))
    for some in consecutive(wanted, at_once):
        planes = np.asarray(volume[some, *read])
        empty = np.stack([_pieces(plane == known.low, whole) for plane in planes])
        yield some, region, planes[:, *kept], empty[:, *kept]


def within(window: tuple[slice, slice], region: tuple[slice, slice]) -> tuple[slice, slice]:
    """Return where a window (Y, X) lies in a region that holds it."""
    y, x = (slice(w.start - r.start, w.stop - r.start) for w, r in zip(window, region, strict=True))
    return y, x


def consecutive(wanted: NDArray[np.bool_], at_once: int) -> Iterator[slice]:
    """Yield the runs of wanted planes (Z,), at most so many at once."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for start in range(first, last, at_once):
            yield slice(start, min(start + at_once, last))


def fill_empty(volume: NDArray[np.float32], invalid: Invalid) -> NDArray[np.float32]:
    """Return the volume with empty voxels replaced by the normalised blur of their valid neighbours.

    An empty plane becomes a copy of the nearest plane that is not. The network and every filter then see no
    artificial edge; what they make of these voxels is thrown away on writing and left out of every figure.
    """
    empty = invalid.empty
    if empty is None:
        return volume
    filled = volume.copy()
    whole: NDArray[np.bool_] = np.asarray(empty.all(axis=(1, 2)))
    for z in np.flatnonzero(empty.any(axis=(1, 2)) & ~whole):
        filled[z] = fill_plane(volume[z], empty[z], float(volume[z][~empty[z]].mean()))
    for z in np.flatnonzero(whole):
        if (source := nearest_lit(whole, int(z))) is not None:
            filled[z] = filled[source]
    return filled


FILL_SIGMA = 4.0
FILL_REACH = 16
"""Pixels that the blur reaches (SciPy cuts a Gaussian at 4 sigma)."""


def fill_plane(plane: NDArray[np.float32], empty: NDArray[np.bool_], level: float) -> NDArray[np.float32]:
    """Return a plane (Y, X) with its empty pixels filled; the level stands where no valid one is near."""
    known = ~empty
    weight = ndimage.gaussian_filter(known.astype(np.float32), FILL_SIGMA)
    value = ndimage.gaussian_filter(np.where(known, plane - level, np.float32(0)), FILL_SIGMA)
    # Far from any valid voxel the weight underflows.
    near = np.where(weight > 1e-6, value / np.maximum(weight, 1e-6), 0) + level
    filled = plane.copy()
    filled[empty] = near[empty]
    return filled


def nearest_lit(blank: NDArray[np.bool_], z: int) -> int | None:
    """Return the plane nearest to one that is not blank (Z,), or ``None`` where all are."""
    lit = np.flatnonzero(~blank)
    return int(lit[np.argmin(np.abs(lit - z))]) if len(lit) else None


def _runs(planes: int, size: int) -> NDArray[np.bool_]:
    """Return which planes (Z,) of so many pixels are surveyed."""
    if planes * size <= SURVEYED or planes <= 2 * RUN:
        return np.ones(planes, bool)
    seen = np.zeros(planes, bool)
    for start in np.linspace(0, planes - RUN, max(2, SURVEYED // (RUN * size))).round().astype(int):
        seen[start : start + RUN] = True
    return seen


def _slabs(seen: NDArray[np.bool_], shape: tuple[int, int, int], itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Yield planes and rows to be read at once, about ``SLAB_BYTES`` of them."""
    _, height, width = shape
    whole = height * width <= WHOLE
    at_once = max(1, SLAB_BYTES // (height * width * itemsize)) if whole else RUN
    band = height if whole else max(1, SLAB_BYTES // (RUN * width * itemsize))
    for z in consecutive(seen, at_once):
        for y in range(0, height, band):
            yield z, slice(y, min(y + band, height))


def _pieces(flat: NDArray[np.bool_], whole: bool) -> NDArray[np.bool_]:
    """Return the thick pieces of a plane (Y, X) of one value; of a whole plane, those that touch its border."""
    half = THICK // 2
    square = np.ones((THICK, THICK), bool)
    thick: NDArray[np.bool_] = ndimage.binary_opening(np.pad(flat, half, mode="edge"), square)[half:-half, half:-half]
    if not whole:
        return thick
    labels, _ = ndimage.label(thick)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, edge[edge > 0])


def _piled_up(volume: Any, seen: NDArray[np.bool_], low: Any, high: Any, at_top: int, levels: Histogram | None) -> bool:
    """Return whether more voxels sit at the highest value than light alone would put there."""
    if at_top < 20:
        return False
    dtype, size = np.dtype(volume.dtype), volume.shape[1] * volume.shape[2]
    if dtype.kind not in "iu":
        return bool(at_top >= max(20, 1e-5 * int(seen.sum()) * size))
    if high in {int(np.iinfo(dtype).max), *(2**bits - 1 for bits in range(10, 16))}:
        return True
    width = max(1, int(0.02 * (float(high) - float(low))))
    if levels is not None:
        below = levels.between(high - width, high)
    else:
        slabs = (np.asarray(volume[z, rows]) for z, rows in _slabs(seen, volume.shape, dtype.itemsize))
        below = sum(int(((slab < high) & (slab >= high - width)).sum()) for slab in slabs)
    return bool(at_top > 20 * max(below / width, 1.0))

"""Tiles of a stitched plane that differ in brightness: where they meet, by how much they differ, and evening them out.

A network trained on such planes learns that edges are sharp and makes the step larger with every pass; so the step is
taken out of what it sees. It is told from structure by its sharpness: whatever went through optics changes over
several pixels, a step between tiles from one pixel to the next, in every plane, by one factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST = 0.06
"""Natural logarithm of the smallest step that is taken out."""
SHARP = 6.0
"""Times the scatter of the steps of all lines that a seam must have."""
SEGMENTS, GROUPS = 8, 4
"""Parts of a line, and of the planes, that must agree."""
AGREE = 0.75
"""Share of them that must."""
BESIDE = (-0.85, -0.15)
"""Times its step that the lines beside a seam have: minus a half; beside a bright line -1, in a blurred border 0."""
LEAST_TILE = 4
"""Pixels along a tile, at least."""
PROBED = 8
"""Planes that tell whether an image has a step that is known from another."""
LONG = 512
"""Pixels in the middle of an edge between two tiles that its step is measured along."""


@dataclass(frozen=True)
class Mosaic:
    """Tiles of a plane, rows by columns, and how bright each is.

    Attributes:
        shape: of the plane (Y, X).
        offset: grey level of no light.
        rows, columns: the first row and the first column of every tile but those at the upper and left border.
        factors: brightness of each tile, for every row of tiles that of its columns; their geometric mean is 1.
    """

    shape: tuple[int, int]
    offset: float
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    factors: tuple[tuple[float, ...], ...]

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Mosaic:
        """Return the mosaic that ``dataclasses.asdict`` made a table of."""
        return cls(
            shape=(table["shape"][0], table["shape"][1]),
            offset=table["offset"],
            rows=tuple(table["rows"]),
            columns=tuple(table["columns"]),
            factors=tuple(tuple(row) for row in table["factors"]),
        )

    def even(self, image: NDArray[np.float32], y: slice, x: slice) -> NDArray[np.float32]:
        """Return planes (..., Y, X), the window ``y``, ``x`` of them, with all tiles equally bright."""
        row = np.searchsorted(self.rows, np.arange(y.start, y.stop), side="right")
        column = np.searchsorted(self.columns, np.arange(x.start, x.stop), side="right")
        factor, offset = np.array(self.factors, np.float32)[np.ix_(row, column)], np.float32(self.offset)
        return (image - offset) / factor + offset

    def window(self, y: slice, x: slice) -> Mosaic:
        """Return the mosaic of a window; one that is larger than the plane continues the outer tiles."""
        kept, lines = [], []
        for at, side in ((self.rows, y), (self.columns, x)):
            lines.append(tuple(line - side.start for line in at if side.start < line < side.stop))
            first = sum(line <= side.start for line in at)
            kept.append(slice(first, first + len(lines[-1]) + 1))
        factors = tuple(row[kept[1]] for row in self.factors[kept[0]])
        return Mosaic((y.stop - y.start, x.stop - x.start), self.offset, lines[0], lines[1], factors)

    def describe(self) -> str:
        """Return, in a sentence, what was found and what is done about it."""
        seams = [f"{axis} {', '.join(map(str, at))}" for axis, at in (("y", self.rows), ("x", self.columns)) if at]
        factors = "; ".join(", ".join(f"{factor:.3g}" for factor in row) for row in self.factors)
        return (
            f"The planes are stitched of tiles that differ in brightness, with seams at {' and '.join(seams)} and "
            f"factors {factors} (rows of tiles by semicolons): the tiles are evened out, in the result too."
        )


def find_mosaic(
    volumes: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]], offset: float
) -> Mosaic | None:
    """Return the tiles of planes that differ in brightness by at least 6 %, or ``None`` where there are none.

    A line is a seam where the brightness on its two sides, each continued to the line from two pixels, differs by a
    factor that is large beside the scatter of all lines, along at least half of the line and in all planes alike, and
    the lines beside it do not share it, as those of a blurred border do. Tiles that were blended where they overlap
    have no such line.

    Args:
        volumes: planes of one image, each (Z, Y, X), grey levels.
        valid: which voxels hold a measurement, of the same shapes.
        offset: grey level of no light.
    """
    rows, columns = (_seams(means) for means in _means(volumes, valid, offset))
    if not rows and not columns:
        return None

    def read(y: slice, x: slice) -> NDArray[np.float32]:
        pairs = zip(volumes, valid, strict=True)
        return np.concatenate([np.where(known[:, y, x], some[:, y, x], np.float32(np.nan)) for some, known in pairs])

    height, width = volumes[0].shape[1:]
    plain = Mosaic((height, width), offset, rows, columns, ((1.0,) * (len(columns) + 1),) * (len(rows) + 1))
    return replace(plain, factors=_factors(*_steps(read, plain)))


def mosaic_of(volume: Any, known: Sequence[Mosaic]) -> Mosaic | None:
    """Return which of the known mosaics a volume (Z, Y, X) has, by its plane size and its steps, or ``None``.

    Another image of the same size has none, nor has one whose tiles were evened out already, nor a window within one
    tile. Only some pixels around the seams are read, in some of the planes.
    """
    some = np.unique(np.linspace(0, len(volume) - 1, PROBED).round().astype(int)).tolist()

    def read(y: slice, x: slice) -> NDArray[np.float32]:
        return np.stack([np.asarray(volume[z, y, x], np.float32) for z in some])

    def explained(mosaic: Mosaic) -> float:
        """Return by how much the squared steps of the volume shrink."""
        factors = np.log(mosaic.factors)
        pairs = zip(_steps(read, mosaic), (np.diff(factors, axis=0), np.diff(factors, axis=1)), strict=True)
        return sum(float(np.nansum(2 * found * step - step**2)) for found, step in pairs)

    scores = {mosaic: explained(mosaic) for mosaic in known if mosaic.shape == tuple(volume.shape[1:])}
    best = max(scores, key=lambda mosaic: scores[mosaic], default=None)
    return best if best is not None and scores[best] > 0 else None


def _means(
    volumes: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]], offset: float
) -> Iterator[Floats]:
    """Yield for rows, then columns, the mean light (groups of planes, lines, segments), NaN where little is valid."""
    shape, number = volumes[0].shape[1:], sum(len(some) for some in volumes)
    groups, k = min(GROUPS, number), 0
    starts = [np.linspace(0, side, max(2, min(SEGMENTS, side // 8)) + 1).astype(int)[:-1] for side in shape]
    total = [np.zeros((2, groups, shape[a], len(starts[1 - a]))) for a in (0, 1)]
    for some, these in zip(volumes, valid, strict=True):
        for plane, known in zip(some, these, strict=True):
            for part, image in enumerate((np.where(known, plane - np.float32(offset), np.float32(0)), known)):
                kind = np.float32 if part == 0 else np.int64
                total[0][part, k * groups // number] += np.add.reduceat(image, starts[1], axis=1, dtype=kind)
                total[1][part, k * groups // number] += np.add.reduceat(image, starts[0], axis=0, dtype=kind).T
            k += 1
    for light, count in total:
        yield np.divide(
            light, count, out=np.full_like(light, np.nan), where=count > 0.5 * count.max(axis=(1, 2), keepdims=True)
        )


def _seams(means: Floats) -> tuple[int, ...]:
    """Return the lines at which the mean light (groups, lines, segments) steps."""
    lines = np.arange(LEAST_TILE, means.shape[1] - LEAST_TILE + 1)
    if len(lines) < 2 * LEAST_TILE:
        return ()
    whole = means.mean(axis=0)
    step, each = _log_steps(whole, lines), _log_steps(means, lines)
    half = step.shape[1] // 2
    found: dict[int, float] = {}
    for part in (slice(None), slice(half), slice(half, None)):
        known = np.isfinite(step[:, part])
        size = np.where(known, step[:, part], 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        size[known.mean(axis=1) < 0.5] = 0
        scatter = 1.4826 * float(np.median(np.abs(size[size != 0]))) if size.any() else 0.0
        # Half a line must show more, as there are fewer segments to agree.
        share = known.shape[1] / step.shape[1]
        least = max(LEAST / share, SHARP / np.sqrt(share) * scatter)
        for n in np.flatnonzero(np.abs(size[1:-1]) > least) + 1:
            shares = each[:, n, part][:, known[n]] / size[n]
            sides = size[[n - 1, n + 1]] / size[n]
            if (
                np.mean(shares > 0) >= AGREE
                and np.median(shares) > 0.5
                and BESIDE[0] < sides.min() <= sides.max() < BESIDE[1]
            ):
                found[int(lines[n])] = max(found.get(int(lines[n]), 0.0), float(abs(size[n]) / least))
    return tuple(a for a in sorted(found) if all(found[a] >= found[b] for b in found if abs(a - b) < LEAST_TILE))


def _log_steps(means: Floats, lines: NDArray[np.int64]) -> Floats:
    """Return the logarithm of the light behind lines over that before (..., lines, segments), NaN where unknown."""
    least = 0.1 * np.nanmean(means)
    before = 1.5 * means[..., lines - 1, :] - 0.5 * means[..., lines - 2, :]
    after = 1.5 * means[..., lines, :] - 0.5 * means[..., lines + 1, :]
    if not least > 0:
        # The offset is too high for the image: nothing is brighter than no light.
        return np.full(before.shape, np.nan)
    return np.asarray(np.log(np.maximum(after, least) / np.maximum(before, least)))


def _steps(read: Callable[[slice, slice], NDArray[np.float32]], mosaic: Mosaic) -> tuple[Floats, Floats]:
    """Return the logarithms of the steps between tiles, down the rows and along the columns; NaN where unknown.

    Args:
        read: returns a window of some planes (planes, Y, X), NaN where a voxel holds no measurement.
        mosaic: where the tiles meet.
    """
    (height, width), edges = mosaic.shape, []
    for along_y, lines, across, side, length in (
        (True, mosaic.rows, mosaic.columns, height, width),
        (False, mosaic.columns, mosaic.rows, width, height),
    ):
        found = np.full((len(lines), len(across) + 1), np.nan)
        for n, line in enumerate(lines):
            for m, (start, stop) in enumerate(pairwise((0, *across, length))):
                middle = max(0, (stop - start - LONG) // 2)
                near, edge = slice(line - 2, line + 2), slice(start + middle, min(stop, start + middle + LONG))
                if 2 <= line <= side - 2:
                    strip = read(near, edge) if along_y else read(edge, near).swapaxes(1, 2)
                    found[n, m] = _log_step(strip.astype(np.float64) - mosaic.offset)
        edges.append(found if along_y else found.T)
    return edges[0], edges[1]


def _log_step(strip: Floats) -> float:
    """Return the logarithm of the step in the middle of a strip (planes, 4, length), NaN where there is no light."""
    known = np.isfinite(strip).all(axis=1)
    before = (1.5 * strip[:, 1] - 0.5 * strip[:, 0])[known].sum()
    after = (1.5 * strip[:, 2] - 0.5 * strip[:, 3])[known].sum()
    return float(np.log(after / before)) if min(before, after) > 0 else float(np.nan)


def _factors(down: Floats, right: Floats) -> tuple[tuple[float, ...], ...]:
    """Return the brightness of tiles whose steps are nearest to those given, by least squares; geometric mean 1."""
    shape = right.shape[0], down.shape[1]
    tile = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = [
        *zip(tile[:-1].flat, tile[1:].flat, down.flat, strict=True),
        *zip(tile[:, :-1].flat, tile[:, 1:].flat, right.flat, strict=True),
    ]
    pairs = [one for one in pairs if np.isfinite(one[2])]
    equations = np.zeros((len(pairs), tile.size))
    for row, (first, second, _) in zip(equations, pairs, strict=True):
        row[first], row[second] = -1, 1
    logarithms = np.linalg.lstsq(equations, np.array([step for *_, step in pairs]), rcond=None)[0]
    return tuple(tuple(round(float(np.exp(f)), 5) for f in row) for row in logarithms.reshape(shape))

"""Boxes of a prediction: what is read, what of it is kept, where that is written.

Tiled equals whole when every read box starts at a multiple of the network's step and reaches one halo beyond
what is kept, or to the rim around the image, where it is mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Slices = tuple[slice, ...]
Lengths = tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """One piece of work: ``out[write] = net(image[read])[crop]``."""

    read: Slices
    crop: Slices
    write: Slices


def up(n: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``n``."""
    return -(-n // step) * step


def padded_shape(shape: Sequence[int], step: Sequence[int]) -> Lengths:
    """Return the shape the image must be padded to at its far ends, so that the network divides it."""
    return tuple(up(n, s) for n, s in zip(shape, step, strict=True))


def rim(halo: int, step: int) -> int:
    """Return how far an image is mirrored beyond both of its borders, so that they are restored from more.

    One step: a network restores the outermost pixels worst, because it has fewer neighbours to do it from.
    A tile must hold what is mirrored: where the halo is not longer than a step, nothing is. Nor is it along an axis
    without pooling, where the network has learned stacks that end.
    """
    return step if halo > step > 1 else 0


def tiles(
    shape: Sequence[int],
    core: Sequence[int],
    halo: Sequence[int],
    step: Sequence[int],
    *,
    block: Sequence[int] | None = None,
    box: Slices | None = None,
) -> Iterator[Tile]:
    """Yield tiles whose write boxes partition the image, or a box of it.

    Args:
        shape: of the image, before padding.
        core: kept box, a multiple of ``step`` along every axis.
        halo: how far the network looks, per axis.
        step: the network's total stride, per axis.
        block: no tile is kept across a multiple of these lengths; the whole image by default.
        box: only tiles that meet it, of which the part inside is written. What is read stays, so that a voxel is
            computed from the same box whatever is asked for.
    """
    grid = []
    for n, c, b in zip(shape, core, block or shape, strict=True):
        ends = [(first, min(first + b, n)) for first in range(0, n, b)]
        grid.append([(start, min(start + c, last)) for first, last in ends for start in range(first, last, c)])
    yield from _tiles(grid, shape, halo, step, box or tuple(slice(0, n) for n in shape))


def split(
    tile: Tile, core: Sequence[int], shape: Sequence[int], halo: Sequence[int], step: Sequence[int]
) -> Iterator[Tile]:
    """Yield smaller tiles that write what one tile writes; the arguments are those of :func:`tiles`."""
    grid = [
        [(start, min(start + c, w.stop)) for start in range(w.start, w.stop, c)]
        for w, c in zip(tile.write, core, strict=True)
    ]
    yield from _tiles(grid, shape, halo, step, tile.write)


def best_core(
    shape: Sequence[int],
    step: Sequence[int],
    halo: Sequence[int],
    voxels: float,
    *,
    block: Sequence[int] | None = None,
    price: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.ones_like,
) -> Lengths | None:
    """Return the kept box with which the whole image is computed cheapest.

    Every axis is cut into pieces of near-equal length; what costs is the voxels that all tiles read, halos again and
    again. Where several cost the same, the one with fewest tiles.

    Args:
        shape: of the image, before padding.
        step: the network's total stride, per axis.
        halo: how far the network looks, per axis.
        voxels: the most that a tile may read.
        block: no tile is kept across a multiple of these lengths; the whole image by default.
        price: of a voxel, relative, by the number of voxels of the tile it is computed in.

    Returns:
        Its lengths, or ``None`` where not even one step with its halo has so few voxels.
    """
    axes = [_ways(*of) for of in zip(shape, step, halo, block or shape, strict=True)]

    def over_axes(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.asarray(prod(np.ix_(*rows), start=np.float64(1)))

    core, reads, all_reads, counts = zip(*axes, strict=True)
    one, cost, count = over_axes(reads), over_axes(all_reads), over_axes(counts)
    cost = np.where(one <= voxels, np.round(cost * price(one)), np.inf)
    if not np.isfinite(cost).any():
        return None
    best = np.lexsort((count.ravel(), cost.ravel()))[0]
    where = np.unravel_index(best, cost.shape)
    return tuple(int(lengths[i]) for lengths, i in zip(core, where, strict=True))


@dataclass(frozen=True)
class Layout:
    """What cutting an image into tiles amounts to.

    Attributes:
        read: the largest lengths that a tile reads.
        tiles: how many there are.
        work: voxels that are read, halos again and again, per voxel of the image.
    """

    read: Lengths
    tiles: int
    work: float


def layout(
    shape: Sequence[int],
    core: Sequence[int],
    halo: Sequence[int],
    step: Sequence[int],
    *,
    block: Sequence[int] | None = None,
) -> Layout:
    """Return what :func:`tiles` of the same arguments amount to, without going through them all."""
    axes = []
    for n, c, h, s, b in zip(shape, core, halo, step, block or shape, strict=True):
        axes.append([tile.read[0].stop - tile.read[0].start for tile in tiles((n,), (c,), (h,), (s,), block=(b,))])
    return Layout(
        read=tuple(max(lengths) for lengths in axes),
        tiles=prod(len(lengths) for lengths in axes),
        work=prod(sum(lengths) / n for lengths, n in zip(axes, shape, strict=True)),
    )


def halved(core: Sequence[int], step: Sequence[int], halo: Sequence[int]) -> Lengths | None:
    """Return the kept box with one axis halved, or ``None`` where it is one step along all.

    Axes without halo come first, where cutting costs nothing, then the longest.
    """
    cuttable = [i for i in range(len(core)) if core[i] > step[i]]
    if not cuttable:
        return None
    axis = max(cuttable, key=lambda i: (halo[i] == 0, core[i] / step[i]))
    return tuple(up(-(-c // 2), s) if i == axis else c for i, (c, s) in enumerate(zip(core, step, strict=True)))


def _tiles(
    grid: Sequence[Sequence[tuple[int, int]]],
    shape: Sequence[int],
    halo: Sequence[int],
    step: Sequence[int],
    box: Slices,
) -> Iterator[Tile]:
    """Yield the tiles of a grid of kept intervals per axis, of each the part inside a box."""
    axes = []
    for kept, n, h, s, inside in zip(grid, shape, halo, step, box, strict=True):
        around, margin = rim(h, s), up(h, s)
        full = up(n, s) + around
        pieces = []
        for start, stop in kept:
            first, last = max(start, inside.start), min(stop, inside.stop)
            if first < last:
                low, high = max(-around, start // s * s - margin), min(full, up(stop, s) + margin)
                pieces.append((slice(low, high), slice(first - low, last - low), slice(first, last)))
        axes.append(pieces)
    for pieces_of_axes in product(*axes):
        read, crop, write = zip(*pieces_of_axes, strict=True)
        yield Tile(tuple(read), tuple(crop), tuple(write))


def _ways(n: int, step: int, halo: int, block: int) -> tuple[NDArray[Any], ...]:
    """Return, for every way to cut one axis, the kept length, what a tile reads, what all read, and their number."""
    whole = min(block, n)
    most = up(whole, step) // step
    # All ways with few pieces; with many, one more makes no difference.
    pieces = np.unique(np.geomspace(1, most, 48).round().astype(np.int64))
    core = np.unique(-(-whole // (pieces * step)) * step)
    count = -(-whole // core) * (n // whole) + -(-(n % whole) // core)
    full, margin = up(n, step) + 2 * rim(halo, step), up(halo, step)
    every = np.minimum(count * full, full + 2 * margin * (count - 1))
    return core, _reads(core, n, step, halo, block), every.astype(np.float64), count.astype(np.float64)


def _reads(core: NDArray[Any], n: int, step: int, halo: int, block: int) -> NDArray[np.float64]:
    """Return the most that a tile reads along one axis, per kept length."""
    full, around, margin = up(n, step), rim(halo, step), up(halo, step)
    # A block that starts between two steps makes its tiles read from the step before.
    between = step if block < n and block % step else 0
    inner = np.where(core >= full, 0, np.where(2 * core >= full, 1, 2)) if block >= n else 2
    beside = inner * margin + (2 - inner) * around
    reads: NDArray[np.float64] = np.minimum(full + 2 * around, core + between + beside).astype(np.float64)
    return reads

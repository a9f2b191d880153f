"""Boxes of a prediction: what is read, what of it is kept, where that is written.

Tiled equals whole when every read box starts at a multiple of the network's step and reaches one halo beyond
what is kept, or to the border of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One piece of work: ``out[write] = net(image[read])[crop]``."""

    read: Slices
    crop: Slices
    write: Slices


def up(n: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``n``."""
    return -(-n // step) * step


def padded_shape(shape: Sequence[int], step: Sequence[int]) -> tuple[int, ...]:
    """Return the shape the image must be padded to at its far ends, so that the network divides it."""
    return tuple(up(n, s) for n, s in zip(shape, step, strict=True))


def core_shape(shape: Sequence[int], step: Sequence[int], halo: Sequence[int], voxels: int) -> tuple[int, ...]:
    """Return the largest kept box whose read box has at most ``voxels`` voxels.

    Axes without halo are halved first, where cutting costs nothing, then the longest; every length is a multiple
    of the step, and never below it: a budget smaller than one step plus its halo is exceeded.
    """
    full = padded_shape(shape, step)
    core = list(full)

    def read(lengths: Sequence[int]) -> int:
        return prod(min(f, c + 2 * up(h, s)) for f, c, h, s in zip(full, lengths, halo, step, strict=True))

    while read(core) > voxels:
        cuttable = [i for i in range(len(core)) if core[i] > step[i]]
        if not cuttable:
            break
        axis = max(cuttable, key=lambda i: (halo[i] == 0, core[i] / step[i]))
        core[axis] = up(-(-core[axis] // 2), step[axis])
    return tuple(core)


def tiles(shape: Sequence[int], core: Sequence[int], halo: Sequence[int], step: Sequence[int]) -> Iterator[Tile]:
    """Yield tiles whose write boxes partition the image.

    Args:
        shape: of the image, before padding.
        core: kept box, a multiple of ``step`` along every axis.
        halo: how far the network looks, per axis.
        step: the network's total stride, per axis.
    """
    axes = []
    for n, c, h, s in zip(shape, core, halo, step, strict=True):
        full, margin = up(n, s), up(h, s)
        pieces = []
        for start in range(0, n, c):
            stop = min(start + c, n)
            low, high = max(0, start - margin), min(full, up(stop, s) + margin)
            pieces.append((slice(low, high), slice(start - low, stop - low), slice(start, stop)))
        axes.append(pieces)
    for pieces_of_axes in product(*axes):
        read, crop, write = zip(*pieces_of_axes, strict=True)
        yield Tile(tuple(read), tuple(crop), tuple(write))

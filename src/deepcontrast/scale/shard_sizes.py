"""How large a shard is: what a worker holds of it must fit its memory, and files must not become too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from deepcontrast.stack import Stack

SHARD = 2**24
"""Voxels of a shard: small enough for several per worker of half a gigabyte, and for a worker to hold a few."""

LARGE_SHARD = 2**26
"""Voxels of a shard of a stack that would have more than ``MANY`` of the others: fewer files."""

MANY = 1024

FINEST = (16, 128, 128)
"""Voxels (z, y, x) of the smallest shard: a chunk."""

HELD = 26
"""Bytes that a worker holds for every voxel of its shard, besides the tiles: what is read with its halo (taken to
be half as much again), the result in float32, in its type, and in the pieces that are compressed."""

HELD_AS_MAP = 8
"""Bytes more while one map after the other is compressed."""

HELD_BESIDE = 8
"""Bytes more for each other channel that is read with it."""

HELD_AS_VIEW = 4
"""Bytes more for each view after the first that is restored before their mean is taken."""

Lengths = tuple[int, int, int]


@dataclass(frozen=True)
class Load:
    """What is held of a shard besides its image and its result.

    Attributes:
        maps: that are made beside the result.
        channels: that are read together, or planes that become one.
        views: that are restored one after the other.
    """

    maps: int = 0
    channels: int = 1
    views: int = 1

    @property
    def held(self) -> int:
        """The bytes that a worker holds for every voxel of its shard, besides the tiles."""
        maps = 4 * self.maps + HELD_AS_MAP * (self.maps > 0)
        return HELD + maps + HELD_BESIDE * (self.channels - 1) + HELD_AS_VIEW * (self.views - 1)


def shard_lengths(stack: Stack, halo: Sequence[int], load: Load, memory: int) -> Lengths:
    """Return the voxels (z, y, x) of a shard of a stack, powers of two.

    Axes without halo are cut first, where cutting costs nothing: planes of a network that looks at one are kept wide.

    Args:
        stack: whose shape matters.
        halo: how far the network looks along Z, Y, X.
        load: what a worker holds of it.
        memory: bytes a worker has for its shard.
    """
    voxels = min(LARGE_SHARD if prod(stack.shape) > MANY * SHARD else SHARD, memory // load.held)
    shape = stack.frame().shape
    lengths = [max(least, 1 << (n - 1).bit_length()) for n, least in zip(shape, FINEST, strict=True)]
    while prod(lengths) > voxels:
        cuttable = [i for i in range(3) if lengths[i] > FINEST[i]]
        if not cuttable:
            break
        lengths[max(cuttable, key=lambda i: (halo[i] == 0, lengths[i]))] //= 2
    z, y, x = lengths
    return z, y, x

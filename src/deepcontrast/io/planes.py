"""The planes of a stack one after the other, so that a stack larger than memory can be written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.stack import Stack

# Reading a chunked source plane by plane would decompress each chunk once per plane.
SLAB_BYTES = 128 * 2**20


def planes(stack: Stack, *, channels_inside: bool = False) -> Iterator[NDArray[Any]]:
    """Yield every plane (Y, X), little-endian and contiguous, in the order T, C, Z.

    With ``channels_inside`` the order is T, Z, C, as ImageJ stores them.
    """
    dtype = stack.dtype.newbyteorder("<")
    channels = range(stack.size("C"))
    groups = [tuple(channels)] if channels_inside else [(c,) for c in channels]
    plane_bytes = stack.size("Y") * stack.size("X") * dtype.itemsize
    for t in range(stack.size("T")):
        for group in groups:
            step = max(1, SLAB_BYTES // (plane_bytes * len(group)))
            for z in range(0, stack.size("Z"), step):
                slabs = [_slab(stack, t, c, slice(z, z + step)) for c in group]
                for at in range(len(slabs[0])):
                    for slab in slabs:
                        yield np.ascontiguousarray(slab[at], dtype=dtype)


def _slab(stack: Stack, t: int, c: int, z: slice) -> NDArray[Any]:
    """Return planes (Z, Y, X) of one time point and channel."""
    place: dict[str, Any] = {"T": t, "C": c, "Z": z}
    slab = np.asarray(stack.array[tuple(place.get(axis, slice(None)) for axis in stack.axes)])
    return slab if "Z" in stack.axes else slab[None]

"""The planes of a stack one after the other, so that a stack larger than memory can be read and written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.stack import Stack

# Reading a chunked source plane by plane would decompress each chunk once per plane.
SLAB_BYTES = 64 * 2**20


def slabs(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of an array of two to five axes, some planes at once, in C order."""
    step = _together(shape[-2] * shape[-1] * itemsize)
    steps = [*(1 for _ in shape[:-3]), *(step for _ in shape[-3:-2]), *shape[-2:]]
    starts = (range(0, n, k) for n, k in zip(shape, steps, strict=True))
    for corner in product(*starts):
        yield tuple(slice(a, min(a + k, n)) for a, k, n in zip(corner, steps, shape, strict=True))


def planes(stack: Stack, *, channels_inside: bool = False) -> Iterator[NDArray[Any]]:
    """Yield every plane (Y, X), little-endian and contiguous, in the order T, C, Z.

    With ``channels_inside`` the order is T, Z, C, as ImageJ stores them.
    """
    dtype = stack.dtype.newbyteorder("<")
    channels = range(stack.size("C"))
    groups = [tuple(channels)] if channels_inside else [(c,) for c in channels]
    # What is written as integers is mostly computed of float32.
    plane_bytes = stack.size("Y") * stack.size("X") * max(dtype.itemsize, 4)
    for t in range(stack.size("T")):
        for group in groups:
            step = _together(plane_bytes * len(group))
            for z in range(0, stack.size("Z"), step):
                slabs = [_slab(stack, t, c, slice(z, z + step)) for c in group]
                for at in range(len(slabs[0])):
                    for slab in slabs:
                        yield np.ascontiguousarray(slab[at], dtype=dtype)


def _together(plane_bytes: int) -> int:
    """Return how many planes make a slab: a power of two, as the planes of a chunk mostly are."""
    return 1 << (max(1, SLAB_BYTES // plane_bytes).bit_length() - 1)


def _slab(stack: Stack, t: int, c: int, z: slice) -> NDArray[Any]:
    """Return planes (Z, Y, X) of one time point and channel."""
    place: dict[str, Any] = {"T": t, "C": c, "Z": z}
    slab = np.asarray(stack.array[tuple(place.get(axis, slice(None)) for axis in stack.axes)])
    return slab if "Z" in stack.axes else slab[None]

"""A stack whose planes are made closer, for a network that restores what lies between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.io.view import Box, Lazy
from deepcontrast.stack import Stack


def upsampled(stack: Stack, factor: float, *, first: bool = False) -> Stack:
    """Return a stack of ``round(Z factor)`` planes, interpolated linearly between those of a stack where it is sliced.

    The planes are centred on the stack: plane ``n`` of N lies at ``(n - (N - 1) / 2) / factor + (Z - 1) / 2`` of the
    stack's. Every one is computed from these places alone, so that a part is the same whatever it is part of. Beyond
    the centres of the first and the last plane the values are theirs.

    Args:
        stack: with an axis Z.
        factor: planes for one of the stack, 1 or more.
        first: the first planes coincide instead: plane ``n`` lies at ``n / factor``, and the last one not beyond the
            stack's. So planes lie that were left out of a stack.

    Returns:
        A stack in float32 of the new spacing, whose ``origin_um`` says where its first voxel lies.

    Raises:
        InputError: a factor below 1, or a single plane.
    """
    if not factor >= 1:
        raise InputError(f"planes can be {factor:g} times as many; accepted: 1 or more")
    planes = stack.size("Z")
    if planes < 2:
        raise InputError(f"'{stack.source}' has one plane; accepted: a stack, Z of 2 or more")
    array = Upsampled(stack.array, stack.axes.index("Z"), factor, first)
    z, y, x = stack.optics.voxel_size
    origin_z, origin_y, origin_x = stack.optics.origin_um
    begin = float(places(planes, factor, slice(0, 1), first=first)[0])
    if z is not None:
        origin_z, z = origin_z + begin * z, z / factor
    return replace(stack, array=array).with_optics(voxel_size=(z, y, x), origin_um=(origin_z, origin_y, origin_x))


def places(planes: int, factor: float, wanted: slice, *, first: bool = False) -> NDArray[np.float64]:
    """Return where some of the new planes lie among so many, in units of their spacing."""
    if first:
        return np.arange(wanted.start, wanted.stop) / factor
    count = count_of(planes, factor)
    return (np.arange(wanted.start, wanted.stop) - (count - 1) / 2) / factor + (planes - 1) / 2


def count_of(planes: int, factor: float, *, first: bool = False) -> int:
    """Return how many planes so many become."""
    return int((planes - 1) * factor + 1e-6) + 1 if first else round(planes * factor)


@dataclass(frozen=True, eq=False)
class Upsampled(Lazy):
    """An array with more planes, see :func:`upsampled`, of which only what is sliced is read.

    Attributes:
        source: what is read.
        axis: Z.
        factor: planes for one of the source.
        first: whether the first planes coincide.
    """

    source: Any
    axis: int
    factor: float
    first: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        lengths = [int(n) for n in self.source.shape]
        lengths[self.axis] = count_of(lengths[self.axis], self.factor, first=self.first)
        return tuple(lengths)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, box: Box) -> NDArray[np.float32]:
        last = int(self.source.shape[self.axis]) - 1
        wanted = box[self.axis]
        at = np.clip(places(last + 1, self.factor, wanted, first=self.first)[:: wanted.step or 1], 0, last)
        low = np.floor(at).astype(int)
        share = (at - low).astype(np.float32)
        high = np.minimum(low + 1, last)
        first = int(low.min())
        whole = list(box)
        whole[self.axis] = slice(first, int(high.max()) + 1)
        part = np.asarray(self.source[tuple(whole)], np.float32)
        share = share.reshape([-1 if axis == self.axis else 1 for axis in range(part.ndim)])
        below, above = (part.take(index - first, self.axis) for index in (low, high))
        above -= below
        above *= share
        below += above
        return below

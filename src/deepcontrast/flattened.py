"""A stack looked at as one plane, for a network that is given whole columns and restores the surface in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.io.view import Box, Lazy
from deepcontrast.stack import Frame, Stack

TOGETHER = 8
"""Planes that are read at a time: of a large stack not all fit the memory."""


def flattened(stack: Stack) -> Stack:
    """Return the maximum of a stack along Z, which its axes no longer have, computed where it is sliced.

    Raises:
        InputError: it has a single plane.
    """
    if stack.size("Z") < 2:
        raise InputError(f"'{stack.source}' has one plane; accepted: a stack, Z of 2 or more")
    _, y, x = stack.optics.voxel_size
    flat = replace(stack, array=Flattened(stack), axes=stack.axes.replace("Z", ""))
    return flat.with_optics(voxel_size=(None, y, x))


@dataclass(frozen=True, eq=False)
class Flattened(Lazy):
    """The maximum along Z of the array of a stack.

    Attributes:
        stack: what is read.
    """

    stack: Stack

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stack.size(axis) for axis in self.stack.axes if axis != "Z")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stack.dtype

    def read(self, box: Box) -> NDArray[Any]:
        axis, planes = self.stack.axes.index("Z"), self.stack.size("Z")
        highest: NDArray[Any] | None = None
        for first in range(0, planes, TOGETHER):
            run = slice(first, min(first + TOGETHER, planes))
            found = np.asarray(self.stack.array[(*box[:axis], run, *box[axis:])]).max(axis)
            highest = found if highest is None else np.maximum(highest, found, out=highest)
        assert highest is not None
        return highest


def unflattened(frame: Frame) -> Frame:
    """Return the volume (Z, Y, X) that a frame of a flattened stack is of; any other frame as it is."""
    array = frame.stack.array
    return Frame(array.stack, frame.t, frame.c) if isinstance(array, Flattened) else frame


def planes_of(stack: Stack) -> int:
    """Return how many planes each plane of a stack is of: those of what was flattened, or one."""
    return stack.array.stack.size("Z") if isinstance(stack.array, Flattened) else 1


def planes_in(volume: Any) -> int:
    """Return how many planes a slice of a volume has for one of its own."""
    return volume.planes if isinstance(volume, Columns) else 1


@dataclass(frozen=True, eq=False)
class Columns:
    """A volume (Z, Y, X) taken for one plane (1, Y, X), of which a slice has all of the volume's planes (Z, 1, Y, X).

    Attributes:
        volume: anything with ``shape`` that is sliced.
    """

    volume: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, int(self.volume.shape[1]), int(self.volume.shape[2])

    @property
    def planes(self) -> int:
        """Planes of the volume."""
        return int(self.volume.shape[0])

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        """Return the columns of a box of the plane."""
        _, y, x = key
        return np.asarray(self.volume[:, y, x], np.float32)[:, None]

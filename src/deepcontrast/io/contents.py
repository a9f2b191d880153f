"""What a reader found in a file, and how it becomes a stack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepcontrast.errors import InputError
from deepcontrast.io.units import UNKNOWN, VoxelSize
from deepcontrast.io.view import arrange
from deepcontrast.stack import AXES, Optics, Stack, parse_axes

UNNAMED = "?"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds, as it is stored.

    Attributes:
        array: indexed as NumPy, its axes in the file's order.
        axes: one letter per axis, out of TCZYX, or ``"?"`` for an axis that the file does not name.
        voxel_size: (z, y, x) in micrometres, ``None`` where it is not known.
        channels: their names; empty where the file has none.
        notes: what had to be assumed, one sentence each.
        attributes: what :func:`deepcontrast.io.write_stack` was given to keep.
    """

    array: Any
    axes: str
    voxel_size: VoxelSize = UNKNOWN
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attributes: Mapping[str, float | str] = field(default_factory=dict)


def to_stack(contents: Contents, source: str, axes: str | None, voxel_size: tuple[float, float, float] | None) -> Stack:
    """Return the stack: axes named and in the order TCZYX, unnamed axes of length 1 dropped.

    Raises:
        InputError: axes that cannot be known, a type that is no intensity, no voxels, no positive voxel size.
    """
    refuse_type(np.dtype(contents.array.dtype), source)
    if 0 in contents.array.shape:
        raise InputError(f"{source} is empty: its shape is {tuple(contents.array.shape)}")
    array, named, note = _name_axes(contents, source, axes)
    names = contents.channels
    if len(names) != (array.shape[named.index("C")] if "C" in named else 1):
        names = ()
    size = contents.voxel_size if voxel_size is None else _checked(voxel_size)
    notes = (*contents.notes, *note)
    return Stack(array, named, Optics(voxel_size=size), names, source, notes)


def refuse_type(dtype: np.dtype[Any], source: str) -> None:
    """Raise InputError unless a type holds intensities: integers or floats of up to 64 bits."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{source} holds values of type {dtype}; accepted: integers and floats up to 64 bits")


def _name_axes(contents: Contents, source: str, given: str | None) -> tuple[Any, str, tuple[str, ...]]:
    """Return the array, its axes and notes; ``given`` names the axes in the order that a stack has."""
    array, found = contents.array, contents.axes
    if given is not None and UNNAMED in found and len(given) == len(found):
        return arrange(array, tuple(range(array.ndim))), parse_axes(given, array.ndim), ()
    order = _without_single_unnamed(found, array.shape)
    letters = "".join(found[axis] for axis in order)
    if UNNAMED not in letters:
        order = tuple(sorted(order, key=lambda axis: AXES.index(found[axis])))
        letters = "".join(found[axis] for axis in order)
    array = arrange(array, order)
    if given is not None:
        return array, parse_axes(given, array.ndim), ()
    if UNNAMED not in letters:
        return array, parse_axes(letters, array.ndim), ()
    shape = " x ".join(str(n) for n in array.shape)
    if array.ndim == 2:
        return array, "YX", ()
    if array.ndim == 3 and set(letters) <= set(f"{UNNAMED}YX"):
        return array, "ZYX", (f"the file does not name its axes ({shape}); they were taken as ZYX",)
    example = AXES[-array.ndim :] if array.ndim <= len(AXES) else AXES
    raise InputError(f"{source} does not name its axes ({shape}); say which they are, e.g. --axes {example}")


def _without_single_unnamed(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    order = list(range(len(axes)))
    for axis in range(len(axes)):
        # A lone plane of three unnamed axes stays one plane of Z.
        whole = set(axes) == {UNNAMED} and len(order) <= 3
        if axes[axis] == UNNAMED and shape[axis] == 1 and not whole:
            order.remove(axis)
    return tuple(order)


def _checked(voxel_size: tuple[float, float, float]) -> VoxelSize:
    sizes = tuple(float(size) for size in voxel_size)
    if len(sizes) != 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        given = ", ".join(f"{size:g}" for size in sizes)
        raise InputError(f"voxel size ({given}); accepted: three positive numbers z, y, x in micrometres")
    z, y, x = sizes
    return z, y, x

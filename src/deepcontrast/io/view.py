"""Arrays that are read only where they are asked for, and what can be made of them without reading."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]


class Lazy(ABC):
    """An array that is indexed as NumPy indexes and then reads that part only, from any thread."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the machine's byte order."""

    @abstractmethod
    def read(self, box: Box) -> NDArray[Any]:
        """Return the part in ``box``: a slice for each axis, with start, stop and a positive step, not empty."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys = (*keys[:at], *[slice(None)] * (self.ndim - len(keys) + 1), *keys[at + 1 :])
        if len(keys) > self.ndim or not all(_is_plain(k) for k in keys):
            return self.__array__()[key]
        keys = (*keys, *[slice(None)] * (self.ndim - len(keys)))
        wanted = [range(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        places = [r if isinstance(r, range) else range(r, r + 1) for r in wanted]
        if all(places):
            part = self.read(tuple(slice(min(r), max(r) + 1, abs(r.step)) for r in places))
        else:
            part = np.empty([len(r) for r in places], self.dtype)
        turned = (slice(None, None, -1) if isinstance(r, range) and r.step < 0 else slice(None) for r in wanted)
        return part[tuple(t if isinstance(r, range) else 0 for r, t in zip(wanted, turned, strict=True))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array: NDArray[Any] = self[(slice(None),) * self.ndim]
        return array.astype(dtype or array.dtype, copy=bool(copy))


@dataclass(frozen=True, eq=False)
class View(Lazy):
    """A window on ``source``, which need not know more than slices: a zarr array, another lazy one.

    Attributes:
        source: what is read.
        order: axis i is axis ``order[i]`` of the source.
        at: where the window lies on the axes of the source that are left out; 0 where it does not say.
    """

    source: Any
    order: tuple[int, ...]
    at: Mapping[int, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(self.source.shape[axis]) for axis in self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.source.dtype).newbyteorder("=")
        return dtype

    def read(self, box: Box) -> NDArray[Any]:
        at = (self.at.get(axis, 0) for axis in range(len(self.source.shape)))
        place = [slice(a, a + 1) for a in at]
        for axis, part in zip(self.order, box, strict=True):
            place[axis] = part
        block = np.asarray(self.source[tuple(place)])
        left_out = tuple(axis for axis in range(block.ndim) if axis not in self.order)
        block = block.transpose(*self.order, *left_out)
        block = block.reshape(block.shape[: self.ndim])
        return block.astype(self.dtype, copy=False)


@dataclass(frozen=True, eq=False)
class Computed(Lazy):
    """Values that are computed of the source's, voxel by voxel, when they are read.

    Attributes:
        source: anything that can be sliced.
        function: from a part of the source to values of the type.
        type: of the values.
    """

    source: Any
    function: Callable[[NDArray[Any]], NDArray[Any]]
    type: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type

    def read(self, box: Box) -> NDArray[Any]:
        return self.function(np.asarray(self.source[box]))


def arrange(array: Any, order: tuple[int, ...], at: Mapping[int, int] | None = None) -> Any:
    """Return ``array`` with its axes in this order, unread.

    The array itself where nothing changes; a :class:`View` where NumPy cannot do it without reading.

    Args:
        array: anything that can be sliced.
        order: of its axes; those not named are left out.
        at: where on them; 0 where it does not say.
    """
    at = at or {}
    if isinstance(array, np.ndarray):
        keep = tuple(slice(None) if axis in order else at.get(axis, 0) for axis in range(array.ndim))
        array = array[keep].transpose([sorted(order).index(axis) for axis in order])
        order = tuple(range(array.ndim))
    if order == tuple(range(len(array.shape))) and np.dtype(array.dtype).isnative:
        return array
    return View(array, order, at)


def _is_plain(key: Any) -> bool:
    # True and False are ints to Python and masks to NumPy.
    return isinstance(key, slice | int | np.integer) and not isinstance(key, bool)

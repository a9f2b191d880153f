"""An array with its axes reordered and its bytes in the machine's order, read only where it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class View:
    """A window on ``source``: its axis i is axis ``order[i]`` of the source, whose other axes have length 1.

    Indexing reads that part only and gives a NumPy array. It is what becomes of a zarr array, which cannot be
    transposed, and of a big-endian memory map, which torch cannot take.
    """

    source: Any
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(self.source.shape[axis]) for axis in self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.source.dtype).newbyteorder("=")
        return dtype

    @property
    def ndim(self) -> int:
        return len(self.order)

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
        place: list[Any] = [0] * self.source.ndim
        for axis, k in zip(self.order, keys, strict=True):
            place[axis] = k
        block = np.asarray(self.source[tuple(place)])
        # A number takes its axis away; the ones left come in the source's order.
        left = [axis for axis, k in zip(self.order, keys, strict=True) if isinstance(k, slice)]
        block = block.transpose([sorted(left).index(axis) for axis in left])
        return block.astype(self.dtype, copy=False)[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array: NDArray[Any] = self[(slice(None),) * self.ndim]
        return array.astype(dtype or array.dtype, copy=bool(copy))


def arrange(array: Any, order: tuple[int, ...]) -> Any:
    """Return ``array`` with its axes in this order, without the ones not named (of length 1), unread.

    The array itself where nothing changes; a :class:`View` where NumPy cannot do it without reading.
    """
    if isinstance(array, np.ndarray):
        keep = tuple(slice(None) if axis in order else 0 for axis in range(array.ndim))
        array = array[keep].transpose([sorted(order).index(axis) for axis in order])
        order = tuple(range(array.ndim))
    if order == tuple(range(array.ndim)) and np.dtype(array.dtype).isnative:
        return array
    return View(array, order)


def _is_plain(key: Any) -> bool:
    # True and False are ints to Python and masks to NumPy; zarr has no backward slices.
    if isinstance(key, slice):
        return key.step is None or int(key.step) > 0
    return isinstance(key, int | np.integer) and not isinstance(key, bool)

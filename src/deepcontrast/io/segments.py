"""The pages of a TIFF that are compressed or scattered: strips and tiles, decoded when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import count, product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.io.raw import Unchanged
from deepcontrast.io.view import Box, Lazy

# The tiles of a prediction overlap, and so do the strips that they need.
KEPT_BYTES = 64 * 2**20


class Segments(Lazy):
    """The pages of a series of tifffile's as one array, whose leading axes count the pages.

    Only axes of length 1 may stand elsewhere than the page has them.
    """

    def __init__(self, pages: Sequence[Any], shape: tuple[int, ...]) -> None:
        first = pages[0].keyframe
        self._pages, self._lengths, self._type = tuple(pages), shape, _native(first.dtype)
        self._files = {path: Unchanged.now(Path(path)) for path in {_path(page) for page in pages}}
        self._grid = tuple(first.chunked)
        self._step = (1,) * (len(self._grid) - len(first.chunks)) + tuple(first.chunks)
        self._long = tuple(axis for axis, n in enumerate(first.shape) if n > 1)
        self._name = next(_names)
        # Made once here, because threads would make it twice.
        self._decode = first.decode

    @property
    def shape(self) -> tuple[int, ...]:
        return self._lengths

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._type

    def read(self, box: Box) -> NDArray[Any]:
        long = [(part, n) for part, n in zip(box, self._lengths, strict=True) if n > 1]
        leading, inside = long[: len(long) - len(self._long)], [slice(0, 1)] * len(self._grid)
        for axis, (part, _) in zip(self._long, long[len(leading) :], strict=True):
            inside[axis] = part
        pages = list(product(*(_range(part) for part, _ in leading)))
        numbers = np.ravel_multi_index(np.transpose(pages), [n for _, n in leading]) if leading else [0]
        out = np.empty((len(pages), *(len(_range(part)) for part in inside)), self._type)
        for place, number in enumerate(numbers):
            out[place] = self._page(int(number), inside)
        return out.reshape([len(_range(part)) for part in box])

    def _page(self, number: int, box: Sequence[slice]) -> NDArray[Any]:
        """Return a part of one page."""
        part = np.empty([k.stop - k.start for k in box], self._type)
        for place in product(*(range(k.start // n, -(-k.stop // n)) for k, n in zip(box, self._step, strict=True))):
            index = int(np.ravel_multi_index(place, self._grid))
            segment = _kept.get((self._name, number, index), partial(self._segment, number, index))
            corner = [p * n for p, n in zip(place, self._step, strict=True)]
            overlap = [
                (max(k.start, c), min(k.stop, c + n)) for k, c, n in zip(box, corner, segment.shape, strict=True)
            ]
            source = tuple(slice(a - c, b - c) for (a, b), c in zip(overlap, corner, strict=True))
            target = tuple(slice(a - k.start, b - k.start) for (a, b), k in zip(overlap, box, strict=True))
            part[target] = segment[source]
        return part[tuple(slice(None, None, k.step) for k in box)]

    def _segment(self, number: int, index: int) -> NDArray[Any]:
        """Return a decoded strip or tile of one page, over the axes of the page."""
        page = self._pages[number]
        size = page.databytecounts[index]
        with self._files[_path(page)].open() as file:
            file.seek(page.dataoffsets[index])
            data = file.read(size)
        tables = {} if page.keyframe.jpegtables is None else {"jpegtables": page.keyframe.jpegtables}
        try:
            decoded, _, _ = self._decode(data if size else None, index, **tables)
        except Exception as error:
            # Each codec fails in its own way on the same damaged bytes.
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"not an image: {_path(page)} is damaged ({why})") from error
        if decoded is None:
            return np.full(self._step, page.keyframe.nodata, self._type)
        # Samples, depth, rows, columns, samples: the page has rows, columns, and what there is more than one of.
        all_five = decoded[None]
        kept = (axis in (2, 3) or n > 1 for axis, n in enumerate(page.keyframe.shaped))
        segment: NDArray[Any] = all_five[tuple(slice(None) if k else 0 for k in kept)]
        return segment


class Kept:
    """What was made last, of all files together, up to a size in bytes."""

    def __init__(self, size: int) -> None:
        self._room, self._lock = size, Lock()
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array of a key, made where it is not kept."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        array = make()
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = array
                self._room -= array.nbytes
            while self._room < 0:
                self._room += self._arrays.popitem(last=False)[1].nbytes
        return array


_kept = Kept(KEPT_BYTES)
_names = count()


def _path(page: Any) -> str:
    # The planes of an OME-TIFF may lie in several files.
    return str(page.parent.filehandle.path)


def _native(dtype: Any) -> np.dtype[Any]:
    native: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    return native


def _range(part: slice) -> range:
    return range(part.start, part.stop, part.step or 1)

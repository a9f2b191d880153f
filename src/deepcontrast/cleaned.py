"""A volume with even tiles, without camera patterns and empty voxels, of which only what is sliced is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.mosaic import Mosaic
from deepcontrast.valid import FILL_REACH, Box, Survey, bordered, fill_plane, nearest_lit, within


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What is trained on and restored of a volume (Z, Y, X), in grey levels, float32.

    A slice of it is the slice of the cleaned whole. Where a plane has an empty border, the whole plane is read to
    fill it; of a plane larger than ``valid.WHOLE``, the surroundings of the slice, and the mean level of the plane
    stands where no valid voxel is near.

    Attributes:
        volume: anything with ``shape`` and slicing, as it was read.
        survey: of the volume.
        pattern: of the camera (Y, X), to subtract, or ``None``.
        mosaic: whose tiles are evened out before that, or ``None``.
        lines: offsets of every row (Z, Y) and every column (Z, X), to subtract; of a volume without empty borders.
    """

    volume: Any
    survey: Survey
    pattern: NDArray[np.float32] | None = None
    mosaic: Mosaic | None = None
    lines: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.survey.shape

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return 3

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Return a part, chosen by up to three numbers and forward slices, as NumPy would."""
        keys = key if isinstance(key, tuple) else (key,)
        keys = (*keys, *[slice(None)] * (3 - len(keys)))
        box: list[slice] = []
        inside: list[int | slice] = []
        for one, n in zip(keys, self.shape, strict=True):
            if isinstance(one, slice):
                start, stop, step = one.indices(n)
                box.append(slice(start, max(start, stop)))
                inside.append(slice(None, None, step))
            else:
                place = range(n)[one]
                box.append(slice(place, place + 1))
                inside.append(0)
        part: NDArray[np.float32] = self._box((box[0], box[1], box[2]))[tuple(inside)]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)

    def _box(self, box: Box) -> NDArray[np.float32]:
        z, y, x = box
        planes = np.asarray(self.volume[box])
        if self.lines is not None:
            rows, columns = self.lines
            planes = planes.astype(np.float32) - rows[z, y, None] - columns[z, None, x]
        out = self._corrected(planes, y, x)
        known = self.survey
        if not known.holes[z].any() or not out.size:
            return out
        for some, region, planes, empty in bordered(self.volume, known, box, FILL_REACH):
            crop = within((y, x), region)
            images = self._corrected(planes, *region)
            for n, image, hole in zip(range(some.start, some.stop), images, empty, strict=True):
                if hole[crop].any():
                    out[n - z.start] = fill_plane(image, hole, self._level(n, image, hole))[crop]
        for n in z.start + np.flatnonzero(known.blank[z]):
            if (lit := nearest_lit(known.blank, int(n))) is not None:
                out[n - z.start] = self._box((slice(lit, lit + 1), y, x))[0]
        return out

    def _corrected(self, planes: NDArray[Any], y: slice, x: slice) -> NDArray[np.float32]:
        image = planes.astype(np.float32)
        if self.mosaic is not None:
            image = self.mosaic.even(image, y, x)
        return image if self.pattern is None else image - self.pattern[y, x]

    def _level(self, z: int, image: NDArray[np.float32], hole: NDArray[np.bool_]) -> float:
        """Return what stands where no valid voxel is near: the mean of the plane, where all of it is at hand."""
        if image.shape == self.shape[1:]:
            return float(image[~hole].mean())
        return float(self.survey.level[z]) - (0.0 if self.pattern is None else float(self.pattern.mean()))

"""A volume with its axes in another order: which of them are the planes that a network is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

View = tuple[int, int, int]
"""Axis ``n`` of the view is axis ``view[n]`` of the volume (Z, Y, X)."""

AS_IT_IS: View = (0, 1, 2)

One = TypeVar("One")


def seen(along: Sequence[One], view: View) -> tuple[One, One, One]:
    """Return what belongs to the axes Z, Y, X of a volume, by the axes of a view."""
    first, second, third = view
    return along[first], along[second], along[third]


def seen_back(along: Sequence[One], view: View) -> tuple[One, One, One]:
    """Return what belongs to the axes of a view, by the axes Z, Y, X of the volume."""
    return along[view.index(0)], along[view.index(1)], along[view.index(2)]


@dataclass(frozen=True, eq=False)
class Viewed:
    """A volume (Z, Y, X), or (C, Z, Y, X) of several channels, in another order of Z, Y and X, read where it is sliced.

    Attributes:
        volume: anything with ``shape`` (Z, Y, X) that is sliced along Z, Y, X.
        view: the order.
    """

    volume: Any
    view: View

    @property
    def shape(self) -> tuple[int, int, int]:
        return seen([int(n) for n in self.volume.shape], self.view)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """Return a box of the view."""
        part = np.asarray(self.volume[seen_back(key, self.view)])
        leading = part.ndim - 3
        return part.transpose(*range(leading), *(leading + axis for axis in self.view))

"""The channels of an image put together, for a network that is given all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Joined:
    """Volumes (Z, Y, X) of one shape, of which a slice is the slice of each (C, Z, Y, X), in float32.

    Attributes:
        volumes: of the channel that is restored, then of the others in their order.
    """

    volumes: Sequence[Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.volumes[0].shape
        return int(z), int(y), int(x)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Return a box."""
        first = np.asarray(self.volumes[0][key], np.float32)
        found = np.empty((len(self.volumes), *first.shape), np.float32)
        found[0] = first
        for part, volume in zip(found[1:], self.volumes[1:], strict=True):
            part[...] = volume[key]
        return found


def own_first(c: int, channels: int) -> list[int]:
    """Return the numbers of so many channels, that of the one that is restored first."""
    return [c, *(n for n in range(channels) if n != c)]


def given(c: int, channels: int, volume_of: Callable[[int], Any]) -> Any:
    """Return what a network of so many channels is given to restore one of them: its volume, or all :class:`Joined`."""
    if channels == 1:
        return volume_of(c)
    return Joined([volume_of(n) for n in own_first(c, channels)])

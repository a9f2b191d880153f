"""Whether a result shows where its tiles meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deepcontrast.tiles import Slices
from deepcontrast.views import View, seen_back

SAMPLES = 1024
"""Voxels of each side of a tile that are looked at, evenly spaced."""

Volume = NDArray[np.float32]
Border = tuple[int, int, tuple[tuple[int, int], ...]]
"""The axis it crosses, where, and the extent along the other axes."""


@dataclass(frozen=True)
class Face:
    """One side of a tile, sampled.

    Attributes:
        near: the layer at the border.
        far: the layer before it.
        kink: sum of the absolute kinks in the middle of the tile, along the same axis.
    """

    near: Volume
    far: Volume
    kink: float


@dataclass(frozen=True)
class Seam:
    """How sharply grey values bend where tiles meet, beside the middle of the tiles.

    A kink is the second difference of three voxels in a row: not zero for a step, and not for a dark line either, which
    is what a network without its halo leaves on both sides of a border. Sums over voxels, per axis (Z, Y, X): those of
    two boxes of one volume add up.

    Attributes:
        across: of the absolute kinks of the result at borders of tiles, the mean of both sides.
        inside: of those in the middle of the tiles.
        raw_across: as ``across``, of the image that was restored.
        raw_inside: as ``inside``, of the image that was restored.
    """

    across: tuple[float, float, float] = (0.0, 0.0, 0.0)
    inside: tuple[float, float, float] = (0.0, 0.0, 0.0)
    raw_across: tuple[float, float, float] = (0.0, 0.0, 0.0)
    raw_inside: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __add__(self, other: Seam) -> Seam:
        return Seam(*(_three(np.add(getattr(self, f.name), getattr(other, f.name)).tolist()) for f in fields(self)))

    def of_volume(self, view: View) -> Seam:
        """Return what was found of a view of a volume, by the axes of the volume."""
        return Seam(*(seen_back(getattr(self, f.name), view) for f in fields(self)))

    def ratio(self) -> tuple[float | None, float | None, float | None]:
        """Return, per axis, the result's kinks at borders over those inside, divided by the raw's.

        About 1 where nothing shows, ``None`` where there is no border.
        """

        def one(axis: int) -> float | None:
            below = self.inside[axis] * self.raw_across[axis]
            return self.across[axis] * self.raw_inside[axis] / below if below else None

        return one(0), one(1), one(2)


def faces(where: Slices, part: Volume) -> dict[Border, Face]:
    """Return the sides of the part of a volume (Z, Y, X) that lies in a box, by their border.

    Across a part of fewer than three layers there are none.
    """
    found = {}
    for axis, side in enumerate(where):
        n = part.shape[axis]
        if n >= 3:
            others = tuple((s.start, s.stop) for i, s in enumerate(where) if i != axis)
            kink = _kink(*(_layer(part, axis, n // 2 + i) for i in (-1, 0, 1)))
            found[axis, side.start, others] = Face(_layer(part, axis, 0), _layer(part, axis, 1), kink)
            found[axis, side.stop, others] = Face(_layer(part, axis, n - 1), _layer(part, axis, n - 2), kink)
    return found


class SeamMeter:
    """Adds up kinks while tiles come in; keeps a few voxels of every border until its other side is there."""

    def __init__(self) -> None:
        self._sums = np.zeros((4, 3))
        self._waiting: dict[Border, tuple[Face, Face]] = {}

    def add(self, result: dict[Border, Face], raw: dict[Border, Face]) -> None:
        """Take in the faces of a tile: of what is written of it, and of the image there."""
        for border, face in result.items():
            other = self._waiting.pop(border, None)
            if other is None:
                self._waiting[border] = face, raw[border]
                continue
            for row, one, its in ((0, face, other[0]), (2, raw[border], other[1])):
                at_border = _kink(one.far, one.near, its.near) + _kink(one.near, its.near, its.far)
                self._sums[row : row + 2, border[0]] += at_border / 2, (one.kink + its.kink) / 2

    def seam(self) -> Seam:
        """Return what was found so far."""
        across, inside, raw_across, raw_inside = (_three(row) for row in self._sums.tolist())
        return Seam(across, inside, raw_across, raw_inside)


def _layer(part: Volume, axis: int, index: int) -> Volume:
    """Return about :data:`SAMPLES` voxels of one layer across an axis."""
    layer: Volume = np.take(part, index, axis)
    stride = max(1, int(np.sqrt(layer.size / SAMPLES)))
    return layer[::stride, ::stride].copy()


def _kink(a: Volume, b: Volume, c: Volume) -> float:
    return float(np.abs(a - 2 * b + c).sum(dtype=np.float64))


def _three(row: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = row
    return z, y, x

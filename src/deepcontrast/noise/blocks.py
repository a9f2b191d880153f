"""The high-pass residual, averaged over square blocks of single planes: mean, variance, structure, correlations."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, correlate1d

from deepcontrast.noise.grey_levels import Grey
from deepcontrast.noise.planes import Bools, Floats, Masks, Volumes, slabs

MIN_BLOCKS = 24
CHI2_MEDIAN = 0.455  # of one degree of freedom: variance from the median of squares
ORDERS = ((2, 2), (2, 4), (2, 6))  # differences along z and along y and x, from efficient to structure-proof
AXES = ("zyx", "yx", "zx", "zy", "x", "y", "z")  # what may be differenced, where noise is not white along all


def _difference(order: int) -> Floats:
    """Return the binomial difference of an even order, of unit noise gain; order 0 is the identity."""
    weights = np.array([(-1) ** k * comb(order, k) for k in range(order + 1)], np.float64)
    return np.asarray(weights / np.sqrt(comb(2 * order, order)))


MILD, HIGH = _difference(4), _difference(8)
SMOOTH = np.abs(MILD)
STEP = np.array([-1.0, 0, 0, 0, 1.0])
RIM = len(HIGH) // 2  # px that the longest filter reaches


@dataclass(frozen=True)
class Blocks:
    """Averages over the n blocks (of one plane each) that the fit rests on."""

    depth: Floats  # (n,) of the plane, 0 to 1
    mean: Floats  # (3, n) local mean that belongs to the residual, for each of ORDERS
    power: Floats  # (3, n) mean square of the residual
    light: Floats  # (3, n) mean of the neighbouring blocks: as bright, but of independent noise
    texture: Floats  # (n,) power where only one axis is high-passed: structure shows here first
    relief: Floats  # (n,) power of the middle frequencies
    lags: Floats  # (3, n) correlation with the next voxel along z, y, x
    shared: Floats  # (3, n) correlation with a distant plane: corner, rows and columns
    partial: Floats  # (7, n) power where only some axes are differenced, in the order of AXES
    count: Floats  # (n,) usable voxels
    level: Floats  # (n,) their mean
    third: Floats  # (n,) their third central moment


def gather(volumes: Volumes, masks: Masks, grey: Grey, pattern: NDArray[np.float32] | None) -> Blocks | None:
    """Return the block averages of planes spread evenly over the volumes, or None where there are too few."""
    side = min(min(volume.shape[1:]) for volume in volumes)
    size = 16 if side >= 64 else 8 if side >= 24 else 4
    parts = []
    for depth, part, good, away in slabs(volumes, masks, pattern):
        if grey.clipped or grey.saturated:
            good &= _unclipped(part, grey)
        grid = _Grid(_surrounded(np.asarray(good.all(axis=0))), size)
        if (kept := grid.count >= 0.5 * size * size).any():
            parts.append(_blocks(depth, part, away, grid, kept))
    if sum(len(part.depth) for part in parts) < MIN_BLOCKS:
        return None
    return Blocks(**{f.name: np.concatenate([getattr(p, f.name) for p in parts], axis=-1) for f in fields(Blocks)})


class _Grid:
    """The blocks of one plane (Y, X), a rim left out; sums go over its usable voxels only."""

    def __init__(self, usable: Bools, size: int) -> None:
        self.usable, self.size = usable, size
        self.rows, self.columns = (max(0, (length - 2 * RIM) // size) for length in usable.shape)
        self.inside = (slice(RIM, RIM + self.rows * size), slice(RIM, RIM + self.columns * size))
        self.count = self._sum(usable)

    def _sum(self, values: NDArray[Any]) -> Floats:
        tiles = values[self.inside].reshape(self.rows, self.size, self.columns, self.size)
        return np.asarray(tiles.sum(axis=(1, 3), dtype=np.float64))

    def average(self, values: Floats) -> Floats:
        return self._sum(np.where(self.usable, values, 0.0)) / np.maximum(self.count, 1)

    def alike(self, a: Floats, b: Floats) -> Floats:
        """Return the correlation of two residuals; voxels where ``b`` is NaN do not count."""
        both = np.where(self.usable & np.isfinite(b), b, 0.0)
        seen = np.where(both != 0, a, 0.0)
        return self._sum(seen * both) / np.sqrt(np.maximum(self._sum(seen**2) * self._sum(both**2), 1e-30))

    def third_moment(self, values: Floats, level: Floats) -> Floats:
        """Return the mean cube of the values' distance from the level of their block."""
        spread = np.zeros_like(values)
        spread[self.inside] = np.repeat(np.repeat(level, self.size, 0), self.size, 1)
        return self.average((values - spread) ** 3)


def _blocks(depth: float, part: Floats, away: Floats, grid: _Grid, kept: Bools) -> Blocks:
    """Return the kept blocks of one plane, given the planes around it (odd Z, Y, X) and a distant one (Y, X)."""
    reach = len(part) // 2
    centre = part[reach]
    means, powers, lights = [], [], []
    for z_order, order in ORDERS:
        ahead, across = _difference(min(z_order, 2 * reach)), _difference(order)
        means.append(grid.average(_across(_along_z(part, ahead**2), across**2)))
        powers.append(grid.average(_across(_along_z(part, ahead), across) ** 2))
        total, weight = _around(means[-1] * kept), _around(kept.astype(np.float64))
        lights.append(np.where(weight > 0, total / np.maximum(weight, 1), means[-1]))

    z = _along_z(part, _difference(min(4, 2 * reach)))
    mild_y, mild_x = _along(_along(z, MILD, 0), SMOOTH, 1), _along(_along(z, MILD, 1), SMOOTH, 0)
    texture = (grid.average(mild_y**2) + grid.average(mild_x**2)) / 2
    soft = _across(centre, SMOOTH)
    relief = grid.average(_along(soft, STEP, 0) ** 2) + grid.average(_along(soft, STEP, 1) ** 2)

    zy, zx = _along(z, HIGH, 0), _along(z, HIGH, 1)
    y, x, yx = _along(centre, HIGH, 0), _along(centre, HIGH, 1), _across(centre, HIGH)
    partial = [powers[1], *(grid.average(residual**2) for residual in (yx, zx, zy, x, y, z))]
    nothing = np.zeros_like(grid.count)
    lag_z = grid.alike(yx, _across(part[reach + 1], HIGH)) if reach else nothing
    lags = [lag_z, grid.alike(zx, np.roll(zx, -1, axis=0)), grid.alike(zy, np.roll(zy, -1, axis=1))]
    shared = [nothing] * 3
    seen = np.isfinite(away)
    if seen.any():
        fill = np.where(seen, away, away[seen].mean())
        lost = np.where(_surrounded(seen), 0.0, np.nan)
        far = _across(fill, HIGH), _along(fill, HIGH, 0), _along(fill, HIGH, 1)
        shared = [grid.alike(near, other + lost) for near, other in zip((yx, y, x), far, strict=True)]

    level = grid.average(centre)
    return Blocks(
        depth=np.full_like(level, depth)[kept],
        mean=np.stack(means)[:, kept],
        power=np.stack(powers)[:, kept],
        light=np.stack(lights)[:, kept],
        texture=texture[kept],
        relief=relief[kept],
        lags=np.stack(lags)[:, kept],
        shared=np.stack(shared)[:, kept],
        partial=np.stack(partial)[:, kept],
        count=grid.count[kept],
        level=level[kept],
        third=grid.third_moment(centre, level)[kept],
    )


def _along(plane: Floats, weights: Floats, axis: int) -> Floats:
    return np.asarray(correlate1d(plane, weights, axis=axis, mode="reflect"))


def _across(plane: Floats, weights: Floats) -> Floats:
    return _along(_along(plane, weights, 0), weights, 1)


def _along_z(part: Floats, weights: Floats) -> Floats:
    """Return the weighted sum (Y, X) of the planes in the middle."""
    reach, half = len(part) // 2, len(weights) // 2
    return np.asarray(np.tensordot(weights, part[reach - half : reach + half + 1], 1))


def _around(grid: Floats) -> Floats:
    """Return the sum over the eight neighbours of every block of a grid (rows, columns)."""
    wide = np.pad(grid, 1)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] - grid)


def _surrounded(good: Bools) -> Bools:
    """Mark voxels (Y, X) whose whole filter support is good."""
    square = np.ones((2 * RIM + 1, 2 * RIM + 1), bool)
    return good if good.all() else np.asarray(binary_erosion(good, square, border_value=1))


def _unclipped(part: Floats, grey: Grey) -> Bools:
    """Mark where the local mean (Y, X) of some planes is 2.5 standard deviations of the noise off the clipped ends.

    Leaving out the clipped voxels themselves would leave the dark or bright half of the noise around them.
    """
    local = _across(part.mean(axis=0), SMOOTH / SMOOTH.sum())
    residual = _across(part[len(part) // 2], MILD)

    def margin(where: Bools) -> float:
        return 2.5 * float(np.sqrt(np.median(residual[where] ** 2) / CHI2_MEDIAN))

    ok = np.ones(local.shape, bool)
    if grey.saturated:
        ok &= local + margin(local >= np.percentile(local, 75)) < grey.high
    if grey.clipped:
        ok &= local - margin(local <= np.percentile(local, 25)) > grey.low
    return ok

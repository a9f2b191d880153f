"""Random walks of limited curvature, and thin lines drawn along them; shared by the phantoms of long things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from deepcontrast.synth._deep import Volume

Points = NDArray[np.float64]

FLATNESS = 0.15
"""How steep walks in space are and how much they bend along z, of what they do along the planes."""
SUBPIXELS = 4
"""Parts of a pixel's side over which a line is blended."""


@dataclass(frozen=True, eq=False)
class Walks:
    """Random walks of equal length, axes (walk, step, zyx).

    Attributes:
        directions: of length 1, how every step goes on.
        normals: of length 1, across the direction.
    """

    directions: Points
    normals: Points

    def paths(self, step: float) -> Points:
        """Return the points of the walks, relative to the middle one, with steps of this length."""
        paths = np.cumsum(step * self.directions, axis=1)
        return np.asarray(paths - paths[:, [paths.shape[1] // 2]])


def walks(rng: np.random.Generator, count: int, steps: int, *, bend: float, change: float, space: bool) -> Walks:
    """Return random walks whose curvature walks at random too, and is clipped.

    In the plane the curvature of step n is k_n = clip(k_0 + W_n, -bend, bend), k_0 normal of deviation bend / 3, W_n a
    sum of n normal numbers of deviation ``change``, and the direction is exp(2 pi i sum k). In space the curvature is
    a vector across the direction, each of its two components such a walk (that along z weaker), and its length is
    clipped; it is carried along without twist, so that a walk whose second component is 0 stays in a plane and is the
    one above.

    Args:
        rng: of everything random.
        count: number of walks.
        steps: of each of them.
        bend: largest curvature in turns per step.
        change: standard deviation of the change of the curvature from step to step, turns per step.
        space: directions in space, else in the plane (Y, X).

    Source: CARE's supplement, section 2.5.1.
    """
    first = rng.normal(0, bend / 3, (count, 1, 2))
    changes = rng.normal(0, change, (count, steps, 2))
    changes[:, 0] = 0
    curvature = first + np.cumsum(changes, axis=1)
    turn = rng.uniform(size=(count, 1))
    if not space:
        angle = 2 * np.pi * (turn + np.cumsum(np.clip(curvature[..., 0], -bend, bend), axis=1))
        zero, sine, cosine = np.zeros_like(angle), np.sin(angle), np.cos(angle)
        return Walks(np.stack([zero, sine, cosine], axis=-1), np.stack([zero, cosine, -sine], axis=-1))
    curvature[..., 1] *= FLATNESS
    length = np.linalg.norm(curvature, axis=-1, keepdims=True)
    curvature *= np.minimum(1, bend / np.maximum(length, 1e-12))
    rise = np.arctan(FLATNESS * rng.normal(size=(count, 1)))
    angle = 2 * np.pi * turn
    ahead = np.concatenate([np.sin(rise), np.cos(rise) * np.sin(angle), np.cos(rise) * np.cos(angle)], axis=-1)
    aside = np.concatenate([np.zeros_like(angle), np.cos(angle), -np.sin(angle)], axis=-1)
    above = np.cross(ahead, aside)
    directions, normals = np.empty((2, count, steps, 3))
    for n in range(steps):
        across = curvature[:, n, :1] * aside + curvature[:, n, 1:] * above
        size = np.linalg.norm(across, axis=-1, keepdims=True)
        across /= np.maximum(size, 1e-12)
        cosine, sine = np.cos(2 * np.pi * size), np.sin(2 * np.pi * size)
        aside, above = (
            v + (v * across).sum(axis=-1, keepdims=True) * ((cosine - 1) * across - sine * ahead)
            for v in (aside, above)
        )
        ahead = cosine * ahead + sine * across
        directions[:, n], normals[:, n] = ahead, aside
    return Walks(directions, normals)


def scattered(
    rng: np.random.Generator, shape: Sequence[int], voxel_um: Sequence[float], reach_um: float, per_um: float
) -> Points:
    """Return places (n, 3) in um at random in a box and ``reach_um`` beyond it, ``per_um`` in each um^2 or um^3.

    Where there is a single plane all lie in it, at 0; the first voxel's centre is the origin.
    """
    sides = np.array([n * v + 2 * reach_um for n, v in zip(shape, voxel_um, strict=True)])
    if shape[0] == 1:
        sides[0] = 0
    count = rng.poisson(per_um * math.prod(sides[sides > 0]))
    low = np.where(sides > 0, -reach_um - np.array(voxel_um) / 2, 0)
    return np.asarray(low + sides * rng.uniform(size=(count, 3)))


def deposit(density: Volume, points: Points, mass: NDArray[np.float64]) -> None:
    """Add the mass (n,) of points (n, 3) in voxels to a density; voxel i reaches from i - 1/2 to i + 1/2.

    A point is spread linearly over the nearest of SUBPIXELS^3 parts of a voxel, and each part belongs to its voxel:
    the mean over the voxel of a line drawn on the finer grid. A density of a single plane takes all points, whatever
    their z.
    """
    axes = [1, 2] if density.shape[0] == 1 else [0, 1, 2]
    sizes = [density.shape[a] for a in axes]
    inside = ((points[:, axes] > -1) & (points[:, axes] < sizes)).all(axis=1)
    fine = (points[inside][:, axes] + 0.5) * SUBPIXELS - 0.5
    below = np.floor(fine)
    upper = fine - below
    # One voxel more at every side takes what falls beyond.
    corner = below.astype(np.int64) + SUBPIXELS
    voxels = [corner // SUBPIXELS, (corner + 1) // SUBPIXELS]
    shares = [1 - upper, upper]
    larger = np.zeros([n + 2 for n in sizes], np.float32)
    flat = larger.reshape(-1)
    strides = np.cumprod([1, *larger.shape[:0:-1]])[::-1]
    for sides in product((0, 1), repeat=len(axes)):
        place = sum(voxels[side][:, a] * strides[a] for a, side in enumerate(sides))
        share = math.prod((shares[side][:, a] for a, side in enumerate(sides)), start=mass[inside])
        np.add.at(flat, place, share.astype(np.float32))
    density += larger[(slice(1, -1),) * len(axes)].reshape(density.shape)

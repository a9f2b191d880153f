"""Balls drawn into a volume; shared by the phantoms of round things and of tubes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepcontrast.synth._deep import Volume


def draw_balls(
    density: Volume, mask: NDArray[np.bool_], centres: NDArray[np.float64], radius: float, brightness: float
) -> None:
    """Draw balls of one radius into density and mask, in voxels; where things overlap the brightest is seen.

    Balls whose centres (n, 3) lie half a voxel apart make a tube. The surface is blended over 1 voxel.
    """
    reach = math.ceil(radius + 0.5)
    around = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1)
    around = around[np.linalg.norm(around, axis=-1) <= radius + 1]
    near = ((centres > -reach - 1) & (centres < np.array(density.shape) + reach)).all(axis=-1)
    centres = centres[near]
    voxels = np.rint(centres).astype(int)[:, None] + around
    inside = radius - np.linalg.norm(voxels - centres[:, None], axis=-1)
    value = (brightness * np.clip(inside + 0.5, 0, 1)).astype(np.float32)
    within = ((voxels >= 0) & (voxels < density.shape)).all(axis=-1)
    np.maximum.at(density, tuple(voxels[within].T), value[within])
    mask[tuple(voxels[within & (inside > 0)].T)] = True

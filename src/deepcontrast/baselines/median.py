"""Median over a small ellipsoid, as Fiji's "Median 3D"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.baselines import Scene
from deepcontrast.errors import InputError

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"radius": radius, "radius_z": radius_z} for radius in (1, 2, 3) for radius_z in (0, 1)
)


def median(volume: NDArray[np.float32], *, radius: int = 1, radius_z: int = 1) -> NDArray[np.float32]:
    """Return the median over an ellipsoid around every voxel.

    Fiji's "Median 3D" with x and y radius ``radius`` and z radius ``radius_z``; ``radius_z=0`` is its "Median"
    plane by plane. The ellipsoid has the offsets with (z / rz)^2 + (y / r)^2 + (x / r)^2 <= 1: a radius of 1 is
    a voxel and its neighbours along the axes.

    Args:
        volume: (Z, Y, X).
        radius: in pixels, 0 or more.
        radius_z: in planes, 0 or more.

    Returns:
        (Z, Y, X) in grey levels; edges are mirrored. Memory: two volumes.

    Raises:
        InputError: a negative radius.

    Source: Tukey 1977; scipy.ndimage.median_filter.
    """
    radii = (radius_z, radius, radius)
    if min(radii) < 0:
        raise InputError(f"radius {radius} and radius_z {radius_z} of the median; accepted: 0 or more")
    grid = np.meshgrid(*(np.arange(-r, r + 1) / max(r, 1) for r in radii), indexing="ij")
    footprint = sum(axis**2 for axis in grid) <= 1
    return np.asarray(ndimage.median_filter(np.asarray(volume, np.float32), footprint=footprint), np.float32)


def suggested(scene: Scene) -> dict[str, Any]:
    """Return a radius of half the structures' half width, 1 to 3 pixels, and along z the same length in planes.

    A median removes what fills less than half of its window, so that the window stays inside the structures.
    """
    radius = min(3, max(1, round(scene.radius / 2)))
    return {"radius": radius, "radius_z": round(radius / scene.anisotropy)}

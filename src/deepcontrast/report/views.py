"""What is shown: which planes, which inset, which line; chosen by rule in the raw, never in the result."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.report.data import Array


def by_depth(depth: Array, count: int, valid: NDArray[np.bool_] | None = None) -> list[int]:
    """Return the planes in the middle of ``count`` equal parts of the depth, shallow first, none twice.

    Planes that are less than half valid are passed over, unless all are.
    """
    order = [int(z) for z in np.argsort(depth, kind="stable")]
    usable = [z for z in order if valid is None or np.mean(valid[z]) >= 0.5] or order
    return list(dict.fromkeys(usable[int((i + 0.5) / count * len(usable))] for i in range(count)))


def structure(plane: Array, large: float) -> NDArray[np.float32]:
    """Return the plane minus its surroundings: Gaussian of 1 px minus Gaussian of ``large`` px."""
    image = np.nan_to_num(np.asarray(plane, np.float32))
    fine = ndimage.gaussian_filter(image, 1.0, truncate=3.0)
    return np.asarray(fine - ndimage.gaussian_filter(image, large, truncate=3.0), np.float32)


def _energy(plane: Array, side: int) -> NDArray[np.float32]:
    signal = structure(plane, max(2.0, side / 4))
    bound = float(np.percentile(np.abs(signal), 95))  # many structures, not one bright speck, decide
    return np.asarray(np.minimum(np.abs(signal), bound) ** 2, np.float32)


def inset_side(shape: tuple[int, int]) -> int:
    """Return the side of the insets: a third of the plane's short side, 32 to 128 px, within the plane."""
    return min(min(shape), max(32, min(128, min(shape) // 3)))


def inset(plane: Array, side: int) -> tuple[int, int]:
    """Return the corner (y, x) of the square with the most structure in a plane (Y, X)."""
    rows, columns = plane.shape
    mean = ndimage.uniform_filter(_energy(plane, side), side, mode="constant")
    half = side // 2
    inner = mean[half : rows - side + half + 1, half : columns - side + half + 1]
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(y), int(x)


def profile_row(square: Array) -> int:
    """Return the row of an inset that crosses the most edges, away from its upper and lower end."""
    smooth = ndimage.gaussian_filter(np.nan_to_num(np.asarray(square, np.float32)), 1.5)
    edges = np.abs(np.diff(smooth, axis=1, append=smooth[:, -1:]))
    energy = np.minimum(edges, np.percentile(edges, 95)).sum(axis=1)
    margin = len(energy) // 5
    return margin + int(energy[margin : len(energy) - margin].argmax())


def section_row(volume: Array, planes: list[int]) -> int:
    """Return the row y, in the middle three fifths, with the most structure in some planes of a volume."""
    rows = int(volume.shape[1])
    energy = np.mean([_energy(volume[z], min(64, rows)).mean(axis=1) for z in planes], axis=0)
    margin = rows // 5
    return margin + int(ndimage.uniform_filter1d(energy, 5)[margin : rows - margin].argmax())

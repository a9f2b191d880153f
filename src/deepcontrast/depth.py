"""Depth of planes and its bins, which end of a stack is the surface, and how large its structures are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.stack import Stack


def depths(stack: Stack) -> NDArray[np.float64]:
    """Return the depth of each plane below the surface (Z,), in micrometres, or planes if spacing is unknown."""
    spacing = stack.optics.voxel_size[0] or 1.0
    depth = stack.optics.depth_um + spacing * np.arange(stack.size("Z"), dtype=np.float64)
    return depth[::-1].copy() if stack.optics.surface == "last" else depth


def depth_unit(stack: Stack) -> str:
    """Return the unit of :func:`depths`: ``"um"`` or ``"planes"``."""
    return "um" if stack.optics.voxel_size[0] else "planes"


def bins(depths: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the edges of up to 10 bins over the depths of all stacks, of at least 5 planes each."""
    count = max(1, min(10, min(len(d) for d in depths) // 5))
    return np.linspace(min(d.min() for d in depths), max(d.max() for d in depths), count + 1)


def planes_of(
    depth: NDArray[np.float64], edges: NDArray[np.float64], valid: NDArray[np.bool_] | None, count: int = 6
) -> list[list[int]]:
    """Return, per depth bin, up to ``count`` planes that have two neighbours and enough valid voxels."""
    which = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, len(edges) - 2)
    found = []
    for b in range(len(edges) - 1):
        inside = [int(z) for z in np.flatnonzero(which == b) if 0 < z < len(depth) - 1]
        inside = [z for z in inside if valid is None or valid[z - 1 : z + 2].all(axis=0).mean() > 0.2]
        chosen = np.unique(np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int))
        found.append([inside[i] for i in chosen])
    return found


def find_surface(volume: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> tuple[str, str]:
    """Return ``"first"`` or ``"last"``, the end with the higher structure contrast, and why.

    Structure contrast of a fifth of the planes is the covariance between neighbouring planes, band-passed
    between 1 and 10 px, over their squared mean brightness above the volume's darkest level; noise differs
    from plane to plane and drops out.

    Args:
        volume: (Z, Y, X), empty voxels filled from their neighbours.
        valid: voxels that hold a measurement, (Z, Y, X); only these count.
    """
    known = np.ones(volume.shape, bool) if valid is None else valid
    usable = np.flatnonzero(known.mean(axis=(1, 2)) > 0.2)
    if len(usable) < 2:
        return "first", "too few planes to tell; the first plane is taken"
    width = max(2, len(usable) // 5)
    some = usable[:: max(1, len(usable) // 20)]
    floor = float(np.percentile(volume[some][known[some]], 0.5))
    ends = (usable[:width], usable[-width:])
    contrast = [_structure_contrast(volume[end], known[end], floor) for end in ends]
    surface = "first" if contrast[0] >= contrast[1] else "last"
    return surface, (
        f"structure contrast {contrast[0]:.3g} in the first {width} planes, {contrast[1]:.3g} in the last {width}"
    )


def structure_radius(planes: NDArray[np.float32]) -> float:
    """Return the lag in pixels at which the autocorrelation of planes (Z, Y, X) falls to half.

    The planes are high-passed at an eighth of their field. Lag 0, where noise adds, is extrapolated from the
    next two lags.
    """
    curves = []
    for plane in planes[:: max(1, len(planes) // 8)]:
        high = plane - ndimage.gaussian_filter(plane, min(plane.shape) / 8)
        power = np.abs(np.fft.rfft2(high * np.outer(*(np.hanning(n) for n in plane.shape)))) ** 2
        correlation = np.fft.irfft2(power, s=plane.shape)
        lags = min(plane.shape) // 4
        curves.append((correlation[:lags, 0] + correlation[0, :lags]) / 2)
    curve = np.mean(curves, axis=0)
    if len(curve) < 4 or curve[1] <= 0:
        return 1.0
    half = max(curve[1], 2 * curve[1] - curve[2]) / 2
    below = np.flatnonzero(curve[1:] < half)
    if not len(below):
        return float(len(curve))
    lag = int(below[0]) + 1
    if lag == 1:
        return 1.0
    return float(lag - (half - curve[lag]) / (curve[lag - 1] - curve[lag]))


def _structure_contrast(planes: NDArray[Any], known: NDArray[np.bool_], floor: float) -> float:
    band = [
        ndimage.gaussian_filter(p, 1.0) - ndimage.gaussian_filter(p, 10.0)
        for p in (plane.astype(np.float32) for plane in planes)
    ]
    covariances = [
        float(np.mean((a * b)[inside]))
        for a, b, inside in zip(band, band[1:], known[:-1] & known[1:], strict=False)
        if inside.any()
    ]
    covariance = float(np.mean(covariances)) if covariances else 0.0
    brightness = max(float(np.mean(planes[known])) - floor, 1e-6)
    return float(np.sqrt(max(covariance, 0.0))) / brightness

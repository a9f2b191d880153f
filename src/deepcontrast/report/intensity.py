"""What became of the intensities: enhanced against raw local structure signal, and brightness with depth."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from deepcontrast.report.data import Array
from deepcontrast.report.views import structure

CROP = 768
"""The middle of larger planes is enough for a regression over so many voxels."""


class DepthBin(TypedDict):
    """Regression of enhanced on raw structure signal in one part of the depth."""

    depth_from: float
    depth_to: float
    slope: float
    r2: float
    voxels: int


class IntensitySummary(TypedDict):
    """What ``intensity_summary`` returns; plain numbers and lists, ready for JSON.

    ``depth``, ``raw`` and ``enhanced`` are the falloff: the brightness of structure in some planes, shallow
    first, as a share of its mean in the shallowest part. ``raw_deep`` and ``enhanced_deep`` are its means in
    the deepest part. NaN stands where there is nothing to divide by.
    """

    bins: list[DepthBin]
    depth: list[float]
    raw: list[float]
    enhanced: list[float]
    raw_deep: float
    enhanced_deep: float
    large_px: float


def intensity_summary(
    raw: Array,
    enhanced: Array,
    depth: Array,
    *,
    valid: NDArray[np.bool_] | None = None,
    bins: int = 5,
    planes_per_bin: int = 6,
    large: float = 20.0,
) -> IntensitySummary:
    """Return slope and R2 of enhanced on raw local structure signal by depth, and the falloff of brightness.

    The local structure signal of a plane is its Gaussian blur of 1 px minus that of ``large`` px (at most a
    quarter of the short side); its brightness is its 95th percentile. The slope is that of an ordinary least
    squares line over the valid voxels of up to ``planes_per_bin`` evenly spaced planes of a part.

    Args:
        raw: (Z, Y, X), read plane by plane.
        enhanced: the same shape.
        depth: (Z,) depth of each plane, in any unit.
        valid: (Z, Y, X) voxels to use.
        bins: number of equal parts of the depth; fewer where there are fewer planes.
        planes_per_bin: planes looked at in each part.
        large: width of the surroundings in px.
    """
    order = np.argsort(depth, kind="stable")
    large = min(large, min(int(n) for n in raw.shape[1:]) / 4)
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    found: list[DepthBin] = []
    at: list[float] = []
    bright: list[tuple[float, float]] = []
    means: list[tuple[float, float]] = []
    for part in parts:
        count = min(planes_per_bin, len(part))
        picked = part[((np.arange(count) + 0.5) / count * len(part)).astype(int)]
        pairs = [_signals(raw[z], enhanced[z], None if valid is None else valid[z], large) for z in picked]
        x, y = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        slope, r2 = _line(x, y)
        ends = sorted((float(depth[part[0]]), float(depth[part[-1]])))
        found.append({"depth_from": ends[0], "depth_to": ends[1], "slope": slope, "r2": r2, "voxels": x.size})
        levels = [(_p95(a), _p95(b)) for a, b in pairs]
        at += [float(depth[z]) for z in picked]
        bright += levels
        means.append((_mean([a for a, _ in levels]), _mean([b for _, b in levels])))
    base = [m if m > 0 else float("nan") for m in means[0]]
    return {
        "bins": found,
        "depth": at,
        "raw": [a / base[0] for a, _ in bright],
        "enhanced": [b / base[1] for _, b in bright],
        "raw_deep": means[-1][0] / base[0],
        "enhanced_deep": means[-1][1] / base[1],
        "large_px": large,
    }


def _signals(raw: Array, enhanced: Array, valid: NDArray[np.bool_] | None, large: float) -> tuple[Array, Array]:
    window = tuple(slice(max(0, (n - CROP) // 2), max(0, (n - CROP) // 2) + CROP) for n in raw.shape)
    a, b = raw[window], enhanced[window]
    keep = np.isfinite(a) & np.isfinite(b)
    if valid is not None:
        keep &= valid[window]
    return structure(a, large)[keep], structure(b, large)[keep]


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Return slope and R2 of y on x, NaN where x or y do not vary."""
    if x.size < 2:
        return float("nan"), float("nan")
    dx, dy = x.astype(np.float64) - x.mean(dtype=np.float64), y.astype(np.float64) - y.mean(dtype=np.float64)
    xx, yy, xy = float(dx @ dx), float(dy @ dy), float(dx @ dy)
    if xx <= 0 or yy <= 0:
        return (xy / xx if xx > 0 else float("nan")), float("nan")
    return xy / xx, xy * xy / (xx * yy)


def _p95(values: Array) -> float:
    return float(np.percentile(values, 95)) if values.size else float("nan")


def _mean(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")

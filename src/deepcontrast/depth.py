"""Depth of planes and its bins, which end of a stack is the surface, and how large its structures are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.cleaned import Cleaned
from deepcontrast.histogram import percentiles
from deepcontrast.stack import Stack
from deepcontrast.valid import Survey, codes, consecutive, survey

SIDE = 2048
"""Of a plane of more than its square in pixels, the middle window so long stands for the plane."""
END = 32
"""Planes of an end of the stack that its contrast is measured in."""
TOGETHER = 8
"""Neighbouring planes read together: a chunk of a large stack has about 16."""


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
    depth: NDArray[np.float64],
    edges: NDArray[np.float64],
    valid: NDArray[np.bool_] | None,
    count: int = 6,
    *,
    apart: int = 1,
) -> list[list[int]]:
    """Return, per depth bin, up to ``count`` planes with enough valid voxels, also ``apart`` planes above and below.

    Planes that follow each other at a distance (an excerpt is of several runs of planes) are no neighbours.
    """
    which = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, len(edges) - 2)
    steps = np.abs(np.diff(depth))
    near = steps < 1.5 * np.median(steps) if len(depth) > 1 else np.zeros(0, bool)
    found = []
    for b in range(len(edges) - 1):
        inside = [int(z) for z in np.flatnonzero(which == b) if apart <= z < len(depth) - apart]
        inside = [z for z in inside if near[z - apart : z + apart].all()]
        shown = [-apart, 0, apart]
        inside = [z for z in inside if valid is None or valid[np.add(z, shown)].all(axis=0).mean() > 0.2]
        chosen = np.unique(np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int))
        found.append([inside[i] for i in chosen])
    return found


def find_surface(volume: Any, known: Survey | None = None) -> tuple[str, str]:
    """Return ``"first"`` or ``"last"``, the end with the higher structure contrast, and why.

    Structure contrast of a fifth of the planes is the covariance between neighbouring planes, band-passed
    between 1 and 10 px, over their squared mean brightness above the volume's darkest level; noise differs
    from plane to plane and drops out. Of a fifth of more than ``END`` planes, evenly spaced runs with as many in all
    stand for it; of a large plane, its middle. Voxels that hold no measurement do not count.

    Args:
        volume: (Z, Y, X), anything that slices, as it was read.
        known: its survey, where there is one already.
    """
    known = survey(volume) if known is None else known
    usable = np.flatnonzero(known.usable(0.2))
    if len(usable) < 2:
        return "first", "too few planes to tell; the first plane is taken"
    width = max(2, len(usable) // 5)
    planes = _Planes(volume, known)
    some = usable[:: max(1, len(usable) // 20)].tolist()
    [floor] = percentiles(lambda: (image[valid] for z in some for image, valid in planes.read(slice(z, z + 1))), [0.5])
    contrast = [_structure_contrast(planes, end, floor) for end in (usable[:width], usable[-width:])]
    surface = "first" if contrast[0] >= contrast[1] else "last"
    return surface, (
        f"structure contrast {contrast[0]:.3g} in the first {width} planes, {contrast[1]:.3g} in the last {width}"
    )


def middle(field: tuple[int, int]) -> tuple[slice, slice]:
    """Return where to look in a plane (Y, X): all of it up to ``SIDE`` squared pixels, else ``SIDE`` in the middle."""
    sides = field if field[0] * field[1] <= SIDE**2 else (min(field[0], SIDE), min(field[1], SIDE))
    y, x = (slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(field, sides, strict=True))
    return y, x


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


class _Planes:
    """Planes of a volume, or the middle of large ones, empty voxels filled, with their valid voxels."""

    def __init__(self, volume: Any, known: Survey) -> None:
        self.volume, self.known, self.window = volume, known, middle(known.shape[1:])
        self.filled = Cleaned(volume, known)

    def read(self, z: slice) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        images = self.filled[z, *self.window]
        if self.known.all_valid:
            valid = np.ones(images.shape, bool)
        else:
            valid = codes(self.volume, self.known, (z, *self.window)) == 0
        return zip(images, valid, strict=True)


def _structure_contrast(planes: _Planes, end: NDArray[np.int64], floor: float) -> float:
    runs = [end]
    if len(end) > END:
        runs = [
            end[start : start + TOGETHER] for start in np.linspace(0, len(end) - TOGETHER, END // TOGETHER).astype(int)
        ]
    covariances: list[float] = []
    total, count = 0.0, 0
    for run in runs:
        before: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None
        wanted = np.zeros(planes.known.shape[0], bool)
        wanted[run] = True
        for some in consecutive(wanted, TOGETHER):
            for image, valid in planes.read(some):
                band = ndimage.gaussian_filter(image, 1.0) - ndimage.gaussian_filter(image, 10.0)
                if before is not None and (inside := before[1] & valid).any():
                    covariances.append(float(np.mean((before[0] * band)[inside])))
                before = band, valid
                total += float(image[valid].sum(dtype=np.float64))
                count += int(valid.sum())
    covariance = float(np.mean(covariances)) if covariances else 0.0
    brightness = max(total / max(count, 1) - floor, 1e-6)
    return float(np.sqrt(max(covariance, 0.0))) / brightness

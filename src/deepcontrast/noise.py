"""The camera from the image alone: grey levels per photon and zero-variance intercept, and how far to trust them.

Method: photon transfer (variance against mean) of a high-pass residual. A product of differences along z, y and x
has zero response to smooth structure and to whatever is fixed from plane to plane; the squares of its weights give
the local mean that belongs to it, so that for white noise E[r^2] = gain (mean - intercept) holds also where the
signal varies. Follows the noise model of DeepContrast section 4.2 (Kalaidzidis, BIOCOMP 2017) and of Foi et al.,
IEEE TIP 17:1737 (2008).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, correlate1d

from deepcontrast.errors import InputError
from deepcontrast.fixed_pattern import Pattern, estimate_pattern

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_PLANES = 64
MAX_VOXELS = 24_000_000
BAND = 128  # rows read at once where a plane is too large to be read whole
MIN_BLOCKS = 24
CHI2_MEDIAN = 0.455  # of one degree of freedom: variance from the median of squares
RIM = 4  # px that the longest filter reaches
WHITE = 0.1  # lag-1 correlation above which noise is not called white
READ_NOISE = 3.5  # electrons; a "dark" region noisier than this is taken to be lit
DROPPED = {"zyx": 0, "yx": 1, "zx": 2, "zy": 3, "x": 4, "y": 5, "z": 6}  # axes that are differenced
ORDERS = ((2, 2), (2, 4), (2, 6))  # differences along z and along y and x, from efficient to structure-proof


@dataclass(frozen=True)
class Camera:
    """What the image says about the detector; grey levels throughout.

    Attributes:
        gain: grey levels per photon; an effective one where not ``poissonian``.
        intercept: grey level at which the fitted variance is zero, offset - read_noise^2 / gain.
        offset: grey level without light, if a signal-free region shows it or the user gives it.
        read_noise: standard deviation in the dark, under the same condition.
        poissonian: the variance is a rising line of the mean and the noise is white.
        whiteness: lag-1 correlation of the residual along z, y and x (0 for white noise).
        fixed_pattern: correlation of the residual between distant planes, before removal.
        pattern_kind: ``"none"``, ``"rows and columns"`` or ``"pixels"``.
        notes: what was found and what was done, one sentence each.
        means: binned points of the fit, abscissa; at most 40.
        variances: the same, ordinate.
    """

    gain: float
    intercept: float
    offset: float | None
    read_noise: float | None
    poissonian: bool
    whiteness: tuple[float, float, float]
    fixed_pattern: float
    pattern_kind: str
    notes: tuple[str, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]

    @property
    def background(self) -> float:
        """The grey level to subtract before the network: the offset where known, else the intercept."""
        return self.intercept if self.offset is None else self.offset


@dataclass(frozen=True)
class _Grey:
    """How the grey levels are laid out: whole numbers, their step, piles at either end, the range."""

    low: float
    high: float
    step: float  # 0 where the values are not whole numbers
    clipped: bool  # many voxels at the lowest value
    saturated: bool  # many voxels at the highest value
    shares: tuple[float, float]  # of the voxels at the lowest and at the highest value
    median: float
    dark: float  # 2nd percentile
    floor: float  # 0.1st percentile


@dataclass(frozen=True)
class _Blocks:
    """Averages over the n blocks (of one plane each) that the fit rests on."""

    depth: Floats  # (n,) of the plane, 0 to 1
    mean: Floats  # (3, n) local mean that belongs to the residual, for each of ORDERS
    power: Floats  # (3, n) mean square of the residual
    light: Floats  # (3, n) mean of the neighbouring blocks: as bright, but of independent noise
    texture: Floats  # (n,) power where only one axis is high-passed: structure shows here first
    relief: Floats  # (n,) power of the middle frequencies
    lags: Floats  # (3, n) correlation with the next voxel along z, y, x
    shared: Floats  # (3, n) correlation with a distant plane: corner, rows and columns
    dropped: Floats  # (7, n) power without some axes, in the order of DROPPED
    raw: Floats  # (3, n) voxels, their mean, their third central moment


@dataclass(frozen=True)
class _Line:
    """variance = gain (mean - intercept), never below a floor; its standard error; the blocks it rests on."""

    gain: float
    intercept: float
    floor: float
    error: float
    keep: Bools

    def variance(self, mean: Floats) -> Floats:
        return np.maximum(self.gain * (mean - self.intercept), self.floor)


def estimate_camera(
    volumes: Sequence[NDArray[Any]],
    *,
    valid: Sequence[NDArray[np.bool_] | None] | None = None,
    gain: float | None = None,
    offset: float | None = None,
    remove_pattern: bool = True,
) -> tuple[Camera, NDArray[np.float32] | None]:
    """Estimate gain, zero-variance intercept and fixed pattern of the camera that took these volumes.

    Args:
        volumes: arrays (Z, Y, X) in grey levels, all of one camera and setting; sizes may differ.
        valid: masks of the same shapes, or ``None`` where every voxel counts; voxels that are not finite never do.
        gain: grey levels per photon, where the user knows it.
        offset: grey level without light, where the user knows it.
        remove_pattern: estimate what is fixed from plane to plane; it needs one YX shape and at least 8 planes.

    Returns:
        The camera, and the additive pattern (Y, X) in grey levels to subtract, or ``None``.

    Raises:
        InputError: no volume, a volume that is not (Z, Y, X), masks that do not fit, a gain that is not positive.

    Source: photon transfer, DeepContrast section 4.2 / Kalaidzidis 2017; Foi et al. 2008.
    """
    masks = _checked(volumes, valid, gain, offset)
    grey = _grey_levels(volumes, masks)
    if grey is None or grey.high <= grey.low:
        return _nothing(grey, gain, offset), None
    blocks = _gather(volumes, masks, grey, None)
    line, level = (None, 0) if blocks is None else _fit(blocks)
    white, shared = ((0.0, 0.0, 0.0), 0.0) if blocks is None else _whiteness(blocks)
    found = Pattern(None, "none", ())
    if remove_pattern:
        rough = line is not None and line.gain > 0
        slope, zero = (line.gain, line.intercept) if line and rough else _effective(blocks, white, grey)
        least = slope * max(grey.dark - zero, 0.1 * abs(grey.median - zero), 1e-6 * (grey.high - grey.low))
        found = estimate_pattern(volumes, masks, gain=slope, intercept=zero, least=least)
    if found.image is not None:
        blocks = _gather(volumes, masks, grey, found.image)
        line, level = (None, 0) if blocks is None else _fit(blocks)
        white = (0.0, 0.0, 0.0) if blocks is None else _whiteness(blocks)[0]

    notes = _grey_notes(grey)
    reason = _why_not(blocks, line, level, white, grey)
    if reason is None and line is not None and blocks is not None:
        fitted, intercept = line.gain, line.intercept
        notes.append(
            f"The variance of the residual rises in line with the mean: {fitted:.4g} grey levels per photon "
            f"(standard error {line.error:.2g}), no variance at grey level {intercept:.5g}."
        )
        if gain is not None:
            intercept = _intercept_for(blocks, line, level, gain)
    else:
        fitted, intercept = _effective(blocks, white, grey)
        notes.append(f"The noise is not taken to be Poissonian: {reason}.")
        notes.append(
            f"Instead the effective gain {fitted:.4g} gives the residual's variance at the median intensity "
            f"{grey.median:.5g}, with no noise at grey level {intercept:.5g}: added noise has the right size there."
        )
    if gain is not None:
        notes.append(f"The gain {gain:g} was given by the user (the image says {fitted:.4g}).")
        fitted = gain
    if offset is not None:
        dark: tuple[float, float] | None = (offset, float(np.sqrt(max(fitted * (offset - intercept), 0.0))))
        notes.append(f"The offset {offset:g} was given by the user.")
    else:
        dark = _signal_free(blocks, fitted, grey) if reason is None and blocks is not None else None
    if dark is not None and offset is None:
        notes.append(
            f"A signal-free region shows the offset {dark[0]:.5g} and a read noise of {dark[1]:.3g} grey levels "
            f"({dark[1] / fitted:.2g} electrons); the offset is what is subtracted."
        )
    elif offset is None:
        notes.append(
            "No signal-free region was found, so offset and read noise cannot be told apart: "
            f"grey level {intercept:.5g} stands for the offset."
        )
    notes += found.notes
    means, variances = _bins(blocks, line, level)
    camera = Camera(
        gain=float(fitted),
        intercept=float(intercept),
        offset=None if dark is None else float(dark[0]),
        read_noise=None if dark is None else dark[1],
        poissonian=reason is None,
        whiteness=(float(white[0]), float(white[1]), float(white[2])),
        fixed_pattern=float(shared),
        pattern_kind=found.kind,
        notes=tuple(notes),
        means=means,
        variances=variances,
    )
    return camera, found.image


def remove_pattern(volume: NDArray[Any], pattern: NDArray[Any]) -> NDArray[np.float32]:
    """Return the volume (Z, Y, X) as float32 less the additive pattern (Y, X), both in grey levels.

    Raises:
        InputError: the planes and the pattern differ in size.
    """
    if volume.shape[-2:] != pattern.shape:
        raise InputError(
            f"the pattern is {pattern.shape} (Y, X), the planes are {volume.shape[-2:]}; accepted: the same"
        )
    return np.asarray(volume - pattern, np.float32)


def _checked(
    volumes: Sequence[NDArray[Any]],
    valid: Sequence[NDArray[np.bool_] | None] | None,
    gain: float | None,
    offset: float | None,
) -> list[NDArray[np.bool_] | None]:
    if not len(volumes):
        raise InputError("no volume was given; accepted: at least one array (Z, Y, X)")
    masks: list[NDArray[np.bool_] | None] = list(valid) if valid is not None else [None] * len(volumes)
    if len(masks) != len(volumes):
        raise InputError(f"{len(masks)} valid masks were given for {len(volumes)} volumes; accepted: one each, or None")
    for volume, mask in zip(volumes, masks, strict=True):
        if volume.ndim != 3:
            raise InputError(f"a volume has {volume.ndim} axes; accepted: 3 (Z, Y, X)")
        if mask is not None and mask.shape != volume.shape:
            raise InputError(f"a valid mask is {mask.shape}, its volume is {volume.shape}; accepted: the same shape")
    if gain is not None and not (np.isfinite(gain) and gain > 0):
        raise InputError(f"the gain {gain} was given; accepted: a positive number of grey levels per photon")
    if offset is not None and not np.isfinite(offset):
        raise InputError(f"the offset {offset} was given; accepted: a finite grey level")
    return masks


def _nothing(grey: _Grey | None, gain: float | None, offset: float | None) -> Camera:
    """Return the camera of an image that has no two different valid voxels."""
    value = 0.0 if grey is None else grey.low
    what = "no valid voxel" if grey is None else "a single grey level"
    return Camera(
        gain=1.0 if gain is None else float(gain),
        intercept=value if offset is None else float(offset),
        offset=None if offset is None else float(offset),
        read_noise=None if offset is None else 0.0,
        poissonian=False,
        whiteness=(0.0, 0.0, 0.0),
        fixed_pattern=0.0,
        pattern_kind="none",
        notes=(f"The image has {what}: no noise can be measured, and gain {1.0 if gain is None else gain:g} is used.",),
        means=(),
        variances=(),
    )


# --- what the grey levels themselves say ------------------------------------------------------------------------


def _grey_levels(volumes: Sequence[NDArray[Any]], masks: Sequence[NDArray[np.bool_] | None]) -> _Grey | None:
    picked = []
    planes = [(i, z) for i, volume in enumerate(volumes) for z in range(volume.shape[0])]
    chosen = np.unique(np.linspace(0, len(planes) - 1, min(len(planes), MAX_PLANES)).round().astype(int))
    for i, z in (planes[k] for k in chosen):
        plane, mask = np.asarray(volumes[i][z]), masks[i]
        stride = 1 + plane.size * len(chosen) // MAX_VOXELS
        values = plane[::stride] if mask is None else plane[::stride][np.asarray(mask[z])[::stride]]
        picked.append(values[np.isfinite(values)].ravel())
    values = np.concatenate(picked)
    if not values.size:
        return None
    levels, counts = np.unique(values, return_counts=True)
    levels = levels.astype(np.float64)
    whole = bool(np.all(levels == np.round(levels)))
    step = float(np.diff(levels).min()) if whole and len(levels) > 1 else 0.0
    low, high, tall = float(levels[0]), float(levels[-1]), len(levels) > 8
    floor, dark, median = np.percentile(values, (0.1, 2, 50))
    return _Grey(
        low=low,
        high=high,
        step=step,
        # Few photons pile up as well, but then the next levels fall as steeply.
        clipped=bool(tall and counts[0] > 10 + 3 * counts[1] and counts[1] < 2 * counts[2]),
        saturated=bool(tall and counts[-1] > 10 + 5 * counts[-5:-1].mean()),
        shares=(float(counts[0] / values.size), float(counts[-1] / values.size)),
        median=float(median),
        dark=float(dark),
        floor=float(floor),
    )


def _grey_notes(grey: _Grey) -> list[str]:
    notes = []
    if grey.step == 0:
        notes.append(
            "The grey levels are not whole numbers, so they were averaged, rescaled or computed: "
            "the gain counts effective photons of the image as it is."
        )
    elif grey.high <= 255 and (grey.saturated or grey.clipped):
        notes.append(
            "The image uses 8 bits and piles up at an end of its range, as after rescaling: "
            "the gain counts effective photons of the image as it is."
        )
    if grey.saturated:
        notes.append(
            f"{grey.shares[1]:.2%} of the voxels are at the highest value {grey.high:g}; "
            "the fit leaves their surroundings out."
        )
    if grey.clipped:
        notes.append(
            f"{grey.shares[0]:.2%} of the voxels are at the lowest value {grey.low:g}; "
            "the fit leaves their surroundings out."
        )
    return notes


# --- block averages ---------------------------------------------------------------------------------------------


def _difference(order: int) -> Floats:
    """Return the binomial difference of an even order, of unit noise gain; order 0 is the identity."""
    weights = np.array([(-1) ** k * comb(order, k) for k in range(order + 1)], np.float64)
    return np.asarray(weights / np.sqrt(comb(2 * order, order)))


def _along(plane: Floats, weights: Floats, axis: int) -> Floats:
    return np.asarray(correlate1d(plane, weights, axis=axis, mode="reflect"))


def _slabs(
    volumes: Sequence[NDArray[Any]],
    masks: Sequence[Bools | None],
    grey: _Grey,
    pattern: NDArray[np.float32] | None,
) -> Iterator[tuple[float, Floats, Bools, Floats]]:
    """Yield relative depth, up to 5 planes around it, their usable voxels, a distant plane (NaN where unusable)."""
    centres = []
    for i, volume in enumerate(volumes):
        reach = min(2, (volume.shape[0] - 1) // 2)
        centres += [(i, z, reach) for z in range(reach, volume.shape[0] - reach)]
    chosen = np.unique(np.linspace(0, len(centres) - 1, min(len(centres), MAX_PLANES)).round().astype(int))
    budget = MAX_VOXELS / max(len(chosen), 1)

    def read(i: int, planes: slice, rows: slice) -> tuple[Floats, Bools]:
        part = np.array(volumes[i][planes, rows], np.float64)
        good = np.isfinite(part)
        mask = masks[i]
        if mask is not None:
            good &= np.asarray(mask[planes, rows])
        if pattern is not None:
            part -= pattern[rows]
        return np.where(good, part, 0.0), good

    for i, z, reach in (centres[k] for k in chosen):
        depth, height, width = volumes[i].shape
        bands = [slice(0, height)]
        if height * width > budget and height > 2 * BAND:  # too large a plane: bands of rows stand for it
            count = min(max(1, int(budget / (BAND * width))), height // BAND)
            bands = [slice(int(y), int(y) + BAND) for y in np.linspace(0, height - BAND, count)]
        far = (z + depth // 2) % depth if depth >= 6 else None
        for rows in bands:
            part, good = read(i, slice(z - reach, z + reach + 1), rows)
            away = np.full(part.shape[1:], np.nan)
            if far is not None:
                distant, seen = read(i, slice(far, far + 1), rows)
                away = np.where(seen[0], distant[0], np.nan)
            if grey.clipped or grey.saturated:
                good &= _unclipped(part, grey)
            yield z / max(depth - 1, 1), part, good, away


def _gather(
    volumes: Sequence[NDArray[Any]],
    masks: Sequence[Bools | None],
    grey: _Grey,
    pattern: NDArray[np.float32] | None,
) -> _Blocks | None:
    """Return the block averages of planes spread evenly over the volumes, or None where there are too few."""
    side = min(min(volume.shape[1:]) for volume in volumes)
    size = 16 if side >= 64 else 8 if side >= 24 else 4
    tables = [
        table
        for depth, part, good, away in _slabs(volumes, masks, grey, pattern)
        if (table := _table(depth, part, good, away, size)) is not None
    ]
    if not tables:
        return None
    t = np.concatenate(tables, axis=1)
    if t.shape[1] < MIN_BLOCKS:
        return None
    return _Blocks(t[0], t[1:4], t[4:7], t[7:10], t[10], t[11], t[12:15], t[15:18], t[18:25], t[25:28])


def _unclipped(part: Floats, grey: _Grey) -> Bools:
    """Mark where the local mean (Y, X) of some planes is 2.5 standard deviations of the noise off the clipped ends.

    Leaving out the clipped voxels themselves would leave the dark or bright half of the noise around them.
    """
    smooth = np.abs(_difference(4)) / np.abs(_difference(4)).sum()
    local = _along(_along(part.mean(axis=0), smooth, 0), smooth, 1)
    residual = _along(_along(part[len(part) // 2], _difference(4), 0), _difference(4), 1)
    ok = np.ones(local.shape, bool)
    if grey.saturated:
        bright = local >= np.percentile(local, 75)
        ok &= local + 2.5 * np.sqrt(np.median(residual[bright] ** 2) / CHI2_MEDIAN) < grey.high
    if grey.clipped:
        dark = local <= np.percentile(local, 25)
        ok &= local - 2.5 * np.sqrt(np.median(residual[dark] ** 2) / CHI2_MEDIAN) > grey.low
    return ok


def _table(depth: float, part: Floats, good: Bools, away: Floats, size: int) -> Floats | None:
    """Return the block averages of one plane, a column per usable block, rows in the order of ``_Blocks``."""
    reach = len(part) // 2
    centre = part[reach]
    rows, columns = (centre.shape[0] - 2 * RIM) // size, (centre.shape[1] - 2 * RIM) // size
    if rows < 1 or columns < 1:
        return None
    inside = (slice(RIM, RIM + rows * size), slice(RIM, RIM + columns * size))

    def blocks(values: NDArray[Any]) -> Floats:
        return np.asarray(values[inside].reshape(rows, size, columns, size).sum(axis=(1, 3), dtype=np.float64))

    usable = _surrounded(np.asarray(good.all(axis=0)))
    count = blocks(usable)
    kept = count >= 0.5 * size * size
    if not kept.any():
        return None

    def average(values: Floats) -> Floats:
        return blocks(np.where(usable, values, 0.0)) / np.maximum(count, 1)

    def alike(a: Floats, b: Floats) -> Floats:
        both = np.where(usable & np.isfinite(b), b, 0.0)
        seen = np.where(both != 0, a, 0.0)
        return blocks(seen * both) / np.sqrt(np.maximum(blocks(seen**2) * blocks(both**2), 1e-30))

    def along_z(weights: Floats) -> Floats:
        half = len(weights) // 2
        return np.asarray(np.tensordot(weights, part[reach - half : reach + half + 1], 1))

    means, powers, lights = [], [], []
    for z_order, order in ORDERS:
        ahead, across = _difference(min(z_order, 2 * reach)), _difference(order)
        means.append(average(_along(_along(along_z(ahead**2), across**2, 0), across**2, 1)))
        powers.append(average(_along(_along(along_z(ahead), across, 0), across, 1) ** 2))
        total, weight = _around(means[-1] * kept), _around(kept.astype(np.float64))
        lights.append(np.where(weight > 0, total / np.maximum(weight, 1), means[-1]))

    high, smooth = _difference(8), np.abs(_difference(4))
    steep = along_z(_difference(min(4, 2 * reach)))
    mild_y, mild_x = _along(steep, _difference(4), 0), _along(steep, _difference(4), 1)
    texture = (average(_along(mild_y, smooth, 1) ** 2) + average(_along(mild_x, smooth, 0) ** 2)) / 2
    soft, step = _along(_along(centre, smooth, 0), smooth, 1), np.array([-1.0, 0, 0, 0, 1.0])
    relief = average(_along(soft, step, 0) ** 2) + average(_along(soft, step, 1) ** 2)

    zy, zx = _along(steep, high, 0), _along(steep, high, 1)
    y, x = _along(centre, high, 0), _along(centre, high, 1)
    yx = _along(y, high, 1)
    lag_z = np.zeros_like(count)
    if reach:
        lag_z = alike(yx, _along(_along(part[reach + 1], high, 0), high, 1))
    lags = [lag_z, alike(zx, np.roll(zx, -1, axis=0)), alike(zy, np.roll(zy, -1, axis=1))]
    shared = [np.zeros_like(count)] * 3
    seen = np.isfinite(away)
    if seen.any():
        fill = np.where(seen, away, away[seen].mean())
        far_y, far_x = _along(fill, high, 0), _along(fill, high, 1)
        lost = np.where(_surrounded(seen), 0.0, np.nan)
        shared = [alike(yx, _along(far_y, high, 1) + lost), alike(y, far_y + lost), alike(x, far_x + lost)]
    dropped = [powers[1], *(average(residual**2) for residual in (yx, zx, zy, x, y, steep))]

    level = average(centre)
    spread = np.zeros_like(centre)
    spread[inside] = np.repeat(np.repeat(level, size, 0), size, 1)
    raw = [count, level, average((centre - spread) ** 3)]
    at = np.full_like(count, depth)
    table = [at, *means, *powers, *lights, texture, relief, *lags, *shared, *dropped, *raw]
    return np.stack(table)[:, kept]


def _surrounded(good: NDArray[Any]) -> Bools:
    """Mark voxels (Y, X) whose whole filter support is good."""
    square = np.ones((2 * RIM + 1, 2 * RIM + 1), bool)
    return np.asarray(good) if good.all() else np.asarray(binary_erosion(good, square, border_value=1))


def _around(grid: Floats) -> Floats:
    """Return the sum over the eight neighbours of every block of a grid (rows, columns)."""
    wide = np.pad(grid, 1)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] - grid)


# --- the line ---------------------------------------------------------------------------------------------------


def _groups(light: Floats, count: int) -> NDArray[np.int64]:
    """Return for every block which of ``count`` equally large groups of rising brightness it is in."""
    order = np.argsort(np.argsort(light, kind="stable"), kind="stable")
    return np.asarray(order * count // len(light), np.int64)


def _least(values: Floats, groups: NDArray[np.int64], share: float) -> Bools:
    """Mark in every group the blocks below that quantile of the values."""
    keep = np.zeros(len(values), bool)
    for g in np.unique(groups):
        inside = groups == g
        keep |= inside & (values <= np.quantile(values[inside], share))
    return keep


def _line(blocks: _Blocks, level: int, among: Bools | None = None) -> _Line | None:
    """Fit variance against mean; blocks whose residual is larger than noise makes it are left out (one-sided).

    The neighbours' mean serves as instrument and sets the weights: a block's own mean carries the noise of its own
    residual, which would tilt the line at low counts.
    """
    mean, power, light = blocks.mean[level], blocks.power[level], blocks.light[level]
    among = np.ones(len(mean), bool) if among is None else among
    if float(np.median(power / blocks.raw[0])) < 0.003 * float(np.var(mean[among])):
        light = mean  # so much light that the block's own mean is as good and more to the point
    groups = _groups(light, max(4, min(24, len(mean) // 12)))
    middles = [(light[s].mean(), np.median(power[s])) for g in np.unique(groups) if (s := among & (groups == g)).any()]
    spots, levels = np.array([m[0] for m in middles]), np.array([m[1] for m in middles])
    if len(spots) < 2 or np.ptp(spots) <= 1e-9 * max(1.0, float(np.abs(spots).max())):
        return None
    floor = 0.05 * float(np.median(levels))
    if floor <= 0:
        return None
    gain, constant = np.polyfit(spots, levels, 1)
    keep, error = among, float("inf")
    for _ in range(12):
        guess = np.maximum(gain * light + constant, floor)
        ratio = power / guess
        low = ratio[keep & (ratio < 1)]
        spread = float(np.sqrt(np.mean((low - 1) ** 2))) if low.size else 1.0
        keep = among & (ratio < 1 + 5 * spread)
        if keep.sum() < MIN_BLOCKS // 2:
            return None
        weight = 1 / guess[keep] ** 2
        centre = np.sum(weight * light[keep]) / weight.sum()
        lever = weight * (light[keep] - centre)
        moment = float(np.sum(lever * mean[keep]))
        if moment <= 0:
            return None
        gain = float(np.sum(lever * power[keep])) / moment
        constant = float(np.sum(weight * (power[keep] - gain * mean[keep])) / weight.sum())
        rest = power[keep] - gain * mean[keep] - constant
        error = float(np.sqrt(2 * np.sum((lever * rest) ** 2))) / moment  # planes share neighbours: twice
    if gain == 0 or not np.isfinite(gain):
        return None
    return _Line(gain, -constant / gain, floor, error, keep)


def _fit(blocks: _Blocks) -> tuple[_Line | None, int]:
    """Return the line of the most efficient filter that agrees with the most structure-proof one, and its order.

    The reference is the highest order, on the blocks with the least texture.
    """
    last = len(ORDERS) - 1
    full = _line(blocks, last)
    if full is None or full.gain <= 0:
        return full, last
    texture = blocks.texture / full.variance(blocks.light[last])
    calm = _least(texture, _groups(blocks.light[last], 12), 0.3) | (texture < 1.5)
    reference = _line(blocks, last, calm)
    if reference is None or reference.gain <= 0:
        return full, last
    for level in (*range(last), last):
        line = full if level == last else _line(blocks, level)
        if line is not None and line.gain > 0 and _agrees(blocks, level, line, last, reference):
            return line, level
    return reference, last


def _agrees(blocks: _Blocks, level: int, line: _Line, other: int, reference: _Line) -> bool:
    """Say whether in no third of the brightness the residual exceeds the reference by more than chance and 1.5 %."""
    thirds = _groups(blocks.light[level], 3)
    for third in range(3):
        mine = (blocks.power[level] / reference.variance(blocks.mean[level]))[line.keep & (thirds == third)]
        theirs = (blocks.power[other] / reference.variance(blocks.mean[other]))[reference.keep & (thirds == third)]
        if len(mine) < 4 or len(theirs) < 4:
            continue
        error = np.sqrt(2 * (mine.var() / len(mine) + theirs.var() / len(theirs)))
        if mine.mean() - theirs.mean() > 0.015 + 1.5 * error:
            return False
    return True


def _intercept_for(blocks: _Blocks, line: _Line, level: int, gain: float) -> float:
    """Return the zero-variance intercept that goes with a given gain."""
    keep = line.keep
    weight = 1 / line.variance(blocks.light[level][keep]) ** 2
    rest = blocks.mean[level][keep] - blocks.power[level][keep] / gain
    return float(np.sum(weight * rest) / weight.sum())


def _bins(blocks: _Blocks | None, line: _Line | None, level: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if blocks is None:
        return (), ()
    keep = np.ones(len(blocks.depth), bool) if line is None else line.keep
    light, mean, power = blocks.light[level][keep], blocks.mean[level][keep], blocks.power[level][keep]
    groups = _groups(light, max(1, min(40, len(light) // 8)))
    size = np.bincount(groups)
    means, powers = np.bincount(groups, mean) / size, np.bincount(groups, power) / size
    return tuple(map(float, means)), tuple(map(float, powers))


# --- is it a camera at all --------------------------------------------------------------------------------------


def _quiet(blocks: _Blocks) -> Bools:
    """Mark the blocks with the least structure, at every brightness: a fifth, more where there are few."""
    number = len(blocks.depth)
    groups = _groups(blocks.light[1], max(1, min(12, number // 8)))
    return _least(blocks.relief, groups, min(1.0, max(0.2, 200 / number)))


def _whiteness(blocks: _Blocks) -> tuple[tuple[float, float, float], float]:
    """Return the lag-1 correlations (z, y, x) of the residual and its correlation between distant planes.

    Along an axis the residual is filtered only across it, so that white noise gives 0; medians over quiet blocks.
    """
    quiet = _quiet(blocks)
    z, y, x = (float(np.median(row[quiet])) for row in blocks.lags)
    shared = [float(np.median(row[quiet])) for row in blocks.shared]
    return (z - shared[0], y, x), max(shared)


def _why_not(
    blocks: _Blocks | None, line: _Line | None, level: int, white: tuple[float, float, float], grey: _Grey
) -> str | None:
    """Return why the noise is not photon noise on a camera, or None."""
    if blocks is None:
        return "too few usable voxels for a fit of variance against mean"
    worst = int(np.argmax(np.abs(white)))
    if abs(white[worst]) > WHITE:
        return (
            f"it is not white (neighbours along {'zyx'[worst]} are correlated by {white[worst]:.2f}), as after "
            "resampling, smoothing, denoising or sharpening"
        )
    if line is None:
        return "the variance of the residual cannot be compared with the mean (too little of one or the other varies)"
    if line.gain < 4 * line.error:
        return f"the variance does not rise with the mean (slope {line.gain:.3g}, standard error {line.error:.2g})"
    noise = float(line.variance(np.array([grey.median]))[0])
    if grey.step > 0 and noise < (grey.step / 2) ** 2 and abs(line.gain / grey.step - 1) > 0.15:
        return (
            f"at the median intensity it is smaller ({np.sqrt(noise):.2g}) than half a step of the grey levels "
            f"({grey.step:g}): rounding hides it, as after averaging, denoising or rescaling to few grey levels"
        )
    ratio = blocks.power[level] / line.variance(blocks.mean[level])
    groups = _groups(blocks.light[level], 12)
    bent = [float(ratio[s].mean()) for g in range(12) if (s := line.keep & (groups == g)).sum() >= 20]
    if len(bent) > 3 and float(np.mean(np.abs(np.array(bent) - 1))) > 0.25:
        return "its variance is not a straight line of the mean, as after denoising or a non-linear rescaling"
    thirds = [s for k in range(3) if (s := line.keep & (np.minimum(blocks.depth * 3, 2).astype(int) == k)).sum() >= 30]
    if len(thirds) > 1:
        sizes = [float(ratio[s].mean()) for s in thirds]
        if max(sizes) > 2 * min(sizes):
            return (
                f"at equal intensity its variance changes {max(sizes) / min(sizes):.1f} times along the depth, "
                "as when planes were rescaled or laser and detector were turned up"
            )
    return None


def _effective(blocks: _Blocks | None, white: tuple[float, float, float], grey: _Grey) -> tuple[float, float]:
    """Return a gain and an intercept that give the residual's variance at the median intensity.

    Only axes along which the noise is white are differenced, since a high-pass misses what is correlated.
    """
    variance = 0.0
    if blocks is not None:
        axes = "".join(axis for axis, rho in zip("zyx", white, strict=True) if abs(rho) <= WHITE)
        use = _quiet(blocks)
        near = np.abs(blocks.raw[1] - grey.median)
        use &= near <= np.quantile(near[use], 0.3)
        variance = float(np.median(blocks.dropped[DROPPED.get(axes, 1)][use]))
    # Not higher: voxels below the intercept would turn darker with every iteration of the network.
    intercept = grey.floor if grey.median > grey.floor else grey.low
    reach = grey.median - intercept if grey.median > intercept else grey.high - grey.low
    return max(variance, 1e-6 * reach * reach) / reach, intercept


def _signal_free(blocks: _Blocks, gain: float, grey: _Grey) -> tuple[float, float] | None:
    """Return offset and read noise in grey levels where a flat, dark, unlit region shows them, else None.

    It must be a separate peak of block means at the dark end, no wider than noise makes it; its noise must be that
    of a camera, and symmetric: shot noise of a faint even light would be skewed (third cumulant = gain x variance).
    """
    count, level, third = blocks.raw
    power = blocks.power[0]
    order = np.argsort(level)
    lowest = order[: max(MIN_BLOCKS, len(order) // 20)]
    width = float(np.sqrt(np.median(power[lowest]) / np.median(count[lowest])))
    if width <= 0:
        return None
    ranked = level[order]
    inside = np.searchsorted(ranked, ranked + 4 * width) - np.arange(len(ranked))
    start = int(np.argmax(inside[: max(1, len(ranked) // 2)]))
    offset = float(ranked[start] + 2 * width)
    for _ in range(5):
        peak = np.abs(level - offset) < 3 * width
        if not peak.any():
            return None
        offset = float(np.median(level[peak]))
    number = int(peak.sum())
    below = int((level < offset - 4 * width).sum())
    above = int(((level > offset + 3 * width) & (level < offset + 6 * width)).sum())
    if number < max(MIN_BLOCKS, 0.01 * len(level)) or below > 0.05 * number or above > 0.25 * number:
        return None
    if float(level[peak].std()) > 1.4 * width:
        return None
    variance = float(power[peak].mean())
    skew, error = float(third[peak].mean()), float(third[peak].std() / np.sqrt(number))
    if skew - 2 * error > 0.25 * gain * variance:
        return None
    noise = float(np.sqrt(max(variance - grey.step**2 / 12, 0.0)))
    return (float(level[peak].mean()), noise) if noise <= READ_NOISE * gain else None

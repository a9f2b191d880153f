"""What a camera or scanner adds to whole rows or columns of planes: stripes, alike in all planes or each with its own.

The noise of a pixel is averaged out in the mean of its row, an offset of the row is not: it is power at frequency 0
along the row, beyond that of the next frequencies, up to the Nyquist frequency across the rows, where whatever went
through the optics has faded. So strong, by a Wiener filter, it is taken from the means of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.ndimage import gaussian_filter, median_filter
from scipy.optimize import isotonic_regression

from deepcontrast.noise.fixed_pattern import MIN_PLANES, SIGNIFICANT
from deepcontrast.noise.planes import Floats, Volumes

AXES = (2, 1)  # of (Z, Y, X), along which rows and columns lie
SHORTEST = 32  # px
BESIDE = slice(2, 9)  # frequencies along a line that say how much there is without an offset
LEAST = 0.1  # standard deviation of offsets over that of the pixels' noise, below which they are not seen
ALIKE = 0.5  # correlation of neighbouring planes, beyond that of distant ones, above which it is structure
EVEN = 1 / 3  # variance of the offsets of dark pixels over that of bright ones, from which on they are not of light
CHANCE = 4.0  # standard errors of what distant planes share, up to which it is nothing
LOCAL = 3.0  # px over which pixels are called dark or bright
ENOUGH = 16  # planes in which these are compared
MOST = 4.0  # standard deviations that an offset may have; what stands out more is structure
AROUND = 15  # lines among which it stands out


@dataclass(frozen=True)
class LineNoise:
    """What is known of offsets of lines.

    Attributes:
        deviations: standard deviations of the offsets of rows and of columns that single planes have of their own, in
            grey levels, 0 where there are none.
        fixed: offsets (Y, X) that rows and columns have in all planes, or ``None``.
        notes: sentences.
    """

    deviations: tuple[float, float]
    fixed: NDArray[np.float32] | None
    notes: tuple[str, ...]


def estimate_lines(volumes: Volumes, *, one_size: bool = True) -> LineNoise:
    """Estimate by what offsets whole rows and whole columns of planes differ.

    Args:
        volumes: grey levels, each (Z, Y, X), without empty voxels. Of fewer than 8 planes it cannot be said what all
            have in common: all is their own.
        one_size: whether the planes of all have one size; else nothing is called common either.
    """
    planes = [
        np.asarray(plane)
        for volume in volumes
        for plane in volume
        if min(plane.shape) >= SHORTEST and np.isfinite(plane).all()
    ]
    together = one_size and len(planes) >= MIN_PLANES
    found, notes, fixed = [], [], None
    for axis, name in zip(AXES, ("rows", "columns"), strict=True):
        lines = [plane if axis == AXES[0] else plane.T for plane in planes]
        own, common = _variances(lines) if lines else (0.0, 0.0)
        if own + common > 0 and not _of_all(lines):
            notes.append(
                f"The {name} of a plane differ in brightness, and bright pixels more than dark ones, as where the "
                "light flickers: that is left as it is."
            )
            own = common = 0.0
        if not together:
            own, common = own + common, 0.0
        if common > 0:
            means = np.stack([line.mean(axis=1, dtype=np.float64) for line in lines]).mean(axis=0)
            offsets = np.expand_dims(line_offsets(means[None], np.sqrt(common))[0], axis - 1)
            fixed = offsets if fixed is None else fixed + offsets
            notes.append(
                f"The {name} of all planes have the same offsets (standard deviation {np.sqrt(common):.3g} grey "
                "levels): they are subtracted."
            )
        if own > 0:
            notes.append(
                f"The {name} of a plane differ by offsets of their own (standard deviation {np.sqrt(own):.3g} grey "
                "levels): they are estimated in every plane, and subtracted."
            )
        found.append(float(np.sqrt(own)))
    if fixed is not None:
        fixed = np.broadcast_to(fixed, planes[0].shape).astype(np.float32)
    return LineNoise((found[0], found[1]), fixed, tuple(notes))


def line_offsets(means: NDArray[Any], deviation: float) -> NDArray[np.float32]:
    """Return the offsets (Z, N) of the rows, or of the columns, of every plane, given the mean of each, in grey levels.

    Their mean over a plane is 0. Where the means vary less from line to line than ``deviation`` says, less is returned.
    A line that stands out by more than ``MOST`` deviations holds structure, as a fibre along it: others stand in.
    What all planes have in common is taken from their mean first, in which structure is less than in each.
    """
    means = np.asarray(means, np.float64)
    around = median_filter(means, size=(1, AROUND))
    usual = max(deviation, 1.5 * float(np.median(np.abs(means - around))))
    structure = np.abs(means - around) > MOST * usual
    spectrum = dct(np.where(structure, around, means), norm="ortho", axis=1)
    planes, high = len(spectrum), spectrum.shape[1] // 2
    every = float((spectrum[:, high:] ** 2).mean())
    level, common = min(deviation**2, every), 0.0
    if planes > 1:
        shared = float((spectrum[:, high:].mean(axis=0) ** 2).mean())
        common = min(max((planes * shared - every) / (planes - 1), 0.0), level)
    fixed = _filtered(spectrum.mean(axis=0, keepdims=True), common)
    offsets = idct(fixed + _filtered(spectrum - fixed, level - common), norm="ortho", axis=1)
    return np.asarray(np.clip(offsets, -MOST * deviation, MOST * deviation), np.float32)


def subtract_lines(volume: NDArray[np.float32], deviations: Sequence[float]) -> NDArray[np.float32]:
    """Take from a whole volume (Z, Y, X), in place, the offsets of its rows and columns, of these deviations."""
    means = [volume.mean(axis=axis, dtype=np.float64).astype(np.float32) for axis in AXES]
    for axis, mean, deviation in zip(AXES, means, deviations, strict=True):
        if deviation:
            volume -= np.expand_dims(line_offsets(mean, deviation), axis)
    return volume


def _filtered(spectrum: Floats, level: float) -> Floats:
    """Return the part of spectra (Z, N) that is of offsets of this power, by a Wiener filter.

    Offsets have the same power at all frequencies and structure less at higher ones: so has the sum of both.
    """
    power = isotonic_regression((spectrum[:, 1:] ** 2).mean(axis=0), increasing=False).x
    share = np.concatenate([[0.0], np.clip(level / np.maximum(power, 1e-30), 0, 1)])
    return np.asarray(spectrum * share)


def _variances(planes: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Return the variances of the offsets of rows that planes have of their own, and that all have in common.

    0 where there surely are none, or they are not seen.
    """
    inner, outer, pixels, own, common = [], [], [], [], []
    for shape in {plane.shape for plane in planes}:
        height, width = shape
        basis = dct(np.eye(width), norm="ortho", axis=0)[: BESIDE.stop]
        spectra = np.stack(
            [dct(plane @ basis.T, norm="ortho", axis=0) for plane in planes if plane.shape == shape]
        )  # (Z, N, frequencies along the line)
        middle, high = slice(height // 2, 3 * height // 4), slice(3 * height // 4, height)
        excess = _excess((spectra**2).mean(axis=0)) / width
        inner.append(excess[middle])
        outer.append(excess[high])
        pixels.append(float((spectra[:, high, BESIDE] ** 2).mean()))
        top = spectra[:, height // 2 :]
        far, next_one = (
            float(_excess((top[: len(top) - lag] * top[lag:]).mean(axis=0)).mean()) / width if len(top) > lag else 0.0
            for lag in (max(1, len(top) // 2), 1)
        )
        total = float(excess[height // 2 :].mean())
        enough = len(top) >= MIN_PLANES
        chance = CHANCE * total / np.sqrt(top.shape[1] * len(top) / 2)
        shared = min(far, total) if enough and far > chance else 0.0
        structure = enough and next_one - shared > ALIKE * (total - shared)
        own.append(0.0 if structure else total - shared)
        common.append(shared)
    if not _surely(np.concatenate(inner)) or not _surely(np.concatenate(outer)):
        return 0.0, 0.0
    if np.concatenate(outer).mean() < np.concatenate(inner).mean() / 3:
        return 0.0, 0.0
    least = LEAST**2 * float(np.mean(pixels))
    mine, all_of = float(np.mean(own)), float(np.mean(common))
    return (mine if mine > least else 0.0), (all_of if all_of > least else 0.0)


def _excess(power: Floats) -> Floats:
    """Return how much more there is at frequency 0 along a line than at the next ones, (N,) of (N, frequencies)."""
    return np.asarray(power[:, 0] - power[:, BESIDE].mean(axis=1))


def _surely(excess: Floats) -> bool:
    """Say whether power (n,) is above 0 by more than chance; that of alike offsets scatters by 1.4 times its mean."""
    return bool(excess.mean() > min(SIGNIFICANT / np.sqrt(excess.size), 0.5) * excess.std())


def _of_all(planes: Sequence[NDArray[Any]]) -> bool:
    """Say whether the offsets of rows are there in dark pixels as in bright ones."""
    variance = {False: 0.0, True: 0.0}
    for plane in planes[:: 1 + len(planes) // ENOUGH]:
        height, width = plane.shape
        along = np.cos(np.pi * np.outer(np.arange(width) + 0.5, np.arange(BESIDE.stop)) / width)
        along[:, 1:] *= np.sqrt(2)
        local = gaussian_filter(np.asarray(plane, np.float64), LOCAL)
        bright = local > np.median(local, axis=1, keepdims=True)
        for half in variance:
            there = bright == half
            means = ((plane - local) * there) @ along / np.maximum(there.sum(axis=1, keepdims=True), 1)
            power = dct(means, norm="ortho", axis=0)[height // 2 :] ** 2
            variance[half] += float(_excess(power).mean())
    return variance[False] > EVEN * variance[True]

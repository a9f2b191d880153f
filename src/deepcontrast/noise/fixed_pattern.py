"""What a camera adds to every plane alike: fixed columns, rows and pixels, told from structure and averaged out.

Source: fixed-pattern noise as in photon transfer; the estimate is a Wiener filter whose signal level is measured by
cross-correlating groups of planes far from each other. A camera's pattern is white up to the Nyquist frequency while
whatever went through the optics has faded there, so the level is read where only the camera is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from deepcontrast.errors import InputError
from deepcontrast.noise.planes import Bools, Floats, Masks, Volumes

MIN_PLANES = 8  # below, structure and camera cannot be told apart
PIXEL_PLANES = 32  # below, only rows and columns are estimated
RADIUS = 2.0  # px; the local mean that a voxel is compared with
SIGNIFICANT = 6.0  # standard errors


@dataclass(frozen=True)
class Pattern:
    """An additive pattern (Y, X) in grey levels or None, its kind, and sentences for the report."""

    image: NDArray[np.float32] | None
    kind: str
    notes: tuple[str, ...]


def estimate_pattern(
    volumes: Volumes,
    masks: Masks,
    *,
    gain: float,
    intercept: float,
    least: float,
) -> Pattern:
    """Estimate the additive pattern that all planes (Z, Y, X) share; what looks like structure stays.

    Args:
        volumes: grey levels, each (Z, Y, X).
        masks: usable voxels of the same shapes, or None.
        gain: grey levels per photon, for the weights.
        intercept: grey level of zero variance, for the weights.
        least: the variance of the dark parts, below which it is not taken to fall.

    Returns:
        The pattern; its kind is ``"none"``, ``"rows and columns"`` or ``"pixels"``.
    """
    shapes = {volume.shape[1:] for volume in volumes}
    number = sum(volume.shape[0] for volume in volumes)
    if len(shapes) > 1:
        return Pattern(None, "none", ("The stacks differ in plane size, so no fixed pattern was estimated.",))
    if number < MIN_PLANES or min(next(iter(shapes))) < 16:
        return Pattern(None, "none", (f"Fewer than {MIN_PLANES} planes (or tiny ones) cannot show a fixed pattern.",))
    sums, weights = _grouped_means(volumes, masks, number, gain, intercept, least)
    whole = _spectrum(sums.sum(0), weights.sum(0))
    parts = [_spectrum(s, w) for s, w in zip(sums, weights, strict=True)]
    pairs = [(a, b) for a, b in combinations(range(len(parts)), 2) if b - a > 1]

    shape = whole.shape
    y, x = np.ogrid[: shape[0], : shape[1]]
    level = 0.0
    if number >= PIXEL_PLANES:
        radius = np.maximum(y / shape[0], x / shape[1])
        corner = (y > shape[0] // 2) & (x > shape[1] // 2)
        level = _level(parts, pairs, corner & (radius < 0.75), corner & (radius >= 0.75), 0.0)
    keep = np.zeros(shape)
    if level > 0:
        power = _local_power(whole[1:, 1:] ** 2)
        keep[1:, 1:] = np.clip(level / power, 0, 1)
    kind = "pixels" if level > 0 else "none"
    for zero, index, length in ((y, x, shape[1]), (x, y, shape[0])):
        line = (zero == 0) & (index >= 0)  # row 0 of the spectrum holds the columns, column 0 the rows
        inner, outer = line & (index >= length // 2) & (index < 3 * length // 4), line & (index >= 3 * length // 4)
        strength = _level(parts, pairs, inner, outer, 1.5 * level)
        if strength > 0 and kind == "none":
            kind = "rows and columns"
        strength = strength or level
        if strength > 0:
            power = _local_power(whole[line][None] ** 2)[0]
            weight = np.clip(strength / power, 0, 1)
            weight[0] = 0.0
            keep[line] = weight
    if kind == "none":
        return Pattern(None, kind, ())
    image = idctn(keep * whole, norm="ortho")
    return Pattern(image.astype(np.float32), kind, _describe(image, kind, sums, weights, number))


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


def _grouped_means(
    volumes: Volumes, masks: Masks, number: int, gain: float, intercept: float, least: float
) -> tuple[Floats, Floats]:
    """Return weighted sums and weights (groups, Y, X) of the residual, over groups of consecutive planes.

    A voxel's residual is its difference from the local mean, weighted by the inverse of its variance, so that bright
    structure counts little. Nothing is clipped: that would make sharp edges, white as a camera, of what stays bright.
    """
    groups = 4 if number >= 16 else 3
    shape = volumes[0].shape[1:]
    sums, weights = np.zeros((groups, *shape)), np.zeros((groups, *shape))
    k = 0
    for volume, mask in zip(volumes, masks, strict=True):
        for z in range(volume.shape[0]):
            plane = np.asarray(volume[z], np.float32)
            good = np.isfinite(plane)
            if mask is not None:
                good &= np.asarray(mask[z])
            group, k = k * groups // number, k + 1
            if not good.any():
                continue
            seen = good.astype(np.float32)
            share = 1.0 if good.all() else np.maximum(gaussian_filter(seen, RADIUS), 1e-3)
            local = gaussian_filter(np.where(good, plane, 0), RADIUS) / share
            variance = np.maximum(gain * (local - intercept), least)
            residual = np.where(good, plane - local, 0)
            weight = seen / variance
            sums[group] += weight * residual
            weights[group] += weight
    return sums, weights


def _spectrum(total: Floats, weight: Floats) -> Floats:
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return np.asarray(dctn(mean, norm="ortho"))


def _level(parts: list[Floats], pairs: list[tuple[int, int]], inner: Bools, outer: Bools, above: float) -> float:
    """Return the power that distant groups share at the highest frequencies, 0 where it is not surely a camera's.

    It must exceed ``above`` significantly in both regions, and not fall from the inner to the outer as structure does.
    """
    found = []
    for region in (inner, outer):
        shared = np.mean([parts[a][region] * parts[b][region] for a, b in pairs], axis=0)
        if shared.size < 4:
            return 0.0
        error = float(shared.std() / np.sqrt(shared.size))
        # Squares of a random pattern scatter by 1.4 times their mean, so few coefficients never reach SIGNIFICANT.
        found.append((float(shared.mean()), (float(shared.mean()) - above) / max(error, 1e-30)))
    limit = min(SIGNIFICANT, 0.5 * np.sqrt(outer.sum()))
    if min(z for _, z in found) < limit or found[1][0] < found[0][0] / 3:
        return 0.0
    return min(value for value, _ in found)


def _local_power(power: Floats) -> Floats:
    """Return a power spectrum averaged over its neighbourhood."""
    return np.maximum(gaussian_filter(power, [min(6.0, n / 16) for n in power.shape]), 1e-30)


def _describe(image: Floats, kind: str, sums: Floats, weights: Floats, number: int) -> tuple[str, ...]:
    energy = float(np.mean(image**2))
    means = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
    slopes = [float(np.mean(mean * image)) / energy for mean in means]
    average = sum(slopes) / len(slopes)
    notes = [
        f"A fixed pattern of {kind} (standard deviation {np.sqrt(energy):.3g} grey levels) is the same "
        f"in {number} planes; it is subtracted."
    ]
    if min(slopes) < 0.67 * average or max(slopes) > 1.5 * average:
        notes.append(
            f"The pattern is not equally strong everywhere ({min(slopes) / average:.2f} to {max(slopes) / average:.2f} "
            "times its mean along the stack), so it also depends on the signal or changed; its mean is subtracted."
        )
    return tuple(notes)

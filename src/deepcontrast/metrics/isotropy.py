"""Spectral isotropy ratio: how much of the lateral spectral energy there is along the axis as well."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from deepcontrast.errors import InputError
from deepcontrast.metrics import Measurement

LEAKAGE = 1e-4
"""Of the axial energy: as little along the planes is what the window leaks."""

Array = NDArray[np.float64]


class Wedges(NamedTuple):
    """Power of a volume along the axis and along the planes, from the lowest frequency.

    Attributes:
        frequency: (n,), in cycles per unit of the voxel size, up to the lateral sampling limit.
        axial: (n,), mean power within the half angle of the z axis; NaN where nothing is sampled.
        lateral: (n,), the same of the lateral axes.
    """

    frequency: Array
    axial: Array
    lateral: Array


def isotropy(
    image: NDArray[Any],
    *,
    voxel: tuple[float, ...] | None = None,
    band: tuple[float, float] | None = None,
    half_angle: float = 45.0,
    floor: float | None = None,
) -> tuple[Measurement, ...]:
    """Return the ratio of axial to lateral spectral energy of a volume (Z, Y, X) or an axial section (Z, X).

    The power spectra of all xz and yz sections (mean removed, Hann window) are averaged. Frequencies within the half
    angle of the z axis are axial, those within it of the lateral axis lateral; the energy of either is its mean over
    all frequencies of the band, where those beyond what the planes sample count as 0. A structure without a preferred
    direction under an isotropic microscope has 1; a microscope that blurs or samples coarsely along z less. Noise is
    isotropic and draws the ratio towards 1: compare images of equal noise, choose a band below it, or subtract the
    noise floor.

    The floor is the mean power at all sampled frequencies whose lateral component is beyond ``floor``, whatever their
    axial component. It is subtracted from the power at each sampled frequency of both wedges before the means are
    taken (not from those that count as 0); an axial energy below 0 counts as 0. It is the noise's where that is white;
    of a restored image, whose noise is not, it takes away less.

    Args:
        image: volume (Z, Y, X) or section (Z, X), any unit.
        voxel: size along each axis, any one unit of length; equal sizes where ``None``.
        band: lowest and highest frequency in cycles per that unit. Where ``None``, from two cycles per extent of
            the shorter side, where window and shading end, to the lateral sampling limit. For a known microscope,
            0.25 and 0.9 of its lateral cut-off.
        half_angle: of the wedges in degrees, above 0 and up to 45, where they meet.
        floor: lateral frequency in cycles per that unit beyond which there is noise alone: the lateral cut-off of the
            microscope, below the lateral sampling limit. Nothing is subtracted where ``None``.

    Returns:
        ``isotropy``, from 0; ``None`` with a reason where the image is constant, too small for the band, or
        without lateral energy, or no frequency is sampled beyond the floor's.

    Raises:
        InputError: not one voxel size per axis, or a half angle out of range.

    Source: CARE, supplement, section 2.4.1 and figure 14 (the ratio of axial to lateral spectral energy); the paper
    gives no formula: wedges, window, band and floor are this project's choice.
    """
    sizes = (1.0,) * image.ndim if voxel is None else voxel
    if len(sizes) != image.ndim:
        raise InputError(f"{len(sizes)} voxel sizes for {image.ndim} axes; accepted: one per axis")
    if not 0 < half_angle <= 45:
        raise InputError(f"half angle {half_angle}; accepted: degrees above 0 and up to 45")
    if not np.isfinite(image).all():
        return (Measurement("isotropy", None, "the image has values that are not finite"),)
    if image.size == 0 or image.min() == image.max():
        return (Measurement("isotropy", None, "the image is constant"),)
    axial, lateral = [], []
    for axis in range(1, image.ndim):
        # The other lateral axis, where there is one, counts the sections (Z, lateral axis).
        sections = image[None] if image.ndim == 2 else np.moveaxis(image, 3 - axis, 0)
        energies = _energies(sections, sizes[0], sizes[axis], band, half_angle, floor)
        if isinstance(energies, str):
            return (Measurement("isotropy", None, energies),)
        axial.append(energies[0])
        lateral.append(energies[1])
    if sum(lateral) <= LEAKAGE * max(sum(axial), 0.0):
        return (Measurement("isotropy", None, "there is no lateral energy"),)
    return (Measurement("isotropy", max(sum(axial), 0.0) / sum(lateral)),)


def wedge_spectra(
    image: NDArray[Any], *, voxel: tuple[float, ...] | None = None, half_angle: float = 10.0
) -> Wedges | str:
    """Return the power spectra whose ratio :func:`isotropy` is, or the reason why there are none.

    Frequencies of the xz and the yz sections within the half angle of an axis are averaged in steps of one cycle per
    extent of the shortest side.

    Args:
        image: volume (Z, Y, X) or section (Z, X), any unit.
        voxel: size along each axis, any one unit of length; equal sizes where ``None``.
        half_angle: of the wedges in degrees, above 0 and up to 45.

    Returns:
        The spectra, in squares of the largest absolute value of the image.
    """
    sizes = (1.0,) * image.ndim if voxel is None else voxel
    if not np.isfinite(image).all():
        return "the image has values that are not finite"
    if image.size == 0 or image.min() == image.max():
        return "the image is constant"
    step = 1 / min(n * size for n, size in zip(image.shape, sizes, strict=True))
    last = int((1 + 1e-9) / (2 * sizes[-1]) / step)
    if last < 1:
        return "the image is too small"
    totals, counts = np.zeros((2, last + 1)), np.zeros((2, last + 1))
    for axis in range(1, image.ndim):
        sections = image[None] if image.ndim == 2 else np.moveaxis(image, 3 - axis, 0)
        power = _power(sections, sizes[0], sizes[axis])
        kz, kx = fft.fftfreq(power.shape[0], sizes[0])[:, None], fft.fftfreq(power.shape[1], sizes[axis])
        number = np.rint(np.hypot(kz, kx) / step).astype(np.int64)
        for i, sector in enumerate(_sectors(kz, kx, step / 2, (last + 0.5) * step, half_angle)):
            totals[i] += np.bincount(number[sector], power[sector], last + 1)[: last + 1]
            counts[i] += np.bincount(number[sector], minlength=last + 1)[: last + 1]
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)[:, 1:]
    return Wedges(np.arange(1, last + 1) * step, means[0], means[1])


def _energies(
    sections: NDArray[Any],
    dz: float,
    dx: float,
    band: tuple[float, float] | None,
    half_angle: float,
    floor: float | None,
) -> tuple[float, float] | str:
    """Return mean axial and lateral energy of sections (n, Z, X), or the reason why there is none."""
    planes, columns = sections.shape[1:]
    step_z, step_x = 1 / (planes * dz), 1 / (columns * dx)
    low, high = (2 * max(step_z, step_x), 1 / (2 * dx)) if band is None else band
    kz, kx = fft.fftfreq(planes, dz)[:, None], fft.fftfreq(columns, dx)
    # The same steps without the limits of sampling: how many frequencies there would be.
    all_z, all_x = (step * np.arange(-int(high / step), int(high / step) + 1) for step in (step_z, step_x))
    counts = [int(sector.sum()) for sector in _sectors(all_z[:, None], all_x, low, high, half_angle)]
    if 0 in counts:
        return "the image is too small for the band of frequencies"
    beyond = np.abs(kx) > (math.inf if floor is None else floor)
    if floor is not None and not beyond.any():
        return f"no frequency is sampled beyond the floor's, {floor:.3g}"
    power = _power(sections, dz, dx)
    if floor is not None:
        power -= power[:, beyond].mean()
    sectors = _sectors(kz, kx, low, high, half_angle)
    axial, lateral = (float(power[s].sum()) / n for s, n in zip(sectors, counts, strict=True))
    return axial, lateral


def _power(sections: NDArray[Any], dz: float, dx: float) -> Array:
    """Return the mean power spectrum (Z, X) of sections (n, Z, X), in squares of their largest absolute value."""
    planes, columns = sections.shape[1:]
    window = np.hanning(planes + 2)[1:-1, None] * np.hanning(columns + 2)[1:-1]
    power, largest = np.zeros((planes, columns)), float(np.abs(sections).max())
    for section in sections:
        # Scaled, so that the squares of neither tiny nor huge units leave the range of a float.
        scaled = section / np.float64(largest)
        power += np.abs(fft.fft2((scaled - scaled.mean()) * window)) ** 2
    return np.asarray(power * (dz * dx / (len(sections) * (window**2).sum())))


def _sectors(
    kz: Array, kx: Array, low: float, high: float, half_angle: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    # Frequencies on a border belong to no sector, however the unit of length rounds them.
    more = 1 + 1e-9
    kz, kx = np.abs(kz), np.abs(kx)
    radius = np.hypot(kz, kx)
    inside = (radius > more * low) & (more * radius < high)
    slope = math.tan(math.radians(half_angle))
    return inside & (slope * kz > more * kx), inside & (more * kz < slope * kx)

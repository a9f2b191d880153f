"""How much more a microscope blurs along the axis than along the planes: from the stack's own spectra, or from a PSF.

A network for axial sections learns from lateral ones, which it must be shown as if they were axial. They have the
lateral blur already; what turns a lateral section into an axial one is the blur that comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from deepcontrast.errors import InputError
from deepcontrast.psf import check_psf

Array = NDArray[np.float64]
Kernel = NDArray[np.float32]

SECTIONS = 48
"""Sections of each kind whose spectra are averaged."""
SPAN = 512
"""Pixels of the longest part of a section."""
WIDEST = 1.5
"""The largest standard deviation of the blur that is looked for, in distances of planes."""
ACROSS = 65
"""Frequencies across, from 0 to 0.5 cycles per pixel, that spectra are brought to."""
FEWEST = 4
"""Frequencies that a fit needs."""
TRUSTED = 0.5
"""Root mean square of the misfit, in natural logarithms of power, up to which a fit is believed."""
DARK = 0.03
"""Of the lateral transfer function: where it is smaller than this, nothing can be said of the axial one beside it."""


@dataclass(frozen=True)
class Spectra:
    """Power of axial sections along the axis, and of lateral ones that were blurred and undersampled to be like them.

    Attributes:
        frequency: in cycles per pixel.
        lateral: of lateral sections as they are.
        axial: of axial sections.
        modelled: of lateral sections with the blur, undersampled.
        misfit: root mean square of the difference of the last two, in natural logarithms of power.
    """

    frequency: tuple[float, ...]
    lateral: tuple[float, ...]
    axial: tuple[float, ...]
    modelled: tuple[float, ...]
    misfit: float

    def encode(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)

    @classmethod
    def decode(cls, table: dict[str, Any]) -> Spectra:
        """Return what was stored; the inverse of :meth:`encode`."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        return cls(**fields)


def estimated(frames: Sequence[Any], factor: float) -> tuple[float, Spectra | None]:
    """Return the standard deviation of the Gaussian that makes lateral sections like axial ones, in pixels.

    Power spectra along the axis, of xz and yz sections, are compared with those along y and x of planes, at the same
    frequencies across, where the planes show structure: a blur of standard deviation s takes ``exp(-(2 pi q s)^2)`` of
    the power at frequency q, and what sampling at every ``factor``-th pixel folds back comes to it. The noise is what
    is left at the highest frequencies across. It holds for structure without a preferred direction.

    Args:
        frames: volumes (Z, Y, X) of one kind, sliced only.
        factor: distance of planes in pixels.

    Returns:
        The standard deviation, and the spectra it was found from. Where these do not show it (too few planes, no
        structure, a misfit above ``TRUSTED``) the spectra are ``None`` and it is that of a box of one plane's width.

    Source: the isotropy of structure that CARE's supplement, section 2.4, rests on; the estimate is this project's.
    """
    planes = max(int(frame.shape[0]) for frame in frames)
    length = max(8, round(min(planes * factor, SPAN)))
    axial, lateral, below = _spectra(frames, length)
    unknown = factor / np.sqrt(12.0), None
    if axial is None or len(axial) < FEWEST + 1:
        return unknown
    q = np.arange(len(axial)) / (2 * (len(axial) - 1) * factor) if len(axial) > 1 else np.zeros(1)
    grid = np.arange(len(lateral)) / (2 * (len(lateral) - 1))
    floor_axial, floor_lateral = below
    signal = np.maximum(lateral - floor_lateral, 1e-12 * lateral.max())
    used = slice(1, None)

    def folded(s: float) -> Array:
        total = np.zeros_like(q)
        for m in range(-int(factor / 2) - 1, int(factor / 2) + 2):
            at = np.abs(q + m / factor)
            inside = at <= 0.5
            power = np.exp(np.interp(at, grid, np.log(signal))) * np.exp(-((2 * np.pi * at * s) ** 2))
            total += np.where(inside, power, 0.0)
        return total

    best = (np.inf, 0.0, np.zeros_like(q))
    for s in np.arange(0, WIDEST * factor + 0.025, 0.05):
        model = folded(float(s))
        # How bright axial sections are as a whole depends on what lies across them: the fit is of the shape.
        for scale in np.geomspace(0.2, 5, 61):
            error = np.log(axial[used]) - np.log(scale * model[used] + floor_axial)
            score = float(np.sqrt(np.mean(error**2)))
            if score < best[0]:
                best = (score, float(s), scale * model + floor_axial)
    misfit, s, modelled = best
    if misfit > TRUSTED:
        return unknown
    at, own, found, made = (tuple(row.tolist()) for row in (q, np.interp(q, grid, lateral), axial, modelled))
    return s, Spectra(at, own, found, made, misfit)


def _spectra(frames: Sequence[Any], length: int) -> tuple[Array | None, Array, tuple[float, float]]:
    """Return power along the axis and along planes, at frequencies across where there is structure, and both floors.

    The first is at the frequencies of the planes, from 0 to their Nyquist's; the second from 0 to 0.5 cycles per pixel.
    """
    totals: dict[str, list[Array]] = {"axial": [], "lateral": []}
    for frame in frames:
        for section in _axial_sections(frame):
            totals["axial"].append(_power(section))
        for section in _lateral_sections(frame, length):
            totals["lateral"].append(_power(section))
    shape = min((one.shape for one in totals["axial"]), default=(0, 0))
    if not totals["lateral"] or shape[0] < 3:
        return None, np.zeros(1), (0.0, 0.0)
    axial = _mean_on(totals["axial"], shape[0], ACROSS)
    lateral = _mean_on(totals["lateral"], max(one.shape[0] for one in totals["lateral"]), ACROSS)
    noise = slice(int(0.8 * ACROSS), None)
    floors = float(axial[:, noise].mean()), float(lateral[-len(lateral) // 3 :, noise].mean())
    # Across: above what window and shading leave, below where noise is all there is.
    shown = (lateral[: max(2, len(lateral) // 8)].mean(0) > 4 * floors[1]) & (np.arange(ACROSS) >= 3)
    if shown.sum() < 3:
        return None, np.zeros(1), (0.0, 0.0)
    return axial[:, shown].mean(1), lateral[:, shown].mean(1), floors


def _axial_sections(frame: Any) -> Iterator[Array]:
    """Yield xz and yz sections (Z, pixels) of the middle of a volume."""
    _, height, width = (int(n) for n in frame.shape)
    y0, x0 = max(0, (height - SPAN) // 2), max(0, (width - SPAN) // 2)
    for y in np.unique(np.linspace(y0, min(height, y0 + SPAN) - 1, SECTIONS // 2).astype(int)).tolist():
        yield np.asarray(frame[:, y : y + 1, x0 : x0 + SPAN], np.float64)[:, 0]
    for x in np.unique(np.linspace(x0, min(width, x0 + SPAN) - 1, SECTIONS // 2).astype(int)).tolist():
        yield np.asarray(frame[:, y0 : y0 + SPAN, x : x + 1], np.float64)[:, :, 0]


def _lateral_sections(frame: Any, length: int) -> Iterator[Array]:
    """Yield parts of planes, as long as the volume is deep, along y and along x."""
    planes, height, width = (int(n) for n in frame.shape)
    y0, x0 = max(0, (height - SPAN) // 2), max(0, (width - SPAN) // 2)
    for z in np.unique(np.linspace(0, planes - 1, SECTIONS // 2).astype(int)).tolist():
        plane = np.asarray(frame[z : z + 1, y0 : y0 + SPAN, x0 : x0 + SPAN], np.float64)[0]
        for image in (plane, plane.T):
            rows = min(length, image.shape[0])
            for first in range(0, image.shape[0] - rows + 1, rows):
                yield image[first : first + rows]


def _power(section: Array) -> Array:
    """Return the power spectrum of a section (N, M), at frequencies from 0 up along both axes."""
    rows, columns = section.shape
    window = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[1:-1]
    found = np.abs(fft.rfft2((section - section.mean()) * window)) ** 2 / (window**2).sum()
    half = rows // 2 + 1
    power: Array = found[:half].copy()
    if half > 2:
        inner = slice(1, rows - half + 1)
        power[inner] = (power[inner] + found[-1 : half - 1 : -1][: rows - half]) / 2
    return power


def _mean_on(spectra: Sequence[Array], rows: int, columns: int) -> Array:
    """Return the mean of spectra, each brought to so many frequencies from 0 to the limits of sampling."""
    total = np.zeros((rows, columns))
    for one in spectra:
        places = np.meshgrid(
            np.linspace(0, one.shape[0] - 1, rows), np.linspace(0, one.shape[1] - 1, columns), indexing="ij"
        )
        total += ndimage.map_coordinates(one, places, order=1)
    return total / len(spectra)


def gaussian(sigma: float) -> Kernel:
    """Return a Gaussian along the axis (K, 1) of a standard deviation in pixels, sum 1."""
    half = int(np.ceil(3.5 * sigma))
    kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * max(sigma, 1e-6) ** 2))
    return np.asarray(kernel / kernel.sum(), np.float32)[:, None]


def of_psf(psf: NDArray[Any], voxel_um: Sequence[float], pixel_um: float) -> Kernel:
    """Return what makes of a lateral section an axial one, (axial, lateral), under a point-spread function.

    Transfer functions of sections through the middle of frequency space are those of the point-spread function's
    projections: the axial one along y over the lateral one along z, its modulus at most 1; where the lateral one is
    below ``DARK``, as at the same frequency along the axis in the middle. Of a Gaussian it is the Gaussian of the
    difference of variances.

    Args:
        psf: (Z, Y, X), centred or not; see :func:`deepcontrast.psf.check_psf`.
        voxel_um: its voxel (z, y, x).
        pixel_um: of the image.

    Returns:
        (K, L) on pixels of the image, odd sizes, sum 1.

    Raises:
        InputError: not a PSF, one of planes, or one that is sampled more coarsely than the image.
    """
    spot = check_psf(psf).astype(np.float64)
    if spot.shape[0] < 3:
        raise InputError(f"the PSF has {spot.shape[0]} planes; accepted: a PSF (Z, Y, X) of 3 planes or more")
    coarse = max(voxel_um[1:]) / pixel_um
    if coarse > 1.01:
        raise InputError(
            f"the PSF is sampled at {max(voxel_um[1:]):g} um, the image at {pixel_um:g} um; accepted: as fine or finer"
        )
    halves = [int((n // 2) * v / pixel_um) for n, v in zip(spot.shape, voxel_um, strict=True)]
    at = [
        n // 2 + np.arange(-half, half + 1) * pixel_um / v
        for n, half, v in zip(spot.shape, halves, voxel_um, strict=True)
    ]
    fine = ndimage.map_coordinates(spot, np.meshgrid(*at, indexing="ij"), order=3)
    side = fft.next_fast_len(2 * max(fine.shape) + 1)
    axial, lateral = (_transfer(fine.sum(axis), side) for axis in (1, 0))
    ratio = np.where(np.abs(lateral) > DARK, axial * lateral / np.maximum(lateral**2, DARK**2), np.nan)
    # Where the image has nothing across, as in the middle; along the axis nothing.
    ratio = np.where(np.isfinite(ratio), ratio, np.nan_to_num(ratio[:, :1]))
    kernel = np.fft.fftshift(np.fft.ifft2(np.clip(ratio, -1, 1)).real)
    middle, half_z, half_x = side // 2, fine.shape[0] // 2, fine.shape[2] // 2
    kernel = kernel[middle - half_z : middle + half_z + 1, middle - half_x : middle + half_x + 1]
    return np.asarray(_trimmed(kernel / kernel.sum()), np.float32)


def _transfer(section: Array, side: int) -> Array:
    """Return the transfer function of a centred, symmetric section (odd sizes) on a square grid."""
    padded = np.zeros((side, side))
    rows, columns = section.shape
    padded[:rows, :columns] = section
    padded = np.roll(padded, (-(rows // 2), -(columns // 2)), (0, 1))
    return np.asarray(np.fft.fft2(padded).real)


def _trimmed(kernel: Array, least: float = 0.002) -> Array:
    """Return a kernel without the margins that hold less than a share of its absolute sum, scaled to sum 1."""
    while min(kernel.shape) > 0:
        total = np.abs(kernel).sum()
        cuts = [
            axis
            for axis in (0, 1)
            if kernel.shape[axis] > 1
            and np.abs(np.take(kernel, [0, -1], axis)).sum() < least * total / kernel.shape[axis]
        ]
        if not cuts:
            break
        for axis in cuts:
            kernel = kernel[1:-1] if axis == 0 else kernel[:, 1:-1]
    kept: Array = kernel / kernel.sum()
    return kept


def width_of(kernel: NDArray[Any]) -> float:
    """Return the standard deviation of a kernel (K, L) along the axis, in pixels."""
    along = np.asarray(kernel, np.float64).sum(1)
    at = np.arange(len(along)) - (len(along) - 1) / 2
    return float(np.sqrt(max(0.0, (along * at**2).sum() / along.sum())))

"""Fourier shell (ring) correlation: up to which frequency two images agree, in all directions or about one axis."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from deepcontrast.errors import InputError
from deepcontrast.metrics import Measurement

NAMES = ("fourier_shell_mean", "fourier_shell_resolution")

Array = NDArray[np.float64]


class Shells(NamedTuple):
    """Correlation per shell, from the lowest frequency.

    Attributes:
        frequency: middle of the shell (shells,), cycles per unit of the voxel size.
        correlation: (shells,), from -1 to 1; 0 where one of the images has no energy.
        samples: frequencies of the shell (shells,); each and its negative are both counted.
    """

    frequency: Array
    correlation: Array
    samples: NDArray[np.int64]


def fourier_shell(
    image: NDArray[Any],
    reference: NDArray[Any],
    *,
    voxel: tuple[float, ...] | None = None,
    axis: int = 0,
    wedge: float | None = None,
    threshold: float = 1 / 7,
) -> tuple[Measurement, ...]:
    """Return the mean of the Fourier shell correlation of two images, and the resolution where it falls.

    Args:
        image: volume (Z, Y, X) or section (Y, X) or (Z, X), any unit.
        reference: what to compare with, of the same shape: the truth, or an independent image of the same object.
        voxel: size along each axis, any one unit of length; equal sizes where ``None``.
        axis: about which the wedge opens: 0 is z of a volume.
        wedge: degrees, above 0 and up to 90: frequencies within this angle of the axis alone count (of a volume a
            double cone); all where ``None``.
        threshold: below it the images no longer agree. 1/7 is for two images of equal noise, 1/2 for an image
            against the truth.

    Returns:
        ``fourier_shell_mean``, the mean over the shells of :func:`fourier_shells`, -1 .. 1;
        ``fourier_shell_resolution``, one over the frequency at which the correlation first falls below the threshold
        (interpolated between shells), in units of the voxel size. ``None`` with a reason where an image is constant
        or too small, the latter also where no shell or the first is below the threshold.

    Raises:
        InputError: shapes differ, there are not two or three axes, not one voxel size per axis, or the axis or the
            wedge is none.

    Source: Harauz & van Heel 1986, Optik 73:146; Saxton & Baumeister 1982 (rings); threshold: Rosenthal & Henderson
    2003; wedge: conical FSC, Diebolder et al. 2015. The mean over shells is this project's.
    """
    shells = fourier_shells(image, reference, voxel=voxel, axis=axis, wedge=wedge)
    if isinstance(shells, str):
        return tuple(Measurement(name, None, shells) for name in NAMES)
    mean = Measurement(NAMES[0], float(shells.correlation.mean()))
    below = np.flatnonzero(shells.correlation < threshold)
    if not len(below):
        return (mean, Measurement(NAMES[1], None, f"no shell is below {threshold:.3g}"))
    after = int(below[0])
    if after == 0:
        return (mean, Measurement(NAMES[1], None, f"the first shell is below {threshold:.3g}"))
    (high, low), (near, far) = shells.correlation[after - 1 : after + 1], shells.frequency[after - 1 : after + 1]
    crossing = near + (far - near) * (high - threshold) / (high - low)
    return (mean, Measurement(NAMES[1], float(1 / crossing)))


def fourier_shells(
    image: NDArray[Any],
    reference: NDArray[Any],
    *,
    voxel: tuple[float, ...] | None = None,
    axis: int = 0,
    wedge: float | None = None,
) -> Shells | str:
    """Return the correlation of two images in every shell of frequencies, or the reason why there is none.

    Means are removed and a Hann window along each axis lets the images end at 0, so that their opposite faces do
    not touch. A shell is as wide as the step of frequencies along the shortest side; their middles are at whole
    multiples of it, from 1 to the lateral sampling limit (of the last axis), and
    ``correlation = Re sum(F conj(G)) / sqrt(sum |F|^2 sum |G|^2)`` over its frequencies. Shells in which nothing is
    sampled, as beyond the axial limit in a narrow wedge about z, are left out. The window joins neighbouring
    frequencies: neighbouring shells are not independent.

    Args and errors: as :func:`fourier_shell`.
    """
    sizes = (1.0,) * image.ndim if voxel is None else voxel
    if image.shape != reference.shape or image.ndim not in (2, 3):
        raise InputError(f"images of shapes {image.shape} and {reference.shape}; accepted: one shape of 2 or 3 axes")
    if len(sizes) != image.ndim:
        raise InputError(f"{len(sizes)} voxel sizes for {image.ndim} axes; accepted: one per axis")
    if not 0 <= axis < image.ndim or not (wedge is None or 0 < wedge <= 90):
        raise InputError(
            f"wedge of {wedge} degrees about axis {axis}; accepted: above 0 to 90, about axes 0 to {image.ndim - 1}"
        )
    if min(image.shape) < 4:
        return "an image of fewer than 4 voxels along a side is too small"
    if not (np.isfinite(image).all() and np.isfinite(reference).all()):
        return "there are values that are not finite"
    if min(np.ptp(image), np.ptp(reference)) == 0:
        return "an image is constant"
    frequencies = [
        fft.fftfreq(n, size).reshape([-1 if i == place else 1 for i in range(image.ndim)])
        for place, (n, size) in enumerate(zip(image.shape, sizes, strict=True))
    ]
    radius = np.sqrt(sum(f**2 for f in frequencies))
    step = 1 / min(n * size for n, size in zip(image.shape, sizes, strict=True))
    shell = np.rint(radius / step).astype(np.int64)
    # The limit itself is a frequency of even sides: rounding must not lose its shell.
    inside = (shell >= 1) & (shell * step <= (1 + 1e-9) / (2 * sizes[-1]))
    if wedge is not None:
        inside &= np.abs(frequencies[axis]) >= (1 - 1e-9) * np.cos(np.radians(wedge)) * radius
    if not inside.any():
        return "no frequency is sampled in the wedge"
    ours, theirs = (_spectrum(values)[inside] for values in (image, reference))
    number = shell[inside]
    samples = np.bincount(number)
    shared = np.bincount(number, (ours * theirs.conj()).real)
    energy = np.sqrt(np.bincount(number, np.abs(ours) ** 2) * np.bincount(number, np.abs(theirs) ** 2))
    correlation = np.divide(shared, energy, out=np.zeros_like(shared), where=energy > 0)
    there = np.flatnonzero(samples)
    return Shells(there * step, correlation[there], samples[there])


def _spectrum(values: NDArray[Any]) -> NDArray[np.complex128]:
    # Scaled, so that the squares of neither tiny nor huge units leave the range of a float.
    scaled = values / np.abs(values).max().astype(np.float64)
    windowed = scaled - scaled.mean()
    for place, n in enumerate(values.shape):
        windowed *= np.hanning(n + 2)[1:-1].reshape([-1 if i == place else 1 for i in range(values.ndim)])
    return np.asarray(fft.fftn(windowed), np.complex128)

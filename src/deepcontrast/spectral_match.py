"""Axial frequencies of a restored stack, amplified until it has as much of them as of lateral ones.

What a network is not sure of it makes weak: of fine detail along the axis a restored stack has less than across, by an
amount that the stack itself shows where its structure has no preferred direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

HALF = 12
"""Planes on either side that the kernel reaches."""
MOST = 3.0
"""The largest factor of an amplitude."""
WEDGE = 20.0
"""Degrees about an axis within which frequencies are along it."""
LEAST = 1e-5
"""Of the largest power: what is below is taken for this, so that nothing is made of nothing."""
SMALLEST = 32
"""Voxels of the shortest side of a volume that its spectrum can be judged by."""

Array = NDArray[np.float64]


def matching(volume: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the kernel along Z after which a volume (Z, Y, X) has as much power along Z as along Y and X.

    Power is compared at equal frequencies within ``WEDGE`` degrees of the axes (mean removed, Hann window); amplitudes
    are multiplied by the root of its ratio, at least 1, at most ``MOST``; the kernel is cut off ``HALF`` planes away.
    What is there of a frequency is amplified, nothing is added to it.

    Returns:
        ``2 HALF + 1`` numbers, symmetric, sum 1; a single 1 where the volume is too small.

    Source: the isotropy that CARE's supplement judges by, section 2.4.1; that it is set right is this project's.
    """
    side = min(volume.shape)
    if side < SMALLEST:
        return (1.0,)
    first = [(n - side) // 2 for n in volume.shape]
    cube = volume[tuple(slice(low, low + side) for low in first)].astype(np.float64)
    axial, *lateral = _along_axes(cube - cube.mean())
    across = (lateral[0] + lateral[1]) / 2
    floor = LEAST * across[2:].max()
    gain = np.sqrt((across + floor) / (axial + floor))
    # Below two waves per side the window speaks.
    gain[:3] = 1
    gain = ndimage.gaussian_filter1d(np.clip(gain, 1, MOST), 1.0, mode="nearest")
    length = 4 * HALF + 1
    at = np.interp(np.abs(np.fft.fftfreq(length)), np.arange(len(gain)) / side, gain)
    kernel = np.fft.fftshift(np.fft.ifft(at).real)[HALF : 3 * HALF + 1]
    kernel *= np.hanning(2 * HALF + 3)[1:-1]
    return tuple((kernel / kernel.sum()).tolist())


def _along_axes(cube: Array) -> list[Array]:
    """Return the mean power near each axis of a cube, by frequency from 0 up in waves per side."""
    side = len(cube)
    window = np.hanning(side + 2)[1:-1]
    power = np.abs(fft.rfftn(cube * window[:, None, None] * window[:, None] * window)) ** 2
    k = fft.fftfreq(side) * side
    along = [np.abs(k)[:, None, None], np.abs(k)[None, :, None], np.arange(power.shape[2])[None, None, :].astype(float)]
    radius = np.sqrt(along[0] ** 2 + along[1] ** 2 + along[2] ** 2)
    bins = np.round(radius).astype(int)
    curves = []
    for axis in along:
        near = axis > np.cos(np.deg2rad(WEDGE)) * radius
        count = np.bincount(bins[near], minlength=side)
        total = np.bincount(bins[near], power[near], minlength=side)
        curves.append((total / np.maximum(count, 1))[: side // 2 + 1])
    return curves

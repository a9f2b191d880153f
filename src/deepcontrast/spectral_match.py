"""Axial frequencies of a restored stack, amplified until it has as much of them as of lateral ones.

What a network is not sure of it makes weak: of fine detail along the axis a restored stack has less than across, by an
amount that the stack itself shows where its structure has no preferred direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.metrics.isotropy import wedge_spectra

HALF = 12
"""Planes on either side that the kernel reaches."""
MOST = 5.0
"""The largest factor of an amplitude."""
HALF_ANGLE = 10.0
"""Degrees about an axis of a section within which frequencies are along it."""
LEAST = 1e-5
"""Of the largest power: what is below is taken for this, so that nothing is made of nothing."""
SMALLEST = 32
"""Voxels of the shortest side of a volume that its spectrum can be judged by."""


def matching(volume: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the kernel along Z after which a volume (Z, Y, X) has as much power along Z as along Y and X.

    Power is that of :func:`deepcontrast.metrics.isotropy.wedge_spectra`, at equal frequencies; amplitudes are
    multiplied by the root of its ratio, at least 1, at most ``MOST``; the kernel is cut off ``HALF`` planes away. What
    is there of a frequency is amplified, nothing is added to it.

    Returns:
        ``2 HALF + 1`` numbers, symmetric, sum 1; a single 1 where the volume is too small or shows nothing.

    Source: the isotropy that CARE's supplement judges by, section 2.4.1; that it is set right is this project's.
    """
    spectra = None if min(volume.shape) < SMALLEST else wedge_spectra(volume, half_angle=HALF_ANGLE)
    if spectra is None or isinstance(spectra, str):
        return (1.0,)
    axial, lateral = np.nan_to_num(spectra.axial), np.nan_to_num(spectra.lateral)
    floor = LEAST * float(lateral[1:].max())
    if not floor > 0:
        return (1.0,)
    gain = np.sqrt((lateral + floor) / (axial + floor))
    # Below two waves per side the window speaks.
    gain[:1] = 1
    gain = ndimage.gaussian_filter1d(np.clip(gain, 1, MOST), 1.0, mode="nearest")
    length = 4 * HALF + 1
    at = np.interp(np.abs(np.fft.fftfreq(length)), [0, *spectra.frequency], [1, *gain])
    kernel = np.fft.fftshift(np.fft.ifft(at).real)[HALF : 3 * HALF + 1]
    kernel *= np.hanning(2 * HALF + 3)[1:-1]
    return tuple((kernel / kernel.sum()).tolist())

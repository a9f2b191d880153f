"""The scalar Debye integral of a circular pupil, on and off the axis, also at depth in a medium of another index.

Not its paraxial (Born-Wolf) limit, so that the axial extent holds at high aperture.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import j0, roots_legendre

from deepcontrast.errors import InputError

Lengths = tuple[float, float, float]
Array = NDArray[np.float64]

AIRY = 0.61
"""Radius of the first dark ring in units of wavelength / aperture; an Airy unit is twice that."""
MOST_WAVES = 800
"""Between the middle and the rim of the pupil: beyond, there is no focus left, and the integral takes minutes."""
FOCI = ("brightest", "nominal")
"""What the middle of a grid can be."""


@dataclass(frozen=True)
class Wave:
    """Light of one wavelength that an objective focuses into a sample, or collects from it; lengths in micrometres.

    Attributes:
        na: numerical aperture.
        wavelength: in vacuum.
        index: of the immersion medium, and of the coverslip's design.
        sample_index: of what lies between the coverslip and the point.
        depth: of the point below the coverslip.
    """

    na: float
    wavelength: float
    index: float
    sample_index: float
    depth: float

    @property
    def aperture(self) -> float:
        """Return the numerical aperture that light from the sample fills."""
        return min(self.na, self.sample_index)

    @property
    def is_even(self) -> bool:
        """Return whether the spot is the same on both sides of its focus."""
        return self.depth == 0 or self.sample_index == self.index

    @property
    def band(self) -> tuple[float, float]:
        """Return the axial and the lateral frequency, per micrometre, at which the intensity's spectrum ends."""
        return (
            self.index - sqrt(self.index**2 - self.aperture**2)
        ) / self.wavelength, 2 * self.aperture / self.wavelength


def wave_of(
    na: float, wavelength_um: float, index: float, sample_index: float | None = None, depth_um: float = 0.0
) -> Wave:
    """Return light that can be; the index of the sample is by default that of the immersion.

    Raises:
        InputError: a length that is not positive or not in micrometres, an aperture or a depth that cannot be.
    """
    if not (isfinite(wavelength_um) and wavelength_um > 0):
        raise InputError(f"wavelength {wavelength_um} um; accepted: lengths above 0")
    if wavelength_um > 20:
        raise InputError(f"wavelength {wavelength_um} um; accepted: micrometres, e.g. 0.52 for 520 nm")
    if not 0 < na < index:
        raise InputError(f"numerical aperture {na} in a medium of index {index}; accepted: above 0, below the index")
    if not index <= 4:
        raise InputError(f"index {index} of the immersion; accepted: 1 (air) to 4")
    if sample_index is not None and not 1 <= sample_index <= 4:
        raise InputError(f"index {sample_index} of the sample; accepted: 1 (air) to 4, 1.33 is water")
    if not (isfinite(depth_um) and depth_um >= 0):
        raise InputError(f"depth {depth_um} um below the coverslip; accepted: 0 or more")
    wave = Wave(na, wavelength_um, index, index if sample_index is None else sample_index, depth_um)
    if (waves := _spread(wave) / wavelength_um) > MOST_WAVES:
        raise InputError(
            f"depth {depth_um} um in an index of {sample_index} puts the rim of the pupil {waves:.0f} waves out; "
            f"accepted: up to {MOST_WAVES}"
        )
    return wave


def focus(r: Array, z: Array, wave: Wave) -> Array:
    """Return |U|^2 at radii (R,) and distances of the focal plane from the nominal focus (Z,), as (R, Z).

    U(r, z) is the integral of J0(k sin t r) exp(i k (OPD - index z cos t)) over cos t within the aperture, k = 2 pi /
    wavelength: Born & Wolf, Principles of Optics, section 8.8, without their small-angle step; no apodisation. t is
    the angle in the immersion, s that in the sample, and

        OPD = depth (sample_index cos s - index^2 / sample_index cos t)

    (Gibson & Lanni 1991, J. Opt. Soc. Am. A 8, 1601, equation 5, coverslip and immersion being as designed); of z they
    have the opposite, the thickness of the immersion. At the nominal focus the rays near the axis meet. The value is 1
    where all of the aperture is in phase.
    """
    k = 2 * pi / wave.wavelength
    ratio = wave.aperture / wave.index
    lowest = sqrt(1 - ratio**2)
    phase = k * (wave.index * np.abs(z).max() * (1 - lowest) + np.abs(r).max() * wave.aperture + _spread(wave))
    # Gauss-Legendre is exact for a wave once it has more nodes than half the phase across the interval.
    nodes, weights = roots_legendre(32 + ceil(phase / 2))
    # Over the arc sine of the pupil's radius the integrand is smooth, also where the sample's index cuts the aperture.
    arc = pi / 4 * (1 + nodes)
    radius = np.sin(arc)
    cosine = np.sqrt(1 - (ratio * radius) ** 2)
    weights = weights * radius * np.cos(arc) / cosine
    turned = (weights / weights.sum()) * np.exp(1j * k * wave.depth * _delay(wave, radius))
    field = j0(k * wave.aperture * np.outer(r, radius)) @ (
        turned[:, None] * np.exp(-1j * k * wave.index * np.outer(cosine - 1, z))
    )
    return np.asarray(np.abs(field) ** 2)


def _spread(wave: Wave) -> float:
    """Return the difference of optical paths between the middle and the rim of the filled pupil."""
    middle, rim = _delay(wave, np.array([0.0, 1.0]))
    return wave.depth * abs(float(rim - middle))


def _delay(wave: Wave, radius: Array) -> Array:
    """Return the optical path difference per depth at radii of the filled pupil."""
    sample, index = wave.sample_index, wave.index
    # Rounding may take the rim of a cut aperture beyond the sample's index.
    in_sample = np.sqrt(np.maximum(0, 1 - (wave.aperture * radius / sample) ** 2))
    return np.asarray(sample * in_sample - index**2 / sample * np.sqrt(1 - (wave.aperture * radius / index) ** 2))


def middle_of(centre: str, wave: Wave) -> float:
    """Return where the middle of a grid lies, as a distance of the focal plane from the nominal focus.

    Args:
        centre: "brightest" or "nominal".
        wave: the light.

    Raises:
        InputError: another word.
    """
    if centre not in FOCI:
        raise InputError(f"centre '{centre}' is not understood; accepted: {', '.join(FOCI)}")
    if wave.is_even or centre == "nominal":
        return 0.0
    # Rays at 95 % of the filled aperture's radius meet farther from the nominal focus than any bright focus is.
    sine = 0.95 * wave.aperture
    slope = sqrt(1 - (sine / wave.index) ** 2) / sqrt(1 - (sine / wave.sample_index) ** 2) - 1
    farthest = wave.depth * wave.index / wave.sample_index * slope
    period = 1 / wave.band[0]
    z = np.arange(min(0.0, farthest) - 2 * period, max(0.0, farthest) + 2 * period, period / 20)
    along = focus(np.zeros(1), z, wave)[0]
    top = int(np.clip(np.argmax(along), 1, len(z) - 2))
    before, at, after = along[top - 1 : top + 2]
    # The vertex of the parabola through the highest three.
    return float(z[top] + period / 20 * (before - after) / (2 * (before - 2 * at + after)))

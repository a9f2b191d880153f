"""Zernike polynomials, which describe what tissue and optics do to a wave in the pupil."""

from __future__ import annotations

from math import ceil, factorial, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepcontrast.errors import InputError

HIGHEST = 135
"""The last index that is accepted, of radial order 15: beyond it the sums of factorials lose digits."""


def orders(j: int) -> tuple[int, int]:
    """Return the radial order n and the azimuthal frequency m of an OSA/ANSI index: j = (n (n + 2) + m) / 2.

    Args:
        j: 0 piston, 1 and 2 tilts (y, x), 4 defocus, 3 and 5 astigmatism, 7 and 8 coma, 12 spherical aberration.

    Raises:
        InputError: no whole number, or out of range.

    Source: ANSI Z80.28; Thibos et al. 2002, J. Refract. Surg. 18, S652.
    """
    if j != int(j) or not 0 <= j <= HIGHEST:
        raise InputError(f"Zernike index {j}; accepted: whole numbers from 0 to {HIGHEST} (OSA/ANSI), 12 is spherical")
    n = ceil((sqrt(9 + 8 * j) - 3) / 2)
    return n, 2 * int(j) - n * (n + 2)


def zernike(j: int, rho: ArrayLike, theta: ArrayLike) -> NDArray[np.float64]:
    """Return a Zernike polynomial, of root mean square 1 over the unit disc.

    Args:
        j: OSA/ANSI index, see :func:`orders`.
        rho: radii, 1 at the rim of the pupil.
        theta: angles in radians, of the same shape, from x towards y.

    Returns:
        sqrt(n + 1) R(rho) for m = 0, else sqrt(2 (n + 1)) R(rho) times cos(m theta), or sin(|m| theta) for m < 0.

    Raises:
        InputError: as :func:`orders`.

    Source: Born & Wolf, Principles of Optics, section 9.2.1; norms and signs of ANSI Z80.28.
    """
    n, m = orders(j)
    around = abs(m)
    radius = np.asarray(rho, np.float64)
    square = radius**2
    radial = np.zeros_like(radius)
    for k in range((n - around) // 2 + 1):
        below = factorial(k) * factorial((n + around) // 2 - k) * factorial((n - around) // 2 - k)
        # From the highest power down, in powers of the square.
        radial = radial * square + (-1) ** k * (factorial(n - k) // below)
    radial = radial * radius**around
    if m == 0:
        return np.asarray(sqrt(n + 1) * radial)
    turns = np.asarray(theta, np.float64) * around
    return np.asarray(sqrt(2 * (n + 1)) * radial * (np.cos(turns) if m > 0 else np.sin(turns)))

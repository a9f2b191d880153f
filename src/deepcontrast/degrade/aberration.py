"""What a stretch of tissue does to the wave: planes in focus, seen through random aberrations that grow with depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import pad

from deepcontrast.errors import InputError
from deepcontrast.psf import medium, nyquist
from deepcontrast.psf.debye import AIRY, wave_of
from deepcontrast.stack import Optics

SPREAD = {3: 3.0, 4: 3.0, 5: 3.0, 6: 1.0, 7: 1.0, 8: 1.0, 9: 1.0, 10: 1.0, 11: 1.0, 12: 3.0, 13: 1.0, 14: 1.0}
"""OSA index of a Zernike polynomial to the largest amount that is drawn of it, relative to others: DeAbe draws defocus,
astigmatism and spherical aberration from +-0.15 um and others from +-0.05 um, then scales the whole."""
AIRY_RADII = 8
"""Radii of the first dark ring that light is followed over, beyond the border of an image too."""
FLOOR = 0.01
"""Of the ideal transfer function; where it is smaller nothing is divided by it (DeAbe)."""
NA, WAVELENGTH = 1.1, 532.0
"""Of a microscope that is not known: numerical aperture, and wavelength in nanometres (DeAbe)."""


@dataclass(frozen=True)
class Lens:
    """What of a microscope decides on the size of its spot.

    Attributes:
        na: numerical aperture.
        wavelength_um: in vacuum.
        index: refractive index of the immersion.
        pixel_um: size of a pixel (y, x).
    """

    na: float
    wavelength_um: float
    index: float
    pixel_um: tuple[float, float]

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels (y, x) that light is followed over."""
        y, x = (math.ceil(AIRY_RADII * AIRY * self.wavelength_um / self.na / size) for size in self.pixel_um)
        return y, x


def lens_of(
    optics: Optics, *, na: float | None = None, wavelength: float | None = None, index: float | None = None
) -> Lens:
    """Return what is given, known of the microscope, or else assumed.

    Args:
        optics: what the file knows.
        na: numerical aperture; else that of ``optics``, else 1.1.
        wavelength: of emission in nanometres; else the first of ``optics``, else 532.
        index: refractive index of the immersion; else that of ``optics``, else the usual one for the aperture.

    Returns:
        The lens, its pixels of the size in ``optics``, else a quarter of the wavelength over the aperture.

    Raises:
        InputError: an aperture, a wavelength or an index that cannot be.
    """
    aperture = na or optics.numerical_aperture or NA
    length = (wavelength or (optics.wavelengths[0] if optics.wavelengths else WAVELENGTH)) / 1000
    medium_index = index or optics.refractive_index or medium(aperture)
    wave_of(aperture, length, medium_index)
    finest = nyquist(na=aperture, wavelength_um=length, index=medium_index)[1]
    y, x = (size or finest for size in optics.voxel_size[1:])
    return Lens(aperture, length, medium_index, (y, x))


def aberration(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator,
    rms: tuple[float, float] = (0.5, 2.0),
    na: float | None = None,
    wavelength: float | None = None,
    index: float | None = None,
) -> Tensor:
    """Return the image as it is seen where tissue bends the wave, the more the deeper the plane; its sums stay.

    The wave is a random sum of Zernike polynomials without piston and tilt, one for all planes of a volume but for its
    strength. Every plane is taken for what the same microscope shows in focus without aberrations: its spectrum is
    multiplied by the quotient of the two transfer functions, see :func:`through`. Noise is the caller's.

    Args:
        image: (..., Z, Y, X) or (Y, X), float32; each volume has a wave of its own.
        optics: voxel size, aperture, wavelength, index.
        generator: of the image's device.
        rms: root mean square of the wave over the pupil in radians, at the first and at the last plane, linear between
            them; of one plane the mean of both.
        na, wavelength, index: see :func:`lens_of`.

    Raises:
        InputError: as :func:`lens_of`; a root mean square that cannot be.

    Source: Guo et al. 2025, DeAbe, Nature Communications 16: synthetic aberrations of shallow volumes.
    """
    if not all(math.isfinite(value) and 0 <= value <= 50 for value in rms):
        raise InputError(f"{rms[0]} to {rms[1]} radians of aberration; accepted: 0 to 50 (root mean square)")
    lens = lens_of(optics, na=na, wavelength=wavelength, index=index)
    volumes = image.reshape(-1, image.shape[-3] if image.ndim > 2 else 1, *image.shape[-2:])
    waves = draw_waves(len(volumes), generator, image.device)
    planes = volumes.shape[1]
    seen = torch.empty_like(volumes)
    for z in range(planes):
        strength = rms[0] + (rms[1] - rms[0]) * (z / (planes - 1) if planes > 1 else 0.5)
        seen[:, z] = through(volumes[:, z], strength * waves, lens)[0]
    return seen.view(image.shape)


def draw_waves(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return random aberrations (count, 12) of root mean square 1: amounts of the polynomials of ``SPREAD``.

    Args:
        count: of waves.
        generator: of the device.
        device: of the result.
    """
    parts = 2 * torch.rand(count, len(SPREAD), generator=generator, device=device) - 1
    amounts = torch.stack([most * parts.select(1, n) for n, most in enumerate(SPREAD.values())], dim=1)
    strength: Tensor = amounts.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    return amounts / strength


def through(image: Tensor, waves: Tensor, lens: Lens) -> tuple[Tensor, Tensor]:
    """Return planes as they are seen through aberrations, and how much of the variance of white noise is left.

    The spectrum is multiplied by the transfer function with the aberration over that without, or by the former alone
    where the latter is below ``FLOOR``. No frequency is raised by it, whatever the aberration (Hopkins 1955). All is
    computed on the image's device, so that it can be part of a captured step.

    Args:
        image: (..., Y, X), float32; mirrored at the borders.
        waves: (..., 12) radians, broadcast against the planes.
        lens: the microscope.

    Returns:
        Planes like ``image``, and the share of the variance (...), 1 where there is no aberration.
    """
    height, width = image.shape[-2:]
    rows, columns = min(lens.reach[0], height - 1), min(lens.reach[1], width - 1)
    wide = pad(image.reshape(-1, height, width), (columns, columns, rows, rows), mode="reflect")
    wide = wide.view(*image.shape[:-2], *wide.shape[-2:])
    passed = transfer(waves, (wide.shape[-2], wide.shape[-1]), lens)
    seen = torch.fft.ifft2(torch.fft.fft2(wide) * passed).real
    return seen.narrow(-2, rows, height).narrow(-1, columns, width), passed.abs().square().mean((-2, -1))


def transfer(waves: Tensor, shape: tuple[int, int], lens: Lens) -> Tensor:
    """Return the transfer functions of aberrations over the ideal one, (..., Y, X), in the order of ``torch.fft``.

    A transfer function is the autocorrelation of the pupil, whose wave is of constant brightness but for the 1 / cos t
    of :func:`deepcontrast.psf.aberrated`; the pupil is sampled as finely as light stays within an image of ``shape``.

    Args:
        waves: (..., 12) radians, amounts of the polynomials of ``SPREAD``.
        shape: of the image (Y, X).
        lens: the microscope.
    """
    radii = [lens.na * n * size / lens.wavelength_um for n, size in zip(shape, lens.pixel_um, strict=True)]
    halves = [math.ceil(radius) for radius in radii]
    y, x = (
        torch.arange(-half, half + 1, device=waves.device, dtype=torch.float32) / radius
        for half, radius in zip(halves, radii, strict=True)
    )
    y, x = y.unsqueeze(1), x.unsqueeze(0)
    square = y**2 + x**2
    # The rim is as soft as a sample is wide: half of what lies there is inside.
    inside = ((1 - square.sqrt()) * math.sqrt(radii[0] * radii[1]) + 0.5).clamp(0, 1)
    amplitude = inside / (1 - (lens.na / lens.index) ** 2 * square.clamp(max=1)).sqrt()
    lead = torch.zeros_like(waves.select(-1, 0)).unsqueeze(-1).unsqueeze(-1) * amplitude
    for n, polynomial in enumerate(polynomials(y, x)):
        lead = lead + waves.select(-1, n).unsqueeze(-1).unsqueeze(-1) * polynomial
    grid = [next_fast_len(max(n, 2 * half + min(2 * half, n // 2) + 1)) for n, half in zip(shape, halves, strict=True)]
    ideal = _autocorrelation(torch.complex(amplitude, torch.zeros_like(amplitude)), grid, shape)
    found = _autocorrelation(torch.polar(amplitude.expand_as(lead), lead), grid, shape)
    return torch.where(ideal.abs() < FLOOR, found, found / torch.where(ideal.abs() < FLOOR, 1, ideal))


def polynomials(y: Tensor, x: Tensor) -> list[Tensor]:
    """Return the Zernike polynomials 3 to 14 (OSA), of root mean square 1, at places in the pupil, 1 at its rim.

    Those of :func:`deepcontrast.psf.zernike` written out, for tensors of any device.
    """
    square = y**2 + x**2
    return [
        math.sqrt(6) * 2 * x * y,
        math.sqrt(3) * (2 * square - 1),
        math.sqrt(6) * (x**2 - y**2),
        math.sqrt(8) * (3 * x**2 * y - y**3),
        math.sqrt(8) * (3 * square - 2) * y,
        math.sqrt(8) * (3 * square - 2) * x,
        math.sqrt(8) * (x**3 - 3 * x * y**2),
        math.sqrt(10) * 4 * (x**3 * y - x * y**3),
        math.sqrt(10) * (4 * square - 3) * 2 * x * y,
        math.sqrt(5) * (6 * square**2 - 6 * square + 1),
        math.sqrt(10) * (4 * square - 3) * (x**2 - y**2),
        math.sqrt(10) * (x**4 - 6 * x**2 * y**2 + y**4),
    ]


def _autocorrelation(pupil: Tensor, grid: list[int], shape: tuple[int, int]) -> Tensor:
    """Return the spectrum of the intensity behind a pupil, 1 at frequency 0, at the frequencies of an image."""
    spot = torch.fft.fft2(pupil, s=grid)
    spectrum: Tensor = torch.fft.fft2(spot.real**2 + spot.imag**2)
    spectrum = spectrum / spectrum.narrow(-2, 0, 1).narrow(-1, 0, 1)
    for axis, fine, n in zip((-2, -1), grid, shape, strict=True):
        ends = spectrum.narrow(axis, 0, (n + 1) // 2), spectrum.narrow(axis, fine - n // 2, n // 2)
        spectrum = torch.cat(ends, dim=axis)
    return spectrum

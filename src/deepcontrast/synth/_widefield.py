"""What a widefield microscope makes of a thin, clear cell whose parts are smaller than it resolves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from deepcontrast import psf
from deepcontrast.errors import InputError
from deepcontrast.perlin import perlin
from deepcontrast.synth import Phantom
from deepcontrast.synth._camera import expose, optics_of, photon_scale
from deepcontrast.synth._deep import Volume

Scalar = TypeVar("Scalar", bound=np.generic)

BACKGROUND_UM = 6.0
"""Period of the autofluorescence."""


def check_ranges(what: str, **ranges: tuple[float, float]) -> None:
    """Refuse a range (least, largest) that is upside down.

    Raises:
        InputError: names the first such range.
    """
    for name, (low, high) in ranges.items():
        if low > high:
            raise InputError(f"{name} = {(low, high)} of the {what}; accepted: the least, then the largest")


def check_shares(what: str, **shares: float) -> None:
    """Refuse a share above 1.

    Raises:
        InputError: names the first such share.
    """
    for name, share in shares.items():
        if share > 1:
            raise InputError(f"{name} = {share} of the {what}; accepted: a share, 0 to 1")


def spot(parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the point-spread function (Z, Y, X) of the phantom's microscope, sum 1.

    A stack of one plane is a picture of structures in focus and has that plane of it alone.

    Raises:
        InputError: an aperture the index does not allow, a length that is not positive.
    """
    p = parameters
    optics = {"na": p["na"], "wavelength_um": p["wavelength_um"], "index": p["index"], "voxel_um": p["voxel_um"]}
    planes, rows, columns = psf.support(**optics)
    return psf.widefield((1 if p["shape"][0] == 1 else planes, rows, columns), **optics)


def around(shape: tuple[int, int, int], kernel: NDArray[np.float32]) -> tuple[int, int, int]:
    """Return the shape (Z, Y, X) of a field and of what reaches into it through the point-spread function."""
    z, y, x = (n + k - 1 for n, k in zip(shape, kernel.shape, strict=True))
    return z, y, x


def inside(larger: NDArray[Scalar], shape: tuple[int, int, int]) -> NDArray[Scalar]:
    """Return the middle (Z, Y, X) of a larger volume."""
    starts = [(n - m) // 2 for n, m in zip(larger.shape, shape, strict=True)]
    return larger[tuple(slice(a, a + n) for a, n in zip(starts, shape, strict=True))]


def picture(
    rng: np.random.Generator,
    structure: Volume,
    kernel: NDArray[np.float32],
    mask: NDArray[np.bool_],
    parameters: Mapping[str, Any],
    labels: NDArray[np.int32] | None = None,
) -> Phantom:
    """Return the phantom of a fluorophore density that is larger than the field, as `around` says.

    Truth is the density inside the field, in photons. The microscope blurs it and an autofluorescence (gradient noise
    between 0 and twice its mean) with its point-spread function, beyond which nothing reaches; the camera counts
    photons, multiplies, adds its offset and its read noise.

    Args:
        rng: of the autofluorescence and of the camera's noise.
        structure: density of fluorophores (Z, Y, X), any unit.
        kernel: the point-spread function (Z, Y, X), sum 1.
        mask: where the structures are, on the field.
        parameters: every argument of the phantom; those of optics and camera are used here.
        labels: one number for each object on the field, of those phantoms that have any.

    Raises:
        InputError: so little glows that ``light``, which is a percentile, has no meaning.
    """
    p = parameters
    truth = inside(structure, p["shape"])
    scale = photon_scale(truth, p["light"])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    flat = structure.shape[0] == 1
    periods = [BACKGROUND_UM / v for v in p["voxel_um"]]
    field = perlin(structure.shape[flat:], periods[flat:], generator=generator, octaves=2)
    background = p["light"] * p["autofluorescence"] * (1 + field.clamp(-1, 1).numpy().reshape(structure.shape))
    blurred = fftconvolve(scale * structure + background.astype(np.float32), kernel, mode="valid")
    # Transforms leave a rounding error below 0.
    raw = expose(rng, np.maximum(blurred, 0), p)
    optics = replace(
        optics_of(p, p["voxel_um"]),
        numerical_aperture=p["na"],
        wavelengths=(1e3 * p["wavelength_um"],),
        refractive_index=p["index"],
    )
    return Phantom(raw, scale * truth, mask, optics, p, labels=labels)

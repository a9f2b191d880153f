"""Blur by the point-spread function of a microscope."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import oaconvolve
from torch import Tensor

from deepcontrast.errors import InputError
from deepcontrast.io import open_stack
from deepcontrast.psf import check_psf, confocal, widefield
from deepcontrast.psf.debye import AIRY
from deepcontrast.stack import Optics

AIRY_RADII = 8
"""Radii of the first dark ring that a plane of a point-spread function reaches; 3 % of the light lies outside."""
ALIKE = 0.02
"""By which share pixels of an image and of a point-spread function may differ."""
NANOMETRES = (100.0, 20000.0)
"""Wavelengths of light that there are."""
THIN = 0.01
"""Micrometres of a plane that is in focus."""
KINDS = ("widefield", "confocal", "none")


def convolve(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator | None = None,
    kind: str = "widefield",
    na: float = 1.4,
    wavelength: float = 520.0,
    excitation: float | None = None,
    index: float = 1.515,
    pixel: float = 0.1,
    planes: int = 1,
    file: str = "",
) -> Tensor:
    """Return the image as the microscope sees it, mirrored at the borders; its sum stays.

    Args:
        image: (..., Y, X), float32; (..., Z, Y, X) where ``planes`` is more than 1.
        optics: its voxel size, where it is known, is that of the point-spread function.
        generator: not used; nothing is random.
        kind: ``"widefield"``, ``"confocal"`` with a pinhole of one Airy unit, or ``"none"``: of an image that the same
            microscope took, which is blurred already.
        na: numerical aperture.
        wavelength: of emission in nanometres.
        excitation: wavelength of the laser in nanometres; a confocal microscope needs it.
        index: refractive index of the immersion.
        pixel: side of a pixel in micrometres where ``optics`` does not know; planes are as far apart.
        planes: of the point-spread function, odd: 1 blurs every plane as it is in focus, more mix neighbouring planes.
        file: a measured point-spread function, (Z, Y, X) or (Y, X), instead, with voxels of the image's size.

    Raises:
        InputError: another kind, wrong or missing optics, an even number of planes, a file whose pixels are of another
            size.

    Source: semi-synthetic data, section 3.1, step 1; CARE supplement, section 2.5.1.
    """
    if kind not in KINDS:
        raise InputError(f"a point-spread function of kind '{kind}'; accepted: {', '.join(KINDS)}")
    if planes < 1 or planes % 2 == 0:
        raise InputError(f"{planes} planes of a point-spread function; accepted: odd numbers")
    if kind == "none":
        return image.clone()
    if kind == "confocal" and excitation is None:
        raise InputError("a confocal microscope needs its excitation, in nanometres, e.g. 488")
    for name, length in (("wavelength", wavelength), ("excitation", excitation)):
        if length is not None and not NANOMETRES[0] <= length <= NANOMETRES[1]:
            raise InputError(f"{name} {length:g}; accepted: nanometres, from 100 to 20000, e.g. 520")
    z, y, x = (length or pixel for length in optics.voxel_size)
    if file:
        kernel, (_, *sides) = _measured(file, planes)
        if any(side and abs(side / size - 1) > ALIKE for side, size in zip(sides, (y, x), strict=True)):
            raise InputError(
                f"'{file}' has pixels of {sides[0]} x {sides[1]} um, the image of {y:g} x {x:g} um; accepted: equal "
                "sizes"
            )
        return convolved(image, kernel)
    return convolved(image, computed(kind, na, wavelength, excitation, index, (z, y, x), planes))


def convolved(image: Tensor, kernel: NDArray[np.float32]) -> Tensor:
    """Return an image (..., Y, X), or (..., Z, Y, X), convolved with a kernel (1, Y, X), or (Z, Y, X), of odd sizes."""
    whole = image.cpu().numpy().astype(np.float64)
    kernel = kernel[0] if kernel.shape[0] == 1 else kernel
    axes = tuple(range(whole.ndim - kernel.ndim, whole.ndim))
    reach = [0] * (whole.ndim - kernel.ndim) + [n // 2 for n in kernel.shape]
    padded = np.pad(whole, [(n, n) for n in reach], mode="symmetric")
    shaped = kernel.reshape((1,) * (whole.ndim - kernel.ndim) + kernel.shape).astype(np.float64)
    return torch.from_numpy(oaconvolve(padded, shaped, mode="valid", axes=axes)).to(image)


@lru_cache(maxsize=64)
def computed(
    kind: str,
    na: float,
    wavelength: float,
    excitation: float | None,
    index: float,
    voxel: tuple[float, float, float],
    planes: int,
) -> NDArray[np.float32]:
    """Return a point-spread function (planes, Y, X) of sum 1, of arguments as :func:`convolve` takes them.

    A single plane is that in focus, however far apart the planes of the image are.
    """
    voxel = voxel if planes > 1 else (THIN, *voxel[1:])
    # Wrong apertures are refused where the function is computed.
    cone = na / math.sqrt(max(index**2 - na**2, 1e-6))
    reach = AIRY_RADII * AIRY * wavelength / 1000 / na + planes // 2 * voxel[0] * cone
    height, width = (2 * math.ceil(reach / size) + 1 for size in voxel[1:])
    shape = (planes, height, width)
    if kind == "confocal" and excitation is not None:
        return confocal(
            shape, na=na, emission_um=wavelength / 1000, excitation_um=excitation / 1000, index=index, voxel_um=voxel
        )
    return widefield(shape, na=na, wavelength_um=wavelength / 1000, index=index, voxel_um=voxel)


@lru_cache(maxsize=4)
def _measured(file: str, planes: int) -> tuple[NDArray[np.float32], tuple[float | None, float | None, float | None]]:
    """Return so many planes around the focus of a measured point-spread function, of sum 1, and its voxel size."""
    stack = open_stack(Path(file))
    whole = check_psf(stack.volume())
    middle = len(whole) // 2
    if planes > len(whole):
        raise InputError(f"{planes} planes of '{file}', which has {len(whole)} around its focus")
    part = whole[middle - planes // 2 : middle + planes // 2 + 1]
    return np.asarray(part / part.sum(), np.float32), stack.optics.voxel_size

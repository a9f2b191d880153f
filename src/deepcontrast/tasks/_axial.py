"""What a microscope does along the axis of the stacks of a training: distance of planes, blur, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast import axial_blur, psf
from deepcontrast.axial_blur import Spectra
from deepcontrast.degrade.undersample import undersample
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack
from deepcontrast.noise import estimate_camera
from deepcontrast.noise.recorruption import recorrupt
from deepcontrast.noise.thinning import thin
from deepcontrast.progress import Progress
from deepcontrast.sampling import sample_planes
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source

FIT_PLANES = 64
"""Planes that the noise is estimated from, at most."""


NARROWEST = 0.3
"""Pixels of a blur along the axis, on top of the lateral one, below which a PSF is refused and an estimate doubted."""


class Settings(Protocol):
    """What a user says of the axis; see the ``Params`` of the task ``isotropic``."""

    @property
    def psf(self) -> str: ...
    @property
    def na(self) -> float | None: ...
    @property
    def wavelength_nm(self) -> float | None: ...
    @property
    def index(self) -> float | None: ...
    @property
    def psf_voxel(self) -> tuple[float, float, float] | None: ...
    @property
    def noise(self) -> bool: ...
    @property
    def thin(self) -> float: ...


@dataclass(frozen=True)
class Axial:
    """How planes lie and what the microscope does along the axis; lengths in pixels, grey levels.

    Attributes:
        kernel: the blur that turns a lateral section into an axial one, rows (along the axis) of columns, sum 1.
        gain, zero: the noise of a grey level g has the variance ``gain (g - zero)``; no noise where the gain is 0.
        thin: share of the photons that inputs are made of, the target being the others; 0 where both are made of all.
        means, variances: of noise that is not of photons, at which grey levels it has which variance.
        known: whether that is the kernel, or a guess.
        how: what the kernel is from, in words.
        spectra: that it was estimated from.
    """

    kernel: tuple[tuple[float, ...], ...]
    gain: float
    zero: float
    thin: float
    means: tuple[float, ...]
    variances: tuple[float, ...]
    known: bool
    how: str
    spectra: Spectra | None = None

    @property
    def noise(self) -> Optics:
        """Return the noise as the degradations take it."""
        return Optics(gain=self.gain, offset=self.zero)

    def halves(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what an input is made of and its target, whose noise is independent where that can be."""
        if not self.thin:
            return image, image
        if self.means:
            return recorrupt(image, self.means, self.variances, generator=generator, share=self.thin)
        return thin(image, self.noise, generator=generator, share=self.thin)

    def along(self, image: Tensor, factor: float, generator: torch.Generator, phase: Tensor | None = None) -> Tensor:
        """Return an image, or what of its photons an input is made of, as if its rows lay along the axis."""
        return undersample(
            image, self.noise, generator=generator, kernel=self.kernel, factor=factor, phase=phase,
            noisier=1 / (self.thin or 1.0),
        )  # fmt: skip

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Axial:
        """Return what was stored."""
        spectra = table["spectra"]
        kernel = tuple(map(tuple, table["kernel"]))
        fields = {
            **table,
            "kernel": kernel,
            "means": tuple(table["means"]),
            "variances": tuple(table["variances"]),
            "spectra": None if spectra is None else Spectra.decode(spectra),
        }
        return cls(**fields)


def distance_of_planes(stack: Stack, factor: float | None) -> float:
    """Return the distance of planes in pixels.

    Raises:
        InputError: it is not known, or below 1.
    """
    z, _, x = stack.optics.voxel_size
    if factor is not None:
        if z and x and abs(z / x / factor - 1) > 0.01:
            raise InputError(
                f"task.factor is {factor:g}, the voxels of '{stack.source}' say {z / x:.3g}; leave task.factor out, or "
                "give --voxel-size Z,Y,X"
            )
        return factor
    if not z or not x:
        raise InputError(
            f"'{stack.source}' does not say how far apart its planes are; give --voxel-size Z,Y,X, or for planes 5 "
            "pixels apart --set task.factor=5"
        )
    if z < 0.999 * x:
        raise InputError(
            f"the planes of '{stack.source}' are {z:g} um apart, its pixels {x:g} um: {z / x:.3g} times as far; "
            "accepted: 1 or more times"
        )
    return max(1.0, z / x)


def axial_of(sources: Sequence[Source], factor: float, settings: Settings, progress: Progress) -> Axial:
    """Return what the microscope does along the axis.

    Raises:
        InputError: a PSF that is none, or optics that are not known.
    """
    spectra, known = None, True
    if settings.psf == "estimated":
        sigma, spectra = axial_blur.estimated([source.frame for source in sources], factor)
        kernel = axial_blur.gaussian(sigma)
        how = f"axial blur on top of the lateral one, estimated from the spectra: Gaussian, sigma {sigma:.2f} pixels"
        if spectra is not None and sigma < NARROWEST:
            how += (
                "; axial sections are as sharp as the planes: either the microscope blurs no more along the axis, or "
                "structures are flatter along it, and then the result shows what is not there"
            )
        if spectra is None:
            known = False
            how = (
                "the spectra do not show the axial blur (too few planes, too little structure, or one with a preferred "
                f"direction); taken to be one plane wide: Gaussian, sigma {sigma:.2f} pixels; give --psf FILE"
            )
    else:
        pixel = sources[0].stack.optics.voxel_size[2]
        if not pixel:
            raise InputError(
                f"'{sources[0].stack.source}' has no pixel size, which a PSF needs; give --voxel-size Z,Y,X"
            )
        spot, voxel, name = _spot(sources[0].stack, sources[0].c, pixel, settings)
        kernel = axial_blur.of_psf(spot, voxel, pixel)
        width = axial_blur.width_of(kernel)
        if width < NARROWEST:
            raise InputError(
                f"{name} is no wider along the axis than across; accepted: one whose first axis is Z, of the right "
                "voxel size"
            )
        how = f"axial blur on top of the lateral one is that of {name}, sigma {width:.2f} pixels"
    rows = tuple(map(tuple, kernel.tolist()))
    if not settings.noise:
        return Axial(rows, 0.0, 0.0, 0.0, (), (), known, how, spectra)
    _, planes, valid, _ = sample_planes(sources, FIT_PLANES, progress)
    camera, _ = estimate_camera(planes, valid=valid, remove_pattern=False)
    gain, zero, thin = camera.gain * (camera.spread or 1.0), camera.intercept, settings.thin
    means: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()
    if camera.spread is None and thin:
        if camera.white_in_plane:
            brightest = max(float(plane.max()) for plane in planes)
            means, variances = _up_to(brightest, camera.means, camera.variances)
        else:
            thin = 0.0
            how += "; noise is neither of photons nor independent from pixel to pixel: targets keep it"
    return Axial(rows, float(gain), float(zero), thin, means, variances, known, how, spectra)


def _up_to(
    brightest: float, means: tuple[float, ...], variances: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the variance of the noise up to the brightest grey level, where it goes on along a line through all of it.

    It was measured where there is the least structure, which is where it is dark.
    """
    if brightest <= means[-1] or len(means) < 3:
        return means, variances
    slope = max(0.0, float(np.polyfit(means, variances, 1)[0]))
    return (*means, brightest), (*variances, variances[-1] + slope * (brightest - means[-1]))


def _spot(
    stack: Stack, c: int, pixel: float, settings: Settings
) -> tuple[NDArray[Any], tuple[float, float, float], str]:
    """Return a point-spread function, its voxel, and what it is from."""
    optics = stack.optics
    if settings.psf not in ("widefield", "confocal"):
        given = open_stack(Path(settings.psf))
        if given.size("T") > 1 or given.size("C") > 1:
            raise InputError(f"the PSF '{settings.psf}' is {given.axes}; accepted: ZYX")
        voxel = settings.psf_voxel or given.optics.voxel_size
        if not all(voxel):
            raise InputError(
                f"the PSF '{settings.psf}' does not say its voxel size; give --set task.psf_voxel=[Z,Y,X] in um"
            )
        z, y, x = (float(v or 0) for v in voxel)
        # What a camera counted is the image of a bead; what was computed has no background.
        spot = psf.of_bead(given.volume()) if given.dtype.kind in "iu" else given.volume()
        return spot, (z, y, x), f"the PSF '{settings.psf}'"
    waves = optics.wavelengths
    wave = settings.wavelength_nm or (waves[c] if c < len(waves) else None)
    na, index = settings.na or optics.numerical_aperture, settings.index or optics.refractive_index
    if not na or not wave or not index:
        missing = [key for key, value in (("na", na), ("wavelength_nm", wave), ("index", index)) if not value]
        raise InputError(
            f"a {settings.psf} PSF needs {', '.join(missing)}, which '{stack.source}' does not say; give --set "
            + " --set ".join(f"task.{key}=..." for key in missing)
        )
    um, voxel = wave / 1000, (pixel, pixel, pixel)
    shape = psf.support(na=na, wavelength_um=um, index=index, voxel_um=voxel)
    if settings.psf == "widefield":
        made = psf.widefield(shape, na=na, wavelength_um=um, index=index, voxel_um=voxel)
    else:
        made = psf.confocal(shape, na=na, excitation_um=um, emission_um=um, index=index, voxel_um=voxel)
    return made, voxel, f"a {settings.psf} microscope of aperture {na:g} at {wave:g} nm, index {index:g}"

"""``deepcontrast psf``: a point-spread function from optics or from beads, written as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import psf
from deepcontrast.errors import InputError
from deepcontrast.io import container_suffix, find_images, write_stack
from deepcontrast.jobs.images import check_target, open_image
from deepcontrast.jobs.say import Say
from deepcontrast.psf.debye import Lengths
from deepcontrast.psf.voxels import Shape
from deepcontrast.stack import Optics, Stack

NEEDED = {
    "widefield": ("wavelength",),
    "confocal": ("wavelength", "excitation"),
    "two-photon": ("excitation",),
    "light-sheet": ("wavelength", "sheet"),
}
"""What every kind needs besides the objective."""
ALSO = {"confocal": ("pinhole",)}
MOST = 2**27
"""Voxels of a PSF: half a gigabyte of float32."""


@dataclass(frozen=True)
class Microscope:
    """What a user says of a microscope; ``None`` where nothing is said.

    Attributes:
        kind: widefield, confocal, two-photon or light-sheet.
        na: numerical aperture.
        index: refractive index of the immersion.
        wavelength, excitation: of emission and laser, in nanometres.
        pinhole: diameter in Airy units.
        sheet: thickness of the light sheet in micrometres.
        sample_index: refractive index of the sample.
        depth: of the point below the coverslip in micrometres.
        zernike: aberrations, OSA index to radians (root mean square).
    """

    kind: str | None = None
    na: float | None = None
    index: float | None = None
    wavelength: float | None = None
    excitation: float | None = None
    pinhole: float | None = None
    sheet: float | None = None
    sample_index: float | None = None
    depth: float | None = None
    zernike: Mapping[int, float] | None = None

    def given(self) -> list[str]:
        """Return the names of what is said."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def make_psf(
    out: Path,
    microscope: Microscope,
    *,
    voxel_um: Lengths | None = None,
    shape: Shape | None = None,
    beads: Sequence[Path] = (),
    overwrite: bool = False,
    say: Say = print,
) -> None:
    """Write a point-spread function, float32, sum 1, with its voxel size, and say what it is.

    Raises:
        InputError: optics that cannot be or are not complete, an image without beads, no voxel size.
        OutputExistsError: ``out`` is there.
    """
    container_suffix(out)
    check_target(out, list(beads), overwrite=overwrite)
    if shape is not None and prod(shape) > MOST:
        raise InputError(f"--shape {shape} has {prod(shape)} voxels; accepted: up to {MOST}")
    if beads:
        spot, voxel = _of_beads(beads, microscope, voxel_um, shape, say)
    else:
        if voxel_um is None:
            raise InputError("a PSF from optics needs --voxel-size Z,Y,X, in micrometres")
        spot, voxel = _of_optics(microscope, voxel_um, shape), voxel_um
    z, y, x = psf.fwhm(spot, voxel)
    size = " x ".join(map(str, spot.shape))
    across = None if y is None or x is None else (y + x) / 2
    say(f"{size} voxels of {voxel[0]:g} x {voxel[1]:g} x {voxel[2]:g} um (z, y, x), sum {spot.sum(dtype=float):.6f}")
    say(f"full width at half maximum: lateral {_words(across)}, axial {_words(z)}")
    for warning in _coarse(microscope, voxel):
        say(warning)
    out.parent.mkdir(parents=True, exist_ok=True)
    wave = microscope.wavelength or microscope.excitation
    optics = Optics(
        voxel_size=voxel,
        numerical_aperture=microscope.na,
        refractive_index=microscope.index,
        wavelengths=() if wave is None else (wave,),
    )
    write_stack(out, Stack(spot, "ZYX", optics))
    say(f"done: {out}")


def _words(width: float | None) -> str:
    return "wider than the grid" if width is None else f"{width:.3g} um"


def _of_optics(microscope: Microscope, voxel_um: Lengths, shape: Shape | None) -> NDArray[np.float32]:
    kind = microscope.kind or "widefield"
    if kind not in NEEDED:
        raise InputError(f"--kind '{kind}' is not understood; accepted: {', '.join(NEEDED)}")
    given = microscope.given()
    needed = ("na", "index", *NEEDED[kind])
    if missing := [name for name in needed if name not in given]:
        raise InputError(f"a {kind} PSF needs {', '.join('--' + name for name in missing)}")
    wasted = [name for name in given if name in ("wavelength", "excitation", "pinhole", "sheet")]
    wasted = [name for name in wasted if name not in (*needed, *ALSO.get(kind, ()))]
    if wasted:
        raise InputError(f"--{wasted[0]} has no effect on a {kind} PSF; leave it out, or choose another --kind")
    if (microscope.sample_index is None) != (microscope.depth is None):
        raise InputError("--sample-index and --depth have an effect together only; give both, or none of them")
    if microscope.zernike is not None and (kind == "confocal" or microscope.depth is not None):
        other = "a confocal PSF" if kind == "confocal" else "--depth"
        raise InputError(
            f"--zernike does not go with {other}; accepted: with widefield, two-photon or light-sheet, without --depth"
        )
    na, index = float(microscope.na or 0), float(microscope.index or 0)
    # The laser's for two photons; the longer one elsewhere.
    longest = _um(microscope.excitation if kind == "two-photon" else microscope.wavelength, "wavelength")
    size = shape or psf.support(na=na, wavelength_um=longest, index=index, voxel_um=voxel_um)
    if prod(size) > MOST:
        raise InputError(f"these optics and voxels need {size} voxels; accepted: up to {MOST}, give --shape Z,Y,X")
    optics: dict[str, Any] = {"na": na, "index": index, "voxel_um": voxel_um}
    if microscope.zernike is not None:
        return psf.aberrated(
            size,
            wavelength_um=longest,
            aberrations=microscope.zernike,
            sheet_um=microscope.sheet,
            photons=2 if kind == "two-photon" else 1,
            **optics,
        )
    if microscope.depth is not None:
        optics |= {"sample_index": microscope.sample_index, "depth_um": microscope.depth}
    if kind == "widefield":
        return psf.widefield(size, wavelength_um=longest, **optics)
    if kind == "two-photon":
        return psf.two_photon(size, excitation_um=longest, **optics)
    if kind == "light-sheet":
        return psf.light_sheet(size, wavelength_um=longest, sheet_um=float(microscope.sheet or 0), **optics)
    excitation = _um(microscope.excitation, "excitation")
    pinhole = 1.0 if microscope.pinhole is None else microscope.pinhole
    return psf.confocal(size, excitation_um=excitation, emission_um=longest, pinhole=pinhole, **optics)


def _um(nanometres: float | None, option: str) -> float:
    """Return a wavelength in micrometres."""
    if nanometres is None or not 100 <= nanometres <= 20_000:
        raise InputError(f"--{option} {nanometres:g}; accepted: nanometres, from 100 to 20000, e.g. 520")
    return nanometres / 1000


def _of_beads(
    paths: Sequence[Path], microscope: Microscope, voxel_um: Lengths | None, shape: Shape | None, say: Say
) -> tuple[NDArray[np.float32], Lengths]:
    """Return the mean over all beads of all images, and its voxel."""
    wasted = [name for name in microscope.given() if name not in ("na", "index", "wavelength", "excitation")]
    if wasted:
        raise InputError(
            f"--{wasted[0].replace('_', '-')} has no effect with --bead; accepted beside it: --na, --wavelength, "
            "--excitation and --index, for the warning of coarse voxels"
        )
    spots, counts, voxels = [], [], []
    for file in [file for path in paths for file in find_images(path)]:
        image = open_image(file, voxel_size=voxel_um)
        if image.size("T") > 1 or image.size("C") > 1:
            raise InputError(f"the image of beads '{file}' is {image.axes}; accepted: ZYX")
        if not all(image.optics.voxel_size):
            raise InputError(f"'{file}' does not say its voxel size; give --voxel-size Z,Y,X")
        voxels.append(image.optics.voxel_size)
        if not np.allclose(np.array(voxels[-1], float), np.array(voxels[0], float), rtol=0.01):
            raise InputError(
                f"the voxels of '{file}' are {voxels[-1]} um, of the first image {voxels[0]}; accepted: the same"
            )
        try:
            found = psf.measured(image.volume(), shape=shape)
        except InputError as error:
            raise InputError(f"'{file}': {error}") from error
        left = f", {found.left_out} left out" if found.left_out else ""
        say(f"{file}: {found.beads} bead{'s' * (found.beads != 1)}{left}")
        spots.append(found.psf)
        counts.append(found.beads)
    common = [min(sizes) for sizes in zip(*(spot.shape for spot in spots), strict=True)]
    middles = [
        spot[tuple(slice((n - kept) // 2, (n + kept) // 2) for n, kept in zip(spot.shape, common, strict=True))]
        for spot in spots
    ]
    mean = np.average(middles, axis=0, weights=counts)
    z, y, x = (float(size or 0) for size in voxels[0])
    return np.asarray(mean / mean.sum(), np.float32), (z, y, x)


def _coarse(microscope: Microscope, voxel_um: Lengths) -> list[str]:
    """Return warnings where voxels are too large for what the microscope shows.

    A confocal microscope shows at least what the laser's spot does, however wide its pinhole is.
    """
    squared = microscope.kind == "two-photon"
    of_laser = squared or microscope.kind == "confocal"
    wave = microscope.excitation if of_laser else microscope.wavelength or microscope.excitation
    if microscope.na is None or microscope.index is None or wave is None:
        return []
    limits = psf.nyquist(na=microscope.na, wavelength_um=_um(wave, "wavelength"), index=microscope.index)
    axial, lateral = (limit / 2 if squared else limit for limit in limits)
    sizes = (("lateral", max(voxel_um[1:]), lateral), ("axial", voxel_um[0], axial))
    return [
        f"warning: {name} voxels of {size:g} um are coarser than Nyquist's limit, {limit:.3g} um; finer detail is lost"
        for name, size, limit in sizes
        if size > limit
    ]

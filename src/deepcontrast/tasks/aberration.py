"""Learn to undo aberrations that a stack itself has more of the deeper it is: its shallow planes are the truth.

Input are shallow planes seen through random aberrations, dimmed and with shot noise; target is what they were; the
whole stack is restored. No ground truth. The estimates and the bank are those of the task ``contrast``.

Source: Guo et al. 2025, DeAbe, Nature Communications 16 (volumes there, planes here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from deepcontrast.config import Config
from deepcontrast.degrade.aberration import Lens, draw_waves, lens_of, through
from deepcontrast.degrade.camera import camera
from deepcontrast.depth import middle
from deepcontrast.errors import InputError
from deepcontrast.io.view import Box, Lazy
from deepcontrast.noise.recorruption import recorrupt
from deepcontrast.noise.thinning import thin
from deepcontrast.progress import Progress, silent
from deepcontrast.stack import Stack
from deepcontrast.task import Bank, Source
from deepcontrast.tasks import _contrast_bank, _contrast_fit, contrast
from deepcontrast.tasks._as_it_is import on_grid, paired
from deepcontrast.tasks._contrast_fit import clean, cleaned, windowed
from deepcontrast.tasks._planes import build, geometry
from deepcontrast.tasks.contrast import bounds, left, of_pair, own_norm, restore, unlike

__all__ = [
    "BESIDE",
    "DEEP",
    "PAIRED",
    "SIMULATED",
    "Fit",
    "Params",
    "bounds",
    "build",
    "clean",
    "cleaned",
    "degrade",
    "example",
    "fit",
    "geometry",
    "left",
    "of_pair",
    "on_grid",
    "own_norm",
    "paired",
    "prepare",
    "restore",
    "sample",
    "unlike",
    "windowed",
]

PAIRED = False
DEEP = True
SIMULATED = False
BESIDE: tuple[str, ...] = ()
DIMMEST = 0.05
"""Brightness of the deepest planes, as a share of that of the shallow ones, below which nothing is trained for."""


class Params(_contrast_fit.Recorded):
    """The ``[task]`` table: that of :class:`deepcontrast.tasks._contrast_fit.Recorded`, and the aberrations.

    shallow: share of the depth, from the surface on, whose planes are taken for sharp.
    rms: largest root mean square of the wave over the pupil, in radians; from none to this is drawn.
    na, wavelength_nm, index: numerical aperture, emission wavelength and refractive index of the immersion, where the
        file does not say them, or says them wrongly; else 1.1, 532 nm, and the index that is usual for the aperture.
    """

    shallow: float = Field(0.25, gt=0, le=1)
    rms: float = Field(2.0, gt=0, le=10)
    na: float | None = Field(None, gt=0)
    wavelength_nm: float | None = Field(None, gt=0)
    index: float | None = Field(None, ge=1, le=4)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit(_contrast_fit.Fit):
    """Every number of one channel that training and prediction need; there is no haze.

    Attributes:
        lens: the microscope.
        shallow: depth down to which planes are taken for sharp.
        dimmest: brightness of structure where it is dimmest, as a share of that of the shallow planes.
    """

    lens: Lens
    shallow: float
    dimmest: float

    @classmethod
    def decode(cls, table: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Fit:
        """Return the fit that was stored."""
        lens = {**table["lens"], "pixel_um": tuple(table["lens"]["pixel_um"])}
        own = {"lens": Lens(**lens), "shallow": table["shallow"], "dimmest": table["dimmest"]}
        recorded = {key: value for key, value in table.items() if key not in own}
        return _with(_contrast_fit.Fit.decode(recorded, arrays), **own)


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Estimate camera, scale and split as the task ``contrast`` does, and find the planes that are taken for sharp.

    Raises:
        InputError: as the task ``contrast``; optics that cannot be.
    """
    params = Params(**config.task)
    found = _contrast_fit.fit(sources, _recorded(config), progress=progress)
    optics, c = sources[0].stack.optics, sources[0].c
    own = optics.wavelengths[c : c + 1]
    lens = lens_of(replace(optics, wavelengths=own), na=params.na, wavelength=params.wavelength_nm, index=params.index)
    low, high = found.depth_range
    first = min((np.sort(source.depth) for source in sources), key=lambda depth: float(depth[0]))
    fewest = len(found.layers)
    if len(first) < fewest:
        raise InputError(
            f"'{sources[0].stack.source}' has {len(first)} planes; accepted: {fewest}, of which each is restored with "
            f"{found.layers[-1]} above and below, or a smaller net.context"
        )
    shallow = max(low + params.shallow * (high - low), float(first[fewest - 1]))
    depth, bright = np.array(found.plane_depth), np.array(found.plane_scale)
    # Planes are sampled, and none of them may be so shallow.
    top = float(np.median(bright[depth <= max(shallow, float(depth[0]))]))
    assumed = [
        f"{name} {value:.4g}{unit}"
        for name, value, unit, known in (
            ("aperture", lens.na, "", params.na or optics.numerical_aperture),
            ("wavelength", 1000 * lens.wavelength_um, " nm", params.wavelength_nm or own),
            ("index", lens.index, "", params.index or optics.refractive_index),
            ("pixel", lens.pixel_um[1], " um", optics.voxel_size[2]),
        )
        if not known
    ]
    settings = "(task.na, task.wavelength_nm, task.index)"
    said = f"The file does not say of the optics, so assumed: {', '.join(assumed)} {settings}."
    notes = (said,) if assumed else ()
    unit = "um" if optics.voxel_size[0] else "planes"
    why = (
        f"that of aberrations of up to {params.rms:g} radians at aperture {lens.na:g}, the planes down to a depth of "
        f"{shallow:.4g} {unit} being the truth"
    )
    seen = replace(found.camera, notes=(*found.camera.notes, *notes))
    return _with(
        replace(found, camera=seen, sigma=0.0, sigma_why=why, widths=()),
        lens=lens,
        shallow=shallow,
        dimmest=float(np.clip(bright.min() / top, DIMMEST, 1)),
    )


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return the shallow planes or windows of them, and where patches may start.

    Raises:
        InputError: as the task ``contrast``.
    """
    stacks = {source.stack: _top(source.stack, source.depth, fit) for source in sources}
    numbers = [n for n, top in enumerate(stacks.values()) if top is not None]
    shown = [
        replace(source, stack=top, depth=source.depth[source.depth <= fit.shallow])
        for source in sources
        if (top := stacks[source.stack]) is not None
    ]
    held_out = tuple((numbers.index(n), y, x) for n, y, x in fit.held_out if n in numbers)
    return _contrast_bank.prepare(shown, replace(fit, held_out=held_out), _recorded(config), seed=seed, round=round)


def sample(
    batch: Mapping[str, Tensor], depth: Tensor, fit: Fit, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return aberrated planes with their neighbours (N, C, Y, X), the planes themselves and their weight (N, 1, Y, X).

    For a network in space all three are of slabs, as in the task ``contrast``. Images are in network units. Every patch
    has a wave and a brightness of its own. With ``thin`` the photons are shared out before. What is left of the noise
    of the input's part is filled up to that of a plane as it is recorded. The rim of a patch does not count: what lies
    beyond sends light into it.
    """
    raw = batch["raw"]
    image = target = raw
    if fit.recorrupted:
        image, target = recorrupt(raw, fit.camera.means, fit.camera.variances, generator=generator, share=fit.thin)
    elif fit.thin:
        image, target = thin(raw, fit.photons, generator=generator, share=fit.thin)
    count = len(raw)
    rms = config.task["rms"] * torch.rand(count, 1, generator=generator, device=raw.device)
    dim = torch.rand(count, 1, 1, 1, generator=generator, device=raw.device) * (fit.dimmest - 1) + 1
    waves = (rms * draw_waves(count, generator, raw.device)).unsqueeze(1)
    given = _worse(image, waves, fit, generator, share=fit.thin or 1.0, dim=dim)
    dark = fit.photons.offset or 0.0
    target = (target - dark) * dim + dark
    weight = _inside(raw, fit.lens)
    if "weight" in batch:
        weight = weight * batch["weight"]
    if fit.in_space:
        return fit.norm(given).unsqueeze(1), fit.norm(target).unsqueeze(1), weight.unsqueeze(1)
    middle = len(fit.layers) // 2
    return fit.norm(given), fit.norm(target.narrow(1, middle, 1)), weight.narrow(1, middle, 1)


def degrade(source: Source, fit: Fit, config: Config, generator: torch.Generator) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) under one random wave that grows with depth from nothing to the largest, and noise."""
    image = torch.from_numpy(clean(source.volume(), fit, source.invalid))
    low, high = fit.depth_range
    share = (torch.from_numpy(source.depth).float() - low) / max(high - low, 1e-6)
    wave = draw_waves(1, generator, image.device)
    for z, strength in enumerate(config.task["rms"] * share.clamp(0, 1)):
        image[z] = _worse(image[z : z + 1], strength * wave, fit, generator)[0]
    return image.numpy()


def example(source: Source, z: int, fit: Fit, config: Config) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a plane that is taken for sharp, or the middle of a large one, and that under half of the largest wave.

    Of a source that has none, plane ``z``.
    """
    shallow = np.flatnonzero(source.depth <= fit.shallow)
    plane = int(shallow[len(shallow) // 2]) if len(shallow) else z
    image = torch.from_numpy(cleaned(source.frame, fit, source.survey)[plane, *middle(source.frame.shape[1:])])
    generator = torch.Generator().manual_seed(config.train.seed)
    wave = config.task["rms"] / 2 * draw_waves(1, generator, image.device)
    return image.numpy(), _worse(image.unsqueeze(0), wave, fit, generator)[0].numpy()


def _recorded(config: Config) -> Config:
    """Return the settings as those of the task ``contrast``, which knows nothing of aberrations."""
    task = {key: config.task[key] for key in _contrast_fit.Recorded.model_fields}
    return config.model_copy(update={"task": contrast.Params(**task).model_dump()})


def _with(found: _contrast_fit.Fit, **own: Any) -> Fit:
    return Fit(**{field.name: getattr(found, field.name) for field in fields(found)}, **own)


def _worse(
    image: Tensor,
    waves: Tensor,
    fit: Fit,
    generator: torch.Generator,
    *,
    share: float = 1.0,
    dim: float | Tensor = 1.0,
) -> Tensor:
    """Return planes (..., Y, X) under waves, dimmed, whose noise is about that of photons that a plane is made of.

    Args:
        image: made of a share of the photons, so that it has 1 / ``share`` times their noise.
        waves: radians, broadcast against the planes.
        fit: camera and microscope.
        generator: of the image's device.
        share: of the photons.
        dim: brightness, as a share.
    """
    dark = fit.photons.offset or 0.0
    seen, left = through(image, waves, fit.lens)
    seen = (seen - dark) * dim + dark
    # Variances: dim for the photons of the dimmed plane, dim^2 left / share for what came through.
    missing = (1 - dim * left.unsqueeze(-1).unsqueeze(-1) / share).clamp(min=0).sqrt()
    return seen + missing * (camera(seen, fit.photons, generator=generator) - seen)


def _inside(patches: Tensor, lens: Lens) -> Tensor:
    """Return like patches 1 where light from beyond them hardly comes to, at least in half of each side; else 0."""
    height, width = patches.shape[-2:]
    rows, columns = (min(reach, n // 4) for reach, n in zip(lens.reach, (height, width), strict=True))
    inner = torch.ones_like(patches.narrow(-2, rows, height - 2 * rows).narrow(-1, columns, width - 2 * columns))
    return pad(inner, (columns, columns, rows, rows))


@dataclass(frozen=True, eq=False)
class _Run(Lazy):
    """So many planes of an array from a first one on, along an axis; read where it is sliced."""

    array: Any
    axis: int
    first: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.array.shape[: self.axis], self.count, *self.array.shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def read(self, box: Box) -> NDArray[Any]:
        z = box[self.axis]
        there = slice(self.first + z.start, self.first + z.stop, z.step)
        return np.asarray(self.array[(*box[: self.axis], there, *box[self.axis + 1 :])])


def _top(stack: Stack, depth: NDArray[np.float64], fit: Fit) -> Stack | None:
    """Return a stack of the planes that are taken for sharp; ``None`` where there are too few to train on."""
    shallow = np.flatnonzero(depth <= fit.shallow)
    if len(shallow) < len(fit.layers):
        return None
    return replace(stack, array=_Run(stack.array, stack.axes.index("Z"), int(shallow[0]), len(shallow)))

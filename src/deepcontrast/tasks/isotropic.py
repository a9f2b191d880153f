"""CARE: isotropic stacks, learned from an anisotropic stack itself.

Weigert et al., "Content-aware image restoration: pushing the limits of fluorescence microscopy", Nature Methods 2018,
figure 3, and its supplement, section 2.4. Lateral sections that were blurred and undersampled as the microscope does
along the axis are the input, lateral sections the target; the network is applied to the xz and the yz sections of the
stack, whose planes were interpolated to be as close as its pixels, and the mean of both is the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from deepcontrast.bank import WEIGHT, fill_bank
from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config, Table
from deepcontrast.errors import InputError
from deepcontrast.normalize import Norm
from deepcontrast.patches import Column, hold_out, patch_size
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.spectral_match import matching
from deepcontrast.stack import Frame, Stack
from deepcontrast.task import Bank, Geometry, Source
from deepcontrast.tasks import _planes
from deepcontrast.tasks._as_it_is import clean, cleaned, paired, windowed
from deepcontrast.tasks._axial import Axial, axial_of, distance_of_planes
from deepcontrast.tasks._likeness import described, differs, ranges
from deepcontrast.tasks._norms import measure, median
from deepcontrast.tasks._planes import Together, applied
from deepcontrast.uncertainty import BOUNDS
from deepcontrast.upsampled import upsampled
from deepcontrast.valid import Box, Survey, survey

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
    "join",
    "left",
    "matched",
    "matches",
    "normed",
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
DEEP = False
SIMULATED = False
BESIDE: tuple[str, ...] = ()
VIEWS = (1, 0, 2), (2, 0, 1)
"""xz sections, one for every y, and yz sections, one for every x; rows of both lie along z."""
NEAR = 2
"""Planes on either side whose grey levels bound those of a voxel after spectra are matched."""
EMPTY = "has empty planes or borders; what lies between them and the rest is interpolated with them: cut them off first"


class Params(Table):
    """The ``[task]`` table.

    factor: distance of planes in pixels; by default as the voxel size says.
    psf: what the axial blur is taken from: ``"estimated"`` from the stack's own spectra, ``"widefield"`` or
        ``"confocal"`` from the optics, or the file of a point-spread function (Z, Y, X).
    na, wavelength_nm, index: numerical aperture, emission wavelength and refractive index of the optics, where the file
        does not say them.
    psf_voxel: of the file of a point-spread function (z, y, x) in micrometres, where it does not say.
    noise: noise is added to inputs, so that they have as much as the planes of the stack.
    thin: share of the photons that inputs are made of, targets being the others, so that the noise of planes is not
        learned; 0 makes both of all of them, as published.
    combine: of the xz and the yz result: their mean, or, as CSBDeep, the geometric mean of what lies above the 2nd
        percentile.
    norm, low, high, per_image: as of the task ``denoise``; measured after interpolation.
    match: after training, axial frequencies of the result are amplified until a part of the stack of training has as
        much of them as of lateral ones; not where planes keep their noise, or the axial blur is not known.
        ``"bounded"``: no voxel becomes darker or brighter than those within ``NEAR`` planes were, so that there are no
        halos; ``"full"``: as much as it takes; ``"off"``.
    joint: one network is given all channels of a stack and restores them together.
    bank_mb, round_steps: as of the task ``denoise``.
    """

    factor: float | None = Field(None, ge=1)
    psf: str = "estimated"
    na: float | None = Field(None, gt=0)
    wavelength_nm: float | None = Field(None, gt=0)
    index: float | None = Field(None, gt=0)
    psf_voxel: tuple[float, float, float] | None = None
    noise: bool = True
    thin: float = Field(0.5, ge=0, lt=1)
    combine: Literal["arithmetic", "geometric"] = "arithmetic"
    norm: Literal["percentile", "mean_std"] = "mean_std"
    low: float = Field(2.0, ge=0, lt=50)
    high: float = Field(99.8, gt=50, le=100)
    per_image: bool = True
    match: Literal["bounded", "full", "off"] = "bounded"
    joint: bool = False
    bank_mb: int = Field(1500, ge=1)
    round_steps: int = Field(1000, ge=1)


@dataclass(frozen=True)
class Fit:
    """Every number of one channel that training and prediction need.

    Attributes:
        norm: what is done to grey values before the network, and undone after; where every stack is normalised by
            itself, the median of those of training.
        kind, low, high, per_image: see :class:`Params`.
        factor: distance of planes in pixels.
        axial: what is done to lateral sections.
        patch: side of training patches.
        held_out: squares of the validation, (stack, y, x).
        seen: least and most, of the stacks of training, of what :func:`unlike` looks at.
        match: the kernel along the axis that sections are convolved with after the network.
        channel: its number among those that the network is given ``together``.
        together: of each of those, what ``norm`` and ``axial`` are of this one; none where it is given this one alone.
    """

    norm: Norm
    kind: str
    low: float
    high: float
    per_image: bool
    factor: float
    axial: Axial
    patch: int
    held_out: tuple[Column, ...]
    seen: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    match: tuple[float, ...] = (1.0,)
    channel: int = 0
    together: tuple[tuple[Norm, Axial], ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """Planes that the network is given for each one: itself."""
        return (0,)

    @property
    def in_space(self) -> bool:
        """Whether the network is one in space: it is not."""
        return False

    @property
    def channels(self) -> tuple[tuple[Norm, Axial], ...]:
        """Norm and axial blur of what the network is given."""
        return self.together or ((self.norm, self.axial),)

    def encode(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the numbers as JSON, as the model file keeps them; there are no images."""
        return asdict(self), {}

    @classmethod
    def decode(cls, table: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Fit:
        """Return the fit that was stored; the inverse of :meth:`encode`."""
        del arrays
        fields = {
            **table,
            "norm": Norm(**table["norm"]),
            "axial": Axial.decode(table["axial"]),
            "held_out": tuple(tuple(column) for column in table["held_out"]),
            "match": tuple(table["match"]),
            "seen": {name: (low, high) for name, (low, high) in table["seen"].items()},
            "together": tuple((Norm(**norm), Axial.decode(axial)) for norm, axial in table["together"]),
        }
        return cls(**fields)


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Measure one channel of all stacks: distance of planes, axial blur, noise, norm; and choose what is held out.

    Raises:
        InputError: the distance of planes is not known, a PSF that is none, planes too small, settings that do not fit.
    """
    params = Params(**config.task)
    _check(config)
    factor = distance_of_planes(sources[0].stack, params.factor)
    axial = axial_of(sources, factor, params, progress)
    progress(Event("fit", values={"message": f"planes are {factor:.4g} pixels apart; {axial.how}"}))
    norms, seen = [], []
    for n, source in enumerate(sources):
        norms.append(_norm_of(source, factor, params.norm, params.low, params.high))
        seen.append(described(source.frame, source.survey))
        if source.survey.holes.any():
            progress(Event("fit", values={"message": f"'{source.stack.source}' {EMPTY}"}))
        progress(Event("fit", n + 1, len(sources)))
    shapes = {id(s.stack): (s.stack.size("Y"), s.stack.size("X")) for s in sources}
    patch = min(patch_size(shape, config.train.patch, 2**config.net.depth) for shape in shapes.values())
    rng = np.random.default_rng(config.train.seed)
    return Fit(
        norm=median(norms),
        kind=params.norm,
        low=params.low,
        high=params.high,
        per_image=params.per_image,
        factor=factor,
        axial=axial,
        patch=patch,
        held_out=hold_out(tuple(shapes.values()), patch, config.train.validation, rng),
        seen=ranges(seen),
    )


def _norm_of(source: Source, factor: float, kind: str, low: float, high: float) -> Norm:
    """Return the norm of a stack by itself, on the grid of its result."""
    frame = upsampled(source.stack, factor).frame(source.t, source.c)
    return measure(frame, frame, survey(frame).with_saturation(), kind, low, high)


def _check(config: Config) -> None:
    """Refuse settings that have no meaning here.

    Raises:
        InputError: names the setting.
    """
    if config.net.dims == 3 or config.net.context:
        raise InputError("the task isotropic restores sections by themselves; accepted: net.dims = 2, net.context = 0")
    if config.train.loss == "laplace":
        raise InputError("the task isotropic predicts no uncertainty; accepted: train.loss = mae or mse")
    if config.predict.orientations > 4:
        raise InputError("axial sections cannot be turned by a quarter; accepted: predict.orientations=1, 2, 4")


def join(fits: Sequence[Fit]) -> list[Fit]:
    """Return the fits of all channels of a stack for one network that restores them together."""
    together = tuple((one.norm, one.axial) for one in fits)
    return [replace(one, channel=c, together=together) for c, one in enumerate(fits)]


def matches(fit: Fit) -> bool:
    """Return whether spectra can be matched.

    Not where planes keep their noise, as their power is the noise's too, nor where the spectra of the stack did not
    show the axial blur.
    """
    return all(axial.thin > 0 and axial.known for _, axial in fit.channels)


def matched(fit: Fit, restored: NDArray[np.float32]) -> Fit:
    """Return the fit set right by a part (Z, Y, X) of what its networks make of a stack of training."""
    return replace(fit, match=matching(restored))


def on_grid(stack: Stack, fit: Fit) -> Stack:
    """Return a stack on the grid of its result: planes as close as pixels."""
    return upsampled(stack, fit.factor)


def own_norm(fit: Fit, frame: Frame, known: Survey) -> Norm | None:
    """Return the norm of a stack by itself, where the model was trained so; else ``None``."""
    return measure(frame, frame, known, fit.kind, fit.low, fit.high) if fit.per_image else None


def normed(fit: Fit, norms: Sequence[Norm], c: int) -> Fit:
    """Return the fit for a channel of a stack of norms of its own."""
    together = (
        tuple((norm, axial) for norm, (_, axial) in zip(norms, fit.together, strict=True)) if fit.together else ()
    )
    return replace(fit, norm=norms[c], together=together)


def of_pair(fit: Fit, source: Source) -> Fit:
    """Return the fit: targets are parts of the stack, in its grey levels."""
    return fit


def bounds(fit: Fit) -> tuple[float, float]:
    """Return which shares of the predicted distribution lie below the bounds of its interval: nothing is known."""
    return BOUNDS


def left(fit: Fit, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the stack that were not restored, as they stand in the result: the same."""
    return values


def unlike(fit: Fit, frame: Frame, known: Survey) -> list[str]:
    """Return in words how a stack differs from all that the model was trained on, so that it may fail."""
    words = differs(fit.seen, frame, known, brightness=not fit.per_image)
    z, _, x = frame.stack.optics.voxel_size
    if z and x and abs(z / x - 1) > 0.01:
        words.append(f"its planes are {z * fit.factor / x:.3g} pixels apart, those of training {fit.factor:.3g}")
    return words


def degrade(source: Source, fit: Fit, config: Config, generator: torch.Generator) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) whose rows are as if they lay along the axis, in grey levels."""
    image = torch.from_numpy(clean(source.volume(), fit, source.invalid))
    return fit.axial.along(fit.axial.halves(image, generator)[0], fit.factor, generator).numpy()


def example(source: Source, z: int, fit: Fit, config: Config) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a plane and what it would be like along the axis, (Y, X) each, in grey levels."""
    image = torch.from_numpy(cleaned(source.frame, fit, source.survey)[z])
    generator = torch.Generator().manual_seed(config.train.seed)
    seen = fit.axial.along(fit.axial.halves(image, generator)[0], fit.factor, generator)
    return image.numpy(), seen.numpy()


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return planes in grey levels, and where patches may start.

    Raises:
        InputError: no patch is free of invalid voxels and clear of the held-out squares.
    """
    names = _names(fit)
    if not all(source.all_valid for source in sources):
        names = [*names, WEIGHT]

    @cache
    def opened(i: int, c: int) -> tuple[Cleaned, Norm | None]:
        source = sources[i].channels[c]
        own = None
        if fit.per_image and len(sources) > 1:
            own = _norm_of(source, fit.factor, fit.kind, fit.low, fit.high)
        return cleaned(source.frame, fit, source.survey), own

    def read(i: int, box: Box) -> Iterator[tuple[str, Tensor]]:
        for c, (name, (norm, _)) in enumerate(zip(_names(fit), fit.channels, strict=True)):
            image, own = opened(i, c)
            planes = image[box]
            # As bright as the others: so it will be given to the network.
            yield name, torch.from_numpy(planes if own is None else np.asarray(norm.invert(own(planes)), np.float32))
        if WEIGHT in names:
            valid = sources[i].valid(box)
            shape = [part.stop - part.start for part in box]
            yield WEIGHT, torch.ones(shape) if valid is None else torch.from_numpy(valid).float()

    return fill_bank(
        sources, names, read,
        patch=fit.patch, offsets=fit.layers, slabs=False, held_out=fit.held_out, megabytes=config.task["bank_mb"],
        rng=np.random.default_rng((seed, round)),
    )  # fmt: skip


def sample(
    batch: Mapping[str, Tensor], depth: Tensor, fit: Fit, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return patches as if their rows lay along the axis, the patches (N, channels, Y, X), and weight (N, 1, Y, X).

    All are in network units. Every patch has a phase of its own, at which its first plane lies.
    """
    patches = [batch[name] for name in _names(fit)]
    # All channels of a patch lie on the same planes.
    phase = torch.rand((len(depth), 1), generator=generator, device=depth.device) * fit.factor
    inputs, targets = [], []
    for patch, (norm, axial) in zip(patches, fit.channels, strict=True):
        image, target = axial.halves(patch, generator)
        inputs.append(norm(axial.along(image, fit.factor, generator, phase)))
        targets.append(norm(target))
    return torch.cat(inputs, 1), torch.cat(targets, 1), batch.get(WEIGHT)


def build(fit: Fit, config: Config) -> nn.Module:
    """Return the network, its weights not yet set."""
    return _planes.build(fit, config, len(fit.channels))


def geometry(net: nn.Module, fit: Fit, config: Config) -> Geometry:
    """Return how sections may be cut, and in which views."""
    above = None
    if config.task["combine"] == "geometric":
        # The value that the norm of percentiles makes 0.
        above = fit.norm.offset
    found = _planes.geometry(net, fit, config)
    planes, along, across = found.halo
    return replace(found, halo=(planes, along + len(fit.match) // 2, across), views=VIEWS, above=above)


def restore(net: nn.Module, tile: Tensor, fit: Fit, config: Config) -> dict[str, Tensor]:
    """Apply the network once to sections (N, Z, X), or (C, N, Z, X) of channels that are restored together."""
    together = Together(fit.channel, tuple(norm for norm, _ in fit.together)) if fit.together else None
    found = applied(net, tile, fit, fit.norm, together=together)
    if len(fit.match) == 1 or config.task["match"] == "off":
        return found
    made = _convolved(found["mean"], fit.match)
    return {"mean": _bounded(made, found["mean"]) if config.task["match"] == "bounded" else made}


def _convolved(sections: Tensor, kernel: tuple[float, ...]) -> Tensor:
    """Return sections (N, Z, X) convolved along Z with a symmetric kernel; beyond their ends they go on mirrored."""
    half = len(kernel) // 2
    rows = sections.shape[1]
    # A section may be shorter than the kernel reaches: reflection one fold at a time.
    at = torch.arange(-half, rows + half, device=sections.device).remainder(max(1, 2 * (rows - 1)))
    tall = sections.index_select(1, torch.minimum(at, max(1, 2 * (rows - 1)) - at))
    # Slices, not a convolution: autocast would round grey levels.
    made = torch.zeros_like(sections)
    for n, weight in enumerate(kernel):
        made += weight * tall.narrow(1, n, rows)
    return made


def _bounded(made: Tensor, before: Tensor) -> Tensor:
    """Return sections (N, Z, X) kept between the least and the greatest of what was there within ``NEAR`` planes."""
    size, pad = (2 * NEAR + 1, 1), (NEAR, 0)
    high = functional.max_pool2d(before, size, stride=1, padding=pad)
    low = -functional.max_pool2d(-before, size, stride=1, padding=pad)
    return torch.minimum(torch.maximum(made, low), high)


def _names(fit: Fit) -> list[str]:
    """Return what the images of the bank are called."""
    return [f"image{c}" for c in range(len(fit.channels))]

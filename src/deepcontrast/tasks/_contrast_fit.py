"""The numbers of a stack that the contrast task needs: camera, scale, blur and split; and the stack cleaned by them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config, Table
from deepcontrast.depth import SIDE, middle, structure_radius
from deepcontrast.errors import InputError
from deepcontrast.histogram import percentiles
from deepcontrast.mosaic import Mosaic, find_mosaic, mosaic_of
from deepcontrast.noise import Camera, estimate_camera, line_offsets, remove_pattern, subtract_lines
from deepcontrast.noise.photon_noise import WHITE
from deepcontrast.normalize import Norm
from deepcontrast.patches import (
    Column,
    hold_out,
    patch_size,
)
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.sampling import each_plane, sample_planes
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source
from deepcontrast.tasks._planes import layers_of
from deepcontrast.valid import Invalid, Survey, fill_empty, find_invalid

PUBLISHED_WIDTHS, PUBLISHED_HAZE = (1.0,), 0.02
"""Of the published pair of images: one Gaussian; and what may be left of the haze that its network takes away."""
NARROWEST = 0.5
"""Pixels of the narrowest haze."""
RESAMPLED = 2
"""Planes over which noise is alike where planes were interpolated, there and back."""
SEEN = 4
"""Planes above and below that a network in space makes use of."""
FIT_PLANES, FEWEST_PLANES = 64, 8
"""Planes, evenly spaced over all sources, that camera and scale are estimated from, at most and at least."""
LARGE = (
    f"The planes have more than {SIDE} x {SIDE} pixels: camera, scale and blur were estimated in the window "
    "in their middle, stripes and a fixed pattern were not looked for, and seams of a mosaic only there."
)
NOT_IN_SPACE = (
    "The network is not one in space but sees planes alone: a stack has fewer than three, or the noise of neighbouring "
    "planes is alike."
)
RECORRUPTED = (
    "The noise is not that of photons but independent from pixel to pixel: noise as strong as was measured at every "
    "intensity is added to the network's input and taken from its target, so that they share next to none."
)
NOT_THINNED = (
    "The noise is neither that of photons nor known to be independent from pixel to pixel: the network's input and "
    "target have it in common, as published."
)
FEWER = (
    "Camera, scale, blur and seams were judged by {planes} planes, of {sampled} of the {sources} stacks and time points"
)


class Recorded(Table):
    """What is set of images as a camera recorded them, whatever is learned of them.

    gain, offset: of the camera, in grey levels; 0 gain and ``None`` offset estimate them.
    remove_pattern: subtract the camera's fixed pattern where one is found, and the offsets of rows and columns.
    even_mosaic: even out the tiles of stitched planes where they differ in brightness.
    thin: share of the photons that the input is made of, the target being the others; 0 makes both of all of them, as
        published. Where the noise is not that of photons, noise is added to both instead; where it is not independent
        from pixel to pixel either, it is 0, and widths and haze are those of the published pair.
    haze: that may be left where k is chosen, see :func:`deepcontrast.select.haze_gone`.
    bank_mb: memory for the planes that patches are cut from; of more than fit, others take their turn. Camera, scale
        and blur are estimated once, from up to 64 planes, fewer where those take more.
    round_steps: steps after which another set of planes takes its turn.
    """

    gain: float = Field(0.0, ge=0)
    offset: float | None = None
    remove_pattern: bool = True
    even_mosaic: bool = True
    thin: float = Field(0.0, ge=0, lt=1)
    haze: float = Field(PUBLISHED_HAZE, ge=0, lt=1)
    bank_mb: int = Field(1500, ge=1)
    round_steps: int = Field(1000, ge=1)


class Params(Recorded):
    """The ``[task]`` table: that of :class:`Recorded`, and the haze.

    sigma: of the blur ``b`` in pixels; 0 chooses it from ``sigma_um``, the structures and the field.
    sigma_um: of the blur in micrometres, where the voxel size is known (the paper: 20 px of 0.3 um).
    widths: of the haze, in sigmas; of several, a mixture is drawn for every patch (the paper: one).
    alpha_surface, alpha_deep: share of the image that stays, at the shallowest and the deepest plane.
    balance: weigh patches so that dim planes count as much as bright ones.
    """

    sigma: float = Field(0.0, ge=0)
    sigma_um: float = Field(6.0, gt=0)
    widths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(PUBLISHED_WIDTHS, min_length=1)
    alpha_surface: float = Field(0.5, ge=0, le=1)
    alpha_deep: float = Field(0.3, ge=0, le=1)
    balance: bool = False


@dataclass(frozen=True, eq=False)
class Fit:
    """Every number of one channel that training and prediction need.

    Attributes:
        camera: gain and intercept of the noise.
        pattern: fixed pattern of the camera (Y, X), or ``None``.
        norm: what is done to grey values before the network.
        sigma: of the blur, pixels; ``sigma_why`` says how it was chosen.
        depth_range: shallowest and deepest plane.
        plane_depth, plane_scale: how bright structure is at sampled depths, in network units.
        patch: side of training patches.
        held_out: squares of the validation, (stack, y, x).
        mosaics: of the stacks whose tiles differ in brightness.
        layers: planes that the network is given for each one, relative to it; itself in their middle.
        in_space: whether the network is one in space, trained on slabs of so many planes; else they are its channels.
        thin: share of the photons that the input is made of; 0 where input and target have the noise in common.
        widths: of the Gaussians that haze is mixed from, in sigmas.
        haze: that may be left where k is chosen.
    """

    camera: Camera
    pattern: NDArray[np.float32] | None
    norm: Norm
    sigma: float
    sigma_why: str
    depth_range: tuple[float, float]
    plane_depth: tuple[float, ...]
    plane_scale: tuple[float, ...]
    patch: int
    held_out: tuple[Column, ...]
    mosaics: tuple[Mosaic, ...] = ()
    layers: tuple[int, ...] = (0,)
    in_space: bool = False
    thin: float = 0.0
    widths: tuple[float, ...] = PUBLISHED_WIDTHS
    haze: float = PUBLISHED_HAZE

    @property
    def photons(self) -> Optics:
        """What photons make of the image: grey levels for each, and none at the offset."""
        return Optics(gain=self.camera.gain * (self.camera.spread or 1.0), offset=self.camera.intercept)

    @property
    def recorrupted(self) -> bool:
        """Whether input and target share no noise because noise was added to them, not because photons were shared."""
        # Models from before there was a spread had photons shared out only where the noise is theirs.
        return bool(self.thin) and self.camera.spread is None and not self.camera.poissonian

    @property
    def independent(self) -> int:
        """How far above and below a plane others begin whose noise its result does not have.

        A network in space uses planes up to ``SEEN`` away, whatever the slabs it was trained on (docs/decisions.md).
        """
        return (
            1
            + max(*self.layers, SEEN if self.in_space else 0)
            + (RESAMPLED if abs(self.camera.whiteness[0]) > WHITE else 0)
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The widths in pixels."""
        return tuple(max(NARROWEST, self.sigma * width) for width in self.widths)

    def encode(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the numbers as JSON, and the images, as the model file keeps them."""
        arrays = {} if self.pattern is None else {"pattern": self.pattern}
        return asdict(replace(self, pattern=None)), arrays

    @classmethod
    def decode(cls, table: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Fit:
        """Return the fit that was stored; the inverse of :meth:`encode`."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
        camera: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table["camera"].items()}
        fields |= {
            "camera": Camera(**camera),
            "norm": Norm(**table["norm"]),
            "pattern": arrays.get("pattern"),
            "held_out": tuple(tuple(column) for column in table["held_out"]),
            "mosaics": tuple(Mosaic.decode(mosaic) for mosaic in table.get("mosaics", ())),
        }
        return cls(**fields)


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Estimate camera, scale, blur and split of one channel from all its time points and stacks.

    Raises:
        InputError: the planes are too small, or no valid voxel is left.
    """
    params = Params(**config.task)
    count = _fit_planes(sources, params)
    sampled, planes, valid, depth = sample_planes(sources, count, progress)
    fields = {source.frame.shape[1:] for source in sources}
    whole = all(_whole(field) for field in fields)
    estimate = partial(
        estimate_camera,
        valid=valid,
        gain=params.gain or None,
        offset=params.offset,
        remove_pattern=params.remove_pattern and whole,
    )
    # Every tile of a mosaic has lines of its own, and where voxels are empty the means of lines are not known.
    striped = [source.survey.means is not None for source in sampled]
    camera, pattern = estimate(planes, lines=striped)
    mosaics = _even(sampled, planes, valid, camera.zero) if params.even_mosaic else {}
    if mosaics:
        # A seam is in all planes alike, as the camera's pattern is, and must not be taken for it.
        camera, pattern = estimate(planes, lines=[False] * len(planes))
        camera = replace(camera, notes=(*camera.notes, *_describe(mosaics)))
    if not whole:
        camera = replace(camera, notes=(*camera.notes, LARGE))
    short = count < min(FIT_PLANES, sum(len(source.depth) for source in sources))
    if short or len(sampled) < len(sources):
        more = ": no more fit the memory." if short else "."
        looked = FEWER.format(planes=sum(map(len, planes)), sampled=len(sampled), sources=len(sources))
        camera = replace(camera, notes=(*camera.notes, looked + more))
    foreign = bool(params.thin) and camera.spread is None
    as_published = foreign and not camera.white_in_plane
    thin = 0.0 if as_published else params.thin
    if foreign:
        camera = replace(camera, notes=(*camera.notes, NOT_THINNED if as_published else RECORRUPTED))
    progress(Event("fit", 1, 3, {"gain": camera.gain, "intercept": camera.intercept}))
    for some, may in zip(planes, striped, strict=True):
        if pattern is not None:
            some -= pattern
        if any(camera.lines) and may:
            subtract_lines(some, camera.lines)
    [top] = percentiles(lambda: (plane[known] for plane, known in each_plane(planes, valid)), [99.0])
    if top <= camera.background:
        raise InputError(f"the offset {camera.background:g} is above the image, whose 99th percentile is {top:g}")
    scale = max(top - camera.background, 1e-6)
    norm = Norm(offset=camera.background, scale=scale)
    sigma, why = _choose_sigma(planes, sources[0], params)
    progress(Event("fit", 2, 3, {"sigma": sigma}))
    shapes = {id(s.stack): (s.stack.size("Y"), s.stack.size("X")) for s in sources}
    step = 2**config.net.depth
    patch = min(patch_size(shape, config.train.patch, step) for shape in shapes.values())
    rng = np.random.default_rng(config.train.seed)
    # Neighbours whose noise is alike would tell the network the noise of its target.
    alone = bool(thin) and abs(camera.whiteness[0]) > WHITE
    in_space = config.net.dims == 3
    layers = (0,) if alone else layers_of(sources, config.net)
    if in_space and len(layers) == 1:
        camera = replace(camera, notes=(*camera.notes, NOT_IN_SPACE))
    all_depths = np.concatenate([s.depth for s in sources])
    brightness = [float(np.percentile(plane[known], 99.0)) - norm.offset for plane, known in each_plane(planes, valid)]
    order = np.argsort(np.concatenate(depth), kind="stable")
    progress(Event("fit", 3, 3))
    return Fit(
        camera=camera,
        pattern=pattern,
        norm=norm,
        sigma=sigma,
        sigma_why=why,
        depth_range=(float(all_depths.min()), float(all_depths.max())),
        plane_depth=tuple(float(d) for d in np.concatenate(depth)[order]),
        plane_scale=tuple(max(brightness[i] / scale, 0.02) for i in order),
        patch=patch,
        held_out=hold_out(tuple(shapes.values()), patch, config.train.validation, rng),
        mosaics=tuple(dict.fromkeys(mosaics.values())),
        layers=layers,
        in_space=in_space and len(layers) > 1,
        thin=thin,
        widths=PUBLISHED_WIDTHS if as_published else params.widths,
        haze=PUBLISHED_HAZE if as_published else params.haze,
    )


def clean(volume: NDArray[Any], fit: Fit, invalid: Invalid | None = None) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) in grey levels with even tiles, without camera patterns and empty voxels."""
    invalid = find_invalid(volume) if invalid is None else invalid
    image = volume.astype(np.float32)
    if mosaic := mosaic_of(volume, fit.mosaics):
        image = mosaic.even(image, slice(0, image.shape[1]), slice(0, image.shape[2]))
    if fit.pattern is not None and fit.pattern.shape == image.shape[1:]:
        image = remove_pattern(image, fit.pattern)
    if any(fit.camera.lines) and _whole(image.shape[1:]) and not invalid.bordered:
        subtract_lines(image, fit.camera.lines)
    return fill_empty(image, invalid)


def cleaned(volume: Any, fit: Fit, known: Survey) -> Cleaned:
    """Return what :func:`clean` does of a volume (Z, Y, X) of which only what is sliced is read, given its survey."""
    fits = fit.pattern is not None and fit.pattern.shape == tuple(volume.shape[1:])
    pattern = fit.pattern if fits else None
    lines = None
    if any(fit.camera.lines) and _whole(known.shape[1:]) and known.means is not None:
        taken = (0.0, 0.0) if pattern is None else (pattern.mean(axis=1), pattern.mean(axis=0))
        rows, columns = (
            line_offsets(means - less, deviation)
            for means, less, deviation in zip(known.means, taken, fit.camera.lines, strict=True)
        )
        lines = (rows, columns)
    return Cleaned(volume, known, pattern, mosaic_of(volume, fit.mosaics), lines)


def windowed(fit: Fit, field: tuple[int, int], y: slice, x: slice) -> Fit:
    """Return the fit for a window of planes (Y, X) of size ``field``, without what is of planes of another size.

    The held-out squares stay those of the whole planes.
    """
    mosaics = tuple(mosaic.window(y, x) for mosaic in fit.mosaics if mosaic.shape == field)
    fits = fit.pattern is not None and fit.pattern.shape == field
    pattern = fit.pattern[y, x] if fits and fit.pattern is not None else None
    camera = fit.camera if _whole(field) else replace(fit.camera, lines=(0.0, 0.0))
    return replace(fit, camera=camera, pattern=pattern, mosaics=mosaics)


def _whole(field: tuple[int, ...]) -> bool:
    """Say whether planes (Y, X) are small enough to be looked at whole."""
    height, width = field
    return middle((height, width)) == (slice(0, height), slice(0, width))


def _fit_planes(sources: Sequence[Source], params: Params) -> int:
    """Return how many planes are estimated from; with what is made of them they take twice their size in float32."""
    pixels = max(math.prod(n.stop - n.start for n in middle(source.frame.shape[1:])) for source in sources)
    return int(np.clip(params.bank_mb * 1e6 // (8 * pixels), FEWEST_PLANES, FIT_PLANES))


def _even(
    sources: Sequence[Source],
    planes: Sequence[NDArray[np.float32]],
    valid: Sequence[NDArray[np.bool_]],
    offset: float,
) -> dict[Stack, Mosaic]:
    """Even out, in place, the tiles of sampled planes of each stack that is a mosaic; return these stacks' mosaics.

    Of a large plane the seams in the window that was sampled are found; the outer tiles reach to its border.
    """
    found = {}
    for stack in dict.fromkeys(source.stack for source in sources):
        own = [i for i, source in enumerate(sources) if source.stack is stack]
        mosaic = find_mosaic([planes[i] for i in own], [valid[i] for i in own], offset)
        if mosaic is not None:
            height, width = sources[own[0]].frame.shape[1:]
            y, x = middle((height, width))
            for i in own:
                for plane in planes[i]:
                    plane[:] = mosaic.even(plane, slice(0, mosaic.shape[0]), slice(0, mosaic.shape[1]))
            found[stack] = mosaic.window(slice(-y.start, height - y.start), slice(-x.start, width - x.start))
    return found


def _describe(mosaics: Mapping[Stack, Mosaic]) -> list[str]:
    """Return a sentence for every mosaic, with the name of its stack where there are several."""
    return [
        f"{stack.source}: {mosaic.describe()}" if len(mosaics) > 1 else mosaic.describe()
        for stack, mosaic in mosaics.items()
    ]


def _choose_sigma(planes: Sequence[NDArray[np.float32]], source: Source, params: Params) -> tuple[float, str]:
    """Return the width of the blur in pixels, and the reason for it."""
    if params.sigma:
        return params.sigma, f"{params.sigma:g} px, as set"
    size = source.stack.optics.voxel_size[2]
    radius = float(np.median([structure_radius(p) for p in planes]))
    field = min(source.frame.shape[1:])
    sigma = params.sigma_um / size if size else 20.0
    why = f"{params.sigma_um:g} um at {size:g} um per pixel" if size else "20 px, as in the paper (voxel size unknown)"
    if sigma < 3 * radius:
        sigma, why = 3 * radius, f"3 times the structure radius of {radius:.1f} px, more than {why}"
    if sigma > field / 4:
        sigma, why = field / 4, f"a quarter of the field of {field} px, less than {why}"
    return round(sigma, 2), f"{sigma:.1f} px: {why}"

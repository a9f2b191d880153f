"""DeepContrast: learn to undo a further degradation of the raw stack, then apply that to the raw stack.

Martins et al., "DeepContrast: Deep Tissue Contrast Enhancement using Synthetic Data Degradations and
OOD Model Predictions", sections 3 and 4. Input is ``d(x)``, target is ``x``; no ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from deepcontrast import registry
from deepcontrast.config import Config, Table
from deepcontrast.degrade.blur import blur
from deepcontrast.degrade.scatter import scatter
from deepcontrast.depth import structure_radius
from deepcontrast.errors import InputError
from deepcontrast.noise import Camera, estimate_camera, remove_pattern
from deepcontrast.normalize import Norm
from deepcontrast.patches import Column, corners, hold_out, jitter, patch_size
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.stack import Optics
from deepcontrast.task import Bank, Geometry, Source
from deepcontrast.valid import Invalid, fill_empty, find_invalid

FIT_PLANES = 64
"""Planes, evenly spaced over all sources, that camera and scale are estimated from."""


class Params(Table):
    """The ``[task]`` table.

    sigma: of the blur ``b`` in pixels; 0 chooses it from ``sigma_um``, the structures and the field.
    sigma_um: of the blur in micrometres, where the voxel size is known (the paper: 20 px of 0.3 um).
    alpha_surface, alpha_deep: share of the image that stays, at the shallowest and the deepest plane.
    gain, offset: of the camera, in grey levels; 0 gain and ``None`` offset estimate them.
    remove_pattern: subtract the camera's fixed pattern where one is found.
    balance: weigh patches so that dim planes count as much as bright ones.
    bank_mb: memory for the planes that patches are cut from; more planes than fit take turns.
    round_steps: steps after which another set of planes takes its turn.
    """

    sigma: float = Field(0.0, ge=0)
    sigma_um: float = Field(6.0, gt=0)
    alpha_surface: float = Field(0.5, ge=0, le=1)
    alpha_deep: float = Field(0.3, ge=0, le=1)
    gain: float = Field(0.0, ge=0)
    offset: float | None = None
    remove_pattern: bool = True
    balance: bool = False
    bank_mb: int = Field(1500, ge=1)
    round_steps: int = Field(1000, ge=1)


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
        }
        return cls(**fields)


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Estimate camera, scale, blur and split of one channel from all its time points and stacks.

    Raises:
        InputError: the planes are too small, or no valid voxel is left.
    """
    params = Params(**config.task)
    planes, valid, depth = _sample_planes(sources, FIT_PLANES, progress)
    camera, pattern = estimate_camera(
        planes,
        valid=valid,
        gain=params.gain or None,
        offset=params.offset,
        remove_pattern=params.remove_pattern,
    )
    progress(Event("fit", 1, 3, {"gain": camera.gain, "intercept": camera.intercept}))
    clean_planes = [
        remove_pattern(p, pattern) if pattern is not None and p.shape[1:] == pattern.shape else p for p in planes
    ]
    top = float(np.percentile(np.concatenate([p[v] for p, v in zip(clean_planes, valid, strict=True)]), 99.0))
    if top <= camera.background:
        raise InputError(f"the offset {camera.background:g} is above the image, whose 99th percentile is {top:g}")
    scale = max(top - camera.background, 1e-6)
    norm = Norm(offset=camera.background, scale=scale)
    sigma, why = _choose_sigma(clean_planes, sources[0].stack.optics, params)
    progress(Event("fit", 2, 3, {"sigma": sigma}))
    shapes = {id(s.stack): (s.stack.size("Y"), s.stack.size("X")) for s in sources}
    step = 2**config.net.depth
    patch = min(patch_size(shape, config.train.patch, step) for shape in shapes.values())
    rng = np.random.default_rng(config.train.seed)
    all_depths = np.concatenate([s.depth for s in sources])
    brightness = [
        float(np.percentile(plane[known], 99.0)) - norm.offset
        for planes_, known_ in zip(clean_planes, valid, strict=True)
        for plane, known in zip(planes_, known_, strict=True)
    ]
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
    )


def clean(volume: NDArray[Any], fit: Fit, invalid: Invalid | None = None) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) in grey levels without camera pattern and empty voxels."""
    image = volume.astype(np.float32)
    if fit.pattern is not None and fit.pattern.shape == image.shape[1:]:
        image = remove_pattern(image, fit.pattern)
    return fill_empty(image, find_invalid(volume) if invalid is None else invalid)


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return planes, their blur, and where patches may start.

    Where not all planes fit ``task.bank_mb``, a random set of them, another one every round.

    Raises:
        InputError: no patch is free of invalid voxels and clear of the held-out squares.
    """
    params = Params(**config.task)
    rng = np.random.default_rng((seed, round))
    # Raw, haze and validity, in float32.
    plane_bytes = max(s.stack.size("Y") * s.stack.size("X") for s in sources) * 12
    wanted = max(1, int(params.bank_mb * 1e6) // plane_bytes)
    index = [(i, z) for i, source in enumerate(sources) for z in range(len(source.depth))]
    complete = len(index) <= wanted
    if not complete:
        index = [index[i] for i in sorted(rng.choice(len(index), size=wanted, replace=False))]
    held_out = _validation_places(sources, fit)
    spacing = jitter(fit.patch)
    images: dict[str, list[Tensor]] = {"raw": [], "haze": [], "valid": []}
    held: dict[str, list[Tensor]] = {"raw": [], "haze": [], "valid": []}
    depth, held_depth, rows = [], [], []
    widths: list[int] = []
    sizes: list[int] = []
    for i, source in enumerate(sources):
        chosen = [z for j, z in index if j == i]
        places = held_out[i]
        planes = _planes(source, sorted({*chosen, *(z for z, _, _ in places)}), fit)
        for name, of in planes.items():
            held[name] += [of[z][y : y + fit.patch, x : x + fit.patch] for z, y, x in places]
            images[name] += [of[z].flatten() for z in chosen]
        depths = torch.from_numpy(source.depth.astype(np.float32))
        held_depth += [depths[z] for z, _, _ in places]
        mask = None if source.invalid.valid is None else source.invalid.valid[chosen]
        squares = [(y, x) for stack, y, x in fit.held_out if stack == _stacks(sources).index(id(source.stack))]
        shape = source.stack.size("Y"), source.stack.size("X")
        free = corners(mask, (len(chosen), *shape), fit.patch, spacing, squares)
        rows.append(free + np.array([len(widths), 0, 0]))
        depth += [depths[z] for z in chosen]
        widths += [shape[1]] * len(chosen)
        sizes += [shape[0] * shape[1]] * len(chosen)
    if not sum(len(r) for r in rows) or not held_depth:
        raise InputError(
            f"no patch of {fit.patch} pixels is free of empty and saturated voxels; try a smaller train.patch"
        )
    if all(source.invalid.valid is None for source in sources):
        del images["valid"], held["valid"]
    return Bank(
        images={name: torch.cat(pieces) for name, pieces in images.items()},
        start=torch.tensor(np.cumsum([0, *sizes[:-1]])),
        width=torch.tensor(widths),
        depth=torch.stack(depth),
        corners=torch.from_numpy(np.concatenate(rows)),
        jitter=spacing,
        validation={name: torch.stack(patches)[:, None] for name, patches in held.items()},
        validation_depth=torch.stack(held_depth),
        complete=complete,
    )


def sample(
    batch: Mapping[str, Tensor], depth: Tensor, fit: Fit, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ``d(x)``, ``x`` and the weight of a batch (N, 1, Y, X), in network units."""
    optics = Optics(gain=fit.camera.gain, offset=fit.camera.intercept)
    degraded = scatter(
        batch["raw"],
        optics,
        generator=generator,
        alpha=_alpha(depth, fit, config)[:, None, None, None],
        blurred=batch["haze"],
    )
    weight = batch.get("valid")
    if config.task["balance"]:
        relative = 1 / _interpolate(depth, fit.plane_depth, fit.plane_scale)
        weight = relative[:, None, None, None] * (1.0 if weight is None else weight)
    return fit.norm(degraded), fit.norm(batch["raw"]), weight


def degrade(source: Source, fit: Fit, config: Config, generator: torch.Generator) -> NDArray[np.float32]:
    """Return ``d(x)`` of a whole volume (Z, Y, X), in grey levels."""
    known = source.invalid.valid
    image = torch.from_numpy(clean(source.volume(), fit, source.invalid))
    haze = _blur_planes(image, fit.sigma, None if known is None else torch.from_numpy(known))
    alpha = _alpha(torch.from_numpy(source.depth), fit, config).float()[:, None, None]
    optics = Optics(gain=fit.camera.gain, offset=fit.camera.intercept)
    return scatter(image, optics, generator=generator, alpha=alpha, blurred=haze).numpy()


def example(source: Source, z: int, fit: Fit, config: Config) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a plane of a source and its degradation, (Y, X) each, in grey levels."""
    image = torch.from_numpy(clean(source.volume(), fit, source.invalid)[z])
    depth = torch.from_numpy(source.depth[z : z + 1])
    optics = Optics(gain=fit.camera.gain, offset=fit.camera.intercept)
    alpha = float(_alpha(depth, fit, config))
    generator = torch.Generator().manual_seed(config.train.seed)
    degraded = scatter(image, optics, generator=generator, alpha=alpha, sigma=fit.sigma)
    return image.numpy(), degraded.numpy()


def build(fit: Fit, config: Config) -> nn.Module:
    """Return the network of the ``[net]`` table."""
    net = config.net
    module: nn.Module = registry.load("nets", net.name)(
        depth=net.depth, features=net.features, kernel=net.kernel, bias=net.bias, residual=net.residual
    )
    return module


def geometry(net: nn.Module, fit: Fit, config: Config) -> Geometry:
    """Return halo and step: planes are independent of each other."""
    halo, step = int(net.halo), int(net.step)  # type: ignore[arg-type]
    return Geometry(halo=(0, halo, halo), step=(1, step, step))


def restore(net: nn.Module, tile: Tensor, fit: Fit, config: Config) -> dict[str, Tensor]:
    """Apply the network once to a tile (Z, Y, X) in grey levels."""
    y: Tensor = net(fit.norm(tile[:, None]).contiguous(memory_format=torch.channels_last))
    return {"mean": fit.norm.invert(y[:, 0])}


def _alpha(depth: Tensor, fit: Fit, config: Config) -> Tensor:
    """Return alpha at depths (N,): linear between the shallowest and the deepest plane."""
    low, high = fit.depth_range
    share = ((depth - low) / max(high - low, 1e-6)).clamp(0, 1)
    surface, deep = config.task["alpha_surface"], config.task["alpha_deep"]
    alpha: Tensor = surface + (deep - surface) * share
    return alpha


def _interpolate(depth: Tensor, at: Sequence[float], values: Sequence[float]) -> Tensor:
    """Return ``values`` given ``at`` sorted depths, read at the nearest sampled depth."""
    places = torch.tensor(at, device=depth.device)
    index = torch.searchsorted(places, depth.contiguous()).clamp(max=len(at) - 1)
    return torch.tensor(values, device=depth.device)[index]


def _blur_planes(image: Tensor, sigma: float, valid: Tensor | None) -> Tensor:
    """Blur plane by plane, so that memory stays that of the result."""
    optics = Optics()
    planes = [blur(image[z], optics, sigma=sigma, valid=None if valid is None else valid[z]) for z in range(len(image))]
    return torch.stack(planes)


def _planes(source: Source, wanted: Sequence[int], fit: Fit) -> dict[str, dict[int, Tensor]]:
    """Return raw, haze and validity of some planes, each by its number."""
    if not wanted:
        return {"raw": {}, "haze": {}, "valid": {}}
    known = source.invalid.valid
    image = torch.from_numpy(clean(source.volume(), fit, source.invalid)[list(wanted)])
    valid = None if known is None else torch.from_numpy(known[list(wanted)])
    haze = _blur_planes(image, fit.sigma, valid)
    weight = torch.ones_like(image) if valid is None else valid.float()
    return {
        "raw": dict(zip(wanted, image, strict=True)),
        "haze": dict(zip(wanted, haze, strict=True)),
        "valid": dict(zip(wanted, weight, strict=True)),
    }


def _stacks(sources: Sequence[Source]) -> list[int]:
    """Return the stacks of the sources in the order that the held-out squares are numbered by."""
    return list(dict.fromkeys(id(source.stack) for source in sources))


def _validation_places(sources: Sequence[Source], fit: Fit, count: int = 64) -> list[list[tuple[int, int, int]]]:
    """Return, per source, up to ``count`` held-out patches (z, y, x) in all, evenly spaced and mostly valid."""
    places = []
    for i, source in enumerate(sources):
        known = source.invalid.valid
        for stack, y, x in fit.held_out:
            if stack == _stacks(sources).index(id(source.stack)):
                box = (slice(y, y + fit.patch), slice(x, x + fit.patch))
                places += [
                    (i, z, y, x) for z in range(len(source.depth)) if known is None or known[z][box].mean() > 0.5
                ]
    shown = np.unique(np.linspace(0, len(places) - 1, min(len(places), count)).round().astype(int))
    return [[(z, y, x) for j, z, y, x in (places[n] for n in shown) if j == i] for i in range(len(sources))]


def _sample_planes(
    sources: Sequence[Source], count: int, progress: Progress
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]], list[NDArray[np.float64]]]:
    """Read about ``count`` evenly spaced planes, empty voxels filled, with their valid voxels and depths."""
    some = np.unique(np.linspace(0, len(sources) - 1, min(len(sources), count // 4)).round().astype(int))
    each = max(4, count // len(some))
    planes, valid, depth = [], [], []
    for n, i in enumerate(some):
        source = sources[i]
        volume = source.volume()
        known = source.invalid.valid
        inside = np.ones(volume.shape, bool) if known is None else known
        usable = np.flatnonzero(inside.mean(axis=(1, 2)) > 0.2)
        if not len(usable):
            continue
        z = np.unique(usable[np.linspace(0, len(usable) - 1, min(each, len(usable))).round().astype(int)])
        planes.append(fill_empty(volume.astype(np.float32), source.invalid)[z])
        valid.append(inside[z])
        depth.append(source.depth[z])
        progress(Event("read", n + 1, len(some)))
    if not planes:
        raise InputError("no plane has enough valid voxels: all are empty or saturated")
    return planes, valid, depth


def _choose_sigma(planes: Sequence[NDArray[np.float32]], optics: Optics, params: Params) -> tuple[float, str]:
    """Return the width of the blur in pixels, and the reason for it."""
    if params.sigma:
        return params.sigma, f"{params.sigma:g} px, as set"
    size = optics.voxel_size[2]
    radius = float(np.median([structure_radius(p) for p in planes]))
    field = min(planes[0].shape[1:])
    sigma = params.sigma_um / size if size else 20.0
    why = f"{params.sigma_um:g} um at {size:g} um per pixel" if size else "20 px, as in the paper (voxel size unknown)"
    if sigma < 3 * radius:
        sigma, why = 3 * radius, f"3 times the structure radius of {radius:.1f} px, more than {why}"
    if sigma > field / 4:
        sigma, why = field / 4, f"a quarter of the field of {field} px, less than {why}"
    return round(sigma, 2), f"{sigma:.1f} px: {why}"

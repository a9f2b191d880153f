"""CARE: a surface in stacks, projected and restored at once, learned from pairs of stacks and planes.

Weigert et al., "Content-aware image restoration: pushing the limits of fluorescence microscopy", Nature Methods 2018,
and its supplement, section 2.3.3 and figure 12. Input is a noisy stack, target a plane that shows its surface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from deepcontrast import registry
from deepcontrast.config import Config, Table
from deepcontrast.flattened import Columns, flattened, planes_of, unflattened
from deepcontrast.normalize import Norm
from deepcontrast.patches import Column, hold_out, patch_size
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recalibration import Recalibration
from deepcontrast.stack import Frame, Stack
from deepcontrast.task import Bank, Geometry, Source
from deepcontrast.tasks._as_it_is import clean, windowed
from deepcontrast.tasks._columns import COLUMNS, WEIGHT, fill_columns
from deepcontrast.tasks._likeness import described, differs, ranges
from deepcontrast.tasks._norms import measure, median
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
    "fit",
    "geometry",
    "left",
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

PAIRED = True
DEEP = False
SIMULATED = False
BESIDE: tuple[str, ...] = ("height", "height_spread")
"""Where the surface is, and how far around it the network looks, in planes of the stack, the first of which is 0."""
NEAR = 2
"""Planes on either side of the largest weight of a column that count for the height; others may be another layer's."""


class Params(Table):
    """The ``[task]`` table.

    truth: where targets are stacks, the projection that makes planes of them, one of ``projections/``.
    norm, low, high, per_image, recalibrate, bank_mb, round_steps: as of the task ``denoise``.
    joint: not for surfaces; every channel has a network of its own.
    surface_depth, surface_features: of the network that finds the surface.
    """

    truth: str = "local_z_projector"
    norm: Literal["percentile", "mean_std"] = "mean_std"
    low: float = Field(2.0, ge=0, lt=50)
    high: float = Field(99.8, gt=50, le=100)
    per_image: bool = True
    recalibrate: bool = True
    joint: Literal[False] = False
    surface_depth: int = Field(4, ge=1, le=8)
    surface_features: int = Field(8, ge=1)
    bank_mb: int = Field(1500, ge=1)
    round_steps: int = Field(1000, ge=1)


@dataclass(frozen=True)
class Fit:
    """Every number of one channel that training and prediction need.

    Attributes:
        norm: of the stacks; where every one is normalised by itself, the median of those of training.
        target: of the targets, likewise; its inverse is what is done to the network's output. A stack of its own norm
            has a target's that differs from it as in training.
        kind, low, high, per_image: see :class:`Params`.
        planes: of the deepest stack of training.
        spacing_um: of its planes; ``None``: not known.
        patch: side of training patches.
        held_out: squares of the validation, (stack, y, x).
        widened, levels: see :class:`deepcontrast.recalibration.Recalibration`.
        seen: least and most, of the stacks of training, of what :func:`unlike` looks at.
    """

    norm: Norm
    target: Norm
    kind: str
    low: float
    high: float
    per_image: bool
    planes: int
    spacing_um: float | None
    patch: int
    held_out: tuple[Column, ...]
    widened: float = 1.0
    levels: tuple[float, ...] = (0.0, 1.0)
    seen: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def encode(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the numbers as JSON, as the model file keeps them; there are no images."""
        return asdict(self), {}

    @classmethod
    def decode(cls, table: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Fit:
        """Return the fit that was stored; the inverse of :meth:`encode`."""
        del arrays
        fields: dict[str, Any] = {
            **table,
            "norm": Norm(**table["norm"]),
            "target": Norm(**table["target"]),
            "held_out": tuple(tuple(column) for column in table["held_out"]),
            "levels": tuple(table["levels"]),
            "seen": {name: (low, high) for name, (low, high) in table["seen"].items()},
        }
        return cls(**fields)


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Measure the norms of one channel of all pairs, and choose what is held out.

    Raises:
        InputError: the planes are too small.
    """
    params = Params(**config.task)
    norms, targets = [], []
    for n, source in enumerate(sources):
        one, other = _pair_norms(source, params.norm, params.low, params.high)
        norms.append(one)
        targets.append(other)
        progress(Event("fit", n + 1, len(sources)))
    shapes = {id(s.stack): (s.stack.size("Y"), s.stack.size("X")) for s in sources}
    step = max(2**config.net.depth, 2**params.surface_depth)
    patch = min(patch_size(shape, config.train.patch, step) for shape in shapes.values())
    rng = np.random.default_rng(config.train.seed)
    return Fit(
        norm=median(norms),
        target=median(targets),
        kind=params.norm,
        low=params.low,
        high=params.high,
        per_image=params.per_image,
        planes=max(planes_of(source.stack) for source in sources),
        spacing_um=_spacing(sources[0].frame),
        patch=patch,
        held_out=hold_out(tuple(shapes.values()), patch, config.train.validation, rng),
        seen=ranges([described(source.frame, source.survey) for source in sources]),
    )


def _spacing(frame: Frame) -> float | None:
    """Return how far apart the planes are of the stack that a plane is of."""
    return unflattened(frame).stack.optics.voxel_size[0]


def _pair_norms(source: Source, kind: str, low: float, high: float) -> tuple[Norm, Norm]:
    """Return the norm of a stack and that of its target."""
    target = measure(source.truth, source.frame, source.survey, kind, low, high)
    return _norm_of(source.frame, kind, low, high), target


def _norm_of(frame: Frame, kind: str, low: float, high: float) -> Norm:
    """Return the norm of the stack that a plane is of."""
    volume = unflattened(frame)
    return measure(volume, volume, survey(volume), kind, low, high)


def paired(image: Stack, target: Stack, config: Config) -> tuple[Stack, Stack]:
    """Return a stack as a plane, and its target, of which a plane is made where it is a stack too."""
    if target.size("Z") == 1:
        return flattened(image), _plane(target)
    project = registry.load("projections", config.task["truth"])
    _, y, x = target.optics.voxel_size
    axes = target.axes.replace("Z", "")
    flat = np.empty([target.size(axis) for axis in axes], np.float32)
    made = replace(target, array=flat, axes=axes).with_optics(voxel_size=(None, y, x))
    for t in range(target.size("T")):
        for c in range(target.size("C")):
            flat[made.index(t, c)] = project(np.asarray(target.volume(t, c), np.float32)).image
    return flattened(image), made


def _plane(stack: Stack) -> Stack:
    """Return a stack of one plane without the axis Z."""
    if "Z" not in stack.axes:
        return stack
    _, y, x = stack.optics.voxel_size
    array = np.asarray(stack.array).squeeze(stack.axes.index("Z"))
    return replace(stack, array=array, axes=stack.axes.replace("Z", "")).with_optics(voxel_size=(None, y, x))


def on_grid(stack: Stack, fit: Fit) -> Stack:
    """Return a stack on the grid of its result: a plane."""
    return flattened(stack)


def own_norm(fit: Fit, frame: Frame, known: Survey) -> Norm | None:
    """Return the norm of a stack by itself, given its plane, where the model was trained so; else ``None``."""
    return _norm_of(frame, fit.kind, fit.low, fit.high) if fit.per_image else None


def normed(fit: Fit, norms: Sequence[Norm], c: int) -> Fit:
    """Return the fit for a stack of a norm of its own, whose grey levels the result will have too."""
    own = norms[c]
    bright = fit.target.scale / fit.norm.scale
    above = (fit.target.offset - fit.norm.offset) / fit.norm.scale
    return replace(fit, norm=own, target=Norm(own.offset + above * own.scale, bright * own.scale))


def of_pair(fit: Fit, source: Source) -> Fit:
    """Return the fit for a stack of training with its target, whose grey levels the result will have."""
    if not fit.per_image:
        return fit
    norm, target = _pair_norms(source, fit.kind, fit.low, fit.high)
    return replace(fit, norm=norm, target=target)


def bounds(fit: Fit) -> tuple[float, float]:
    """Return which shares of the predicted distribution lie below the bounds of its interval."""
    return Recalibration(fit.widened, fit.levels).bounds


def left(fit: Fit, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return, in the result's grey levels, values of the plane that were not restored."""
    return np.asarray(fit.target.invert(fit.norm(values.astype(np.float32))), np.float32)


def unlike(fit: Fit, frame: Frame, known: Survey) -> list[str]:
    """Return in words how a stack differs from all that the model was trained on, so that it may fail."""
    words = differs(fit.seen, frame, known, brightness=not fit.per_image)
    own = _spacing(frame)
    if own and fit.spacing_um and abs(own / fit.spacing_um - 1) > 0.05:
        words.append(f"its planes are {own:.3g} um apart, those of training {fit.spacing_um:.3g} um")
    return words


def cleaned(volume: Any, fit: Fit, known: Survey) -> Columns:
    """Return the columns of the stack that a plane is of."""
    return Columns(unflattened(volume))


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return stacks and targets, in network units, and where patches may start.

    Raises:
        InputError: no patch is free of invalid pixels and clear of the held-out squares.
    """
    fits = [of_pair(fit, source) for source in sources]

    def read(i: int, box: Box) -> tuple[Tensor, Tensor]:
        columns = cleaned(sources[i].frame, fit, sources[i].survey)[box][:, 0]
        target = np.asarray(sources[i].truth[box], np.float32)
        return torch.from_numpy(fits[i].norm(columns)), torch.from_numpy(fits[i].target(target))

    return fill_columns(
        sources, read,
        planes=fit.planes, patch=fit.patch, held_out=fit.held_out, megabytes=config.task["bank_mb"],
        rng=np.random.default_rng((seed, round)),
    )  # fmt: skip


def sample(
    batch: Mapping[str, Tensor], depth: Tensor, fit: Fit, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return stacks (N, 1, Z, Y, X), targets and weight (N, 1, Y, X), in network units; nothing is random."""
    columns, weight = batch[COLUMNS], batch.get(WEIGHT)
    planes = columns.shape[1] - 1
    return (
        columns.narrow(1, 0, planes).unsqueeze(1),
        columns.narrow(1, planes, 1),
        None if weight is None else weight.narrow(1, planes, 1),
    )


def build(fit: Fit, config: Config) -> nn.Module:
    """Return the network, its weights not yet set."""
    params = Params(**config.task)
    settings = config.net.model_dump(include={"depth", "features", "kernel", "bias", "residual", "last", "narrow"})
    net: nn.Module = registry.load("nets", "projection")(
        **settings,
        probabilistic=config.train.loss == "laplace",
        surface_depth=params.surface_depth,
        surface_features=params.surface_features,
    )
    return net


def geometry(net: nn.Module, fit: Fit, config: Config) -> Geometry:
    """Return how the plane may be cut; columns never are."""
    halo, step = int(net.halo), int(net.step)  # type: ignore[arg-type]
    return Geometry(halo=(0, halo, halo), step=(1, step, step))


def restore(net: nn.Module, tile: Tensor, fit: Fit, config: Config) -> dict[str, Tensor]:
    """Apply the network once to columns (Z, 1, Y, X) in grey levels.

    Beside ``"mean"``, and ``"scale"`` of a network that predicts it, the ``"height"`` of the surface and its
    ``"height_spread"``, (1, Y, X) each, in planes: the centre of the weights of a column within ``NEAR`` planes of the
    largest, and the root of the mean square distance from it of all of them.
    """
    x = fit.norm(tile).permute(1, 0, 2, 3)[None]
    weights = net.surface(x)  # type: ignore[operator]
    found = net.seen(x, weights)[0]  # type: ignore[operator]
    z = torch.arange(len(tile), device=tile.device, dtype=tile.dtype).view(-1, 1, 1)
    share = weights[0, 0].float()
    near = share * ((z - share.argmax(0)).abs() <= NEAR)
    height = (near * z).sum(0) / near.sum(0)
    spread = (share * (z - height).square()).sum(0).sqrt()
    maps = {"mean": fit.target.invert(found[:1]), "height": height[None], "height_spread": spread[None]}
    return maps | ({"scale": found[1:] * (fit.widened * fit.target.scale)} if len(found) > 1 else {})

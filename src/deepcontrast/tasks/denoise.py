"""CARE: learn to restore images from pairs, one of low and one of high signal-to-noise ratio.

Weigert et al., "Content-aware image restoration: pushing the limits of fluorescence microscopy", Nature Methods 2018,
and its supplement, sections 1 and 2.2. Input is a noisy image, target a registered one of the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import Tensor, nn

from deepcontrast.bank import CENTRE, WEIGHT, fill_bank
from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config, Table
from deepcontrast.histogram import percentiles
from deepcontrast.normalize import Norm
from deepcontrast.patches import Column, hold_out, patch_size
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recalibration import Recalibration
from deepcontrast.stack import Frame
from deepcontrast.task import Bank, Source
from deepcontrast.tasks._as_it_is import clean, cleaned, on_grid, paired, windowed
from deepcontrast.tasks._likeness import described, differs, ranges
from deepcontrast.tasks._norms import measure, median
from deepcontrast.tasks._planes import Together, applied, geometry, layers_of
from deepcontrast.tasks._planes import build as build_net
from deepcontrast.valid import Box, Survey

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
    "join",
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
BESIDE: tuple[str, ...] = ()
BRIGHT = 99.9
"""Percentile of the target that foreground is measured by."""


class Params(Table):
    """The ``[task]`` table.

    norm: what is subtracted and divided by: ``"percentile"`` takes the percentile ``low`` to 0 and ``high`` to 1,
        ``"mean_std"`` the mean to 0 and the standard deviation to 1.
    low, high: percentages.
    per_image: every image is normalised by itself, in training and when the model is applied; else all by the same
        numbers.
    alike: input and target are in the same grey levels: both are normalised by the numbers of the input, and the result
        is in its grey levels; else each by its own, and the result has mean and spread (or percentiles) of the input.
    foreground: patches are drawn where the target, within a quarter of a patch around their middle, is somewhere
        brighter than this share of its percentile 99.9; 0 draws them everywhere (CSBDeep: 0.4).
    joint: one network is given all channels of an image and restores them together; else each has one of its own.
    recalibrate: of networks that predict a scale, set width and shape of what they predict right by held-out patches.
    bank_mb: memory for the planes that patches are cut from; of more than fit, others take their turn.
    round_steps: steps after which another set of planes takes its turn.
    """

    norm: Literal["percentile", "mean_std"] = "mean_std"
    low: float = Field(2.0, ge=0, lt=50)
    high: float = Field(99.8, gt=50, le=100)
    per_image: bool = True
    alike: bool = False
    foreground: float = Field(0.4, ge=0, lt=1)
    joint: bool = False
    recalibrate: bool = True
    bank_mb: int = Field(1500, ge=1)
    round_steps: int = Field(1000, ge=1)


@dataclass(frozen=True)
class Fit:
    """Every number of one channel that training and prediction need.

    Attributes:
        norm: of the inputs: what is done to grey values before the network; where every image is normalised by itself,
            the median of those of training.
        target: of the targets, likewise; its inverse is what is done to the network's output.
        kind, low, high: how an image's own is measured, see :class:`Params`.
        per_image: whether every image is normalised by itself.
        alike: whether input and target are normalised by the same numbers.
        patch: side of training patches.
        held_out: squares of the validation, (stack, y, x).
        layers: planes that the network is given for each one, relative to it; itself in their middle.
        in_space: whether the network is one in space, trained on slabs of so many planes; else they are its channels.
        widened: by which predicted scales are multiplied, so that they suit the held-out patches.
        levels: what is done to their probabilities, see :class:`deepcontrast.recalibration.Recalibration`.
        seen: least and most, of the images of training, of what :func:`unlike` looks at.
        channel: its number among those that the network is given ``together``.
        together: of each of those, what ``norm`` and ``target`` are of this one; none where it is given this one alone.
    """

    norm: Norm
    target: Norm
    kind: str
    low: float
    high: float
    per_image: bool
    patch: int
    held_out: tuple[Column, ...]
    layers: tuple[int, ...]
    in_space: bool
    alike: bool = False
    widened: float = 1.0
    levels: tuple[float, ...] = (0.0, 1.0)
    seen: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    channel: int = 0
    together: tuple[tuple[Norm, Norm], ...] = ()

    def encode(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the numbers as JSON, as the model file keeps them; there are no images."""
        return asdict(self), {}

    @classmethod
    def decode(cls, table: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the fit that was stored; the inverse of :meth:`encode`."""
        del arrays
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
        fields |= {
            "norm": Norm(**table["norm"]),
            "target": Norm(**table["target"]),
            "held_out": tuple(tuple(column) for column in table["held_out"]),
            "seen": {name: (low, high) for name, (low, high) in table.get("seen", {}).items()},
            "together": tuple((Norm(**one), Norm(**other)) for one, other in table.get("together", ())),
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
        one, other = pair_norms(source, params.norm, params.low, params.high, alike=params.alike)
        norms.append(one)
        targets.append(other)
        progress(Event("fit", n + 1, len(sources)))
    shapes = {id(s.stack): (s.stack.size("Y"), s.stack.size("X")) for s in sources}
    patch = min(patch_size(shape, config.train.patch, 2**config.net.depth) for shape in shapes.values())
    in_space = config.net.dims == 3
    layers = layers_of(sources, config.net)
    rng = np.random.default_rng(config.train.seed)
    return Fit(
        norm=median(norms),
        target=median(targets),
        kind=params.norm,
        low=params.low,
        high=params.high,
        per_image=params.per_image,
        alike=params.alike,
        patch=patch,
        held_out=hold_out(tuple(shapes.values()), patch, config.train.validation, rng),
        layers=layers,
        in_space=in_space and len(layers) > 1,
        seen=ranges([described(source.frame, source.survey) for source in sources]),
    )


def join(fits: Sequence[Fit]) -> list[Fit]:
    """Return the fits of all channels of an image for one network that restores them together."""
    together = tuple((one.norm, one.target) for one in fits)
    return [replace(one, channel=c, together=together) for c, one in enumerate(fits)]


def pair_norms(source: Source, kind: str, low: float, high: float, *, alike: bool) -> tuple[Norm, Norm]:
    """Return the norms of an input and its target, both measured where the input is not empty, or that of the input."""
    one = measure(source.frame, source.frame, source.survey, kind, low, high)
    return one, one if alike else measure(source.truth, source.frame, source.survey, kind, low, high)


def own_norm(fit: Fit, frame: Frame, known: Survey) -> Norm | None:
    """Return the norm of an image by itself, where the model was trained so; else ``None``."""
    return measure(frame, frame, known, fit.kind, fit.low, fit.high) if fit.per_image else None


def normed(fit: Fit, norms: Sequence[Norm], c: int) -> Fit:
    """Return the fit for a channel of an image of norms of its own, whose grey levels the result will have too."""
    together = tuple((one, one) for one in norms) if fit.together else ()
    return replace(fit, norm=norms[c], target=norms[c], together=together)


def of_pair(fit: Fit, source: Source) -> Fit:
    """Return the fit for an image of training with its target, whose grey levels the result will have."""
    if not fit.per_image:
        return fit
    norm, target = pair_norms(source, fit.kind, fit.low, fit.high, alike=fit.alike)
    together = tuple(pair_norms(one, fit.kind, fit.low, fit.high, alike=fit.alike) for one in source.together)
    return replace(fit, norm=norm, target=target, together=together)


def bounds(fit: Fit) -> tuple[float, float]:
    """Return which shares of the predicted distribution lie below the bounds of its interval."""
    return Recalibration(fit.widened, fit.levels).bounds


def left(fit: Fit, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return, in the result's grey levels, values of the image that were not restored."""
    return np.asarray(fit.target.invert(fit.norm(values.astype(np.float32))), np.float32)


def unlike(fit: Fit, frame: Frame, known: Survey) -> list[str]:
    """Return in words how an image differs from all that the model was trained on, so that it may fail."""
    return differs(fit.seen, frame, known, brightness=not fit.per_image)


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return planes of inputs and targets, in network units, and where patches may start.

    Raises:
        InputError: no patch is free of invalid voxels and clear of the held-out squares.
    """
    params = Params(**config.task)
    count = max(1, len(fit.together))
    names = [*_names("input", count), *_names("target", count)]
    if not all(source.all_valid for source in sources):
        names.append(WEIGHT)

    @cache
    def opened(i: int, c: int) -> tuple[Source, Cleaned, tuple[Norm, Norm], float]:
        """Return a channel of a source, its filled input, both norms, and how bright its foreground is."""
        source = sources[i].channels[c]
        norms = fit.together[c] if fit.together else (fit.norm, fit.target)
        if fit.per_image:
            norms = pair_norms(source, fit.kind, fit.low, fit.high, alike=fit.alike)
        least = -np.inf
        if params.foreground:
            lowest, top = percentiles(
                lambda: (np.asarray(source.truth[z]).ravel() for z in range(len(source.truth))), [0.0, BRIGHT]
            )
            # Of a target that shows nothing patches are drawn from everywhere.
            least = params.foreground * top if top > lowest else -np.inf
        return source, cleaned(source.frame, fit, source.survey), norms, least

    def read(i: int, box: Box) -> Iterator[tuple[str, Tensor]]:
        shape = [part.stop - part.start for part in box]
        bright = np.zeros(shape, bool)
        for c in range(count):
            source, image, (norm, target), least = opened(i, c)
            truth = source.truth[box]
            yield _names("input", count)[c], torch.from_numpy(norm(image[box]))
            yield _names("target", count)[c], torch.from_numpy(target(truth.astype(np.float32)))
            if params.foreground:
                size = (1, max(1, fit.patch // 2), max(1, fit.patch // 2))
                bright |= ndimage.maximum_filter(truth, size, mode="nearest") > least
        if params.foreground:
            yield CENTRE, torch.from_numpy(bright)
        if WEIGHT in names:
            valid = sources[i].valid(box)
            yield WEIGHT, torch.ones(shape) if valid is None else torch.from_numpy(valid).float()

    return fill_bank(
        sources, names, read,
        patch=fit.patch, offsets=fit.layers, slabs=fit.in_space, held_out=fit.held_out, megabytes=params.bank_mb,
        rng=np.random.default_rng((seed, round)),
    )  # fmt: skip


def sample(
    batch: Mapping[str, Tensor], depth: Tensor, fit: Fit, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return inputs with their neighbours (N, C, Y, X), targets (N, channels, Y, X) and weight (N, 1, Y, X) of planes.

    For a network in space all three are of slabs, (N, channels, Z, Y, X), the weight (N, 1, Z, Y, X). All are in
    network units; nothing is random.
    """
    count = max(1, len(fit.together))
    images = [batch[name] for name in _names("input", count)]
    targets = [batch[name] for name in _names("target", count)]
    weight = batch.get(WEIGHT)
    if fit.in_space:
        return torch.stack(images, 1), torch.stack(targets, 1), None if weight is None else weight.unsqueeze(1)
    middle = len(fit.layers) // 2
    truth = torch.cat([target.narrow(1, middle, 1) for target in targets], 1)
    return torch.cat(images, 1), truth, None if weight is None else weight.narrow(1, middle, 1)


def restore(net: nn.Module, tile: Tensor, fit: Fit, config: Config) -> dict[str, Tensor]:
    """Apply the network once to a tile in grey levels: (Z + 2 context, Y, X), of which (Z, Y, X) are restored.

    Of channels that are restored together the tile is (C, Z + 2 context, Y, X), that which is asked for first.
    """
    together = Together(fit.channel, tuple(norm for norm, _ in fit.together)) if fit.together else None
    return applied(net, tile, fit, fit.target, widened=fit.widened, together=together)


def build(fit: Fit, config: Config) -> nn.Module:
    """Return the network, its weights not yet set."""
    return build_net(fit, config, max(1, len(fit.together)))


def _names(kind: str, count: int) -> list[str]:
    """Return what the images of so many channels are called."""
    return [kind] if count == 1 else [f"{kind}{c}" for c in range(count)]

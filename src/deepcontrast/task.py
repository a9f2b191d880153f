"""What every task is: the functions that the trainer and the tiler call, whatever is restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.normalize import Norm
from deepcontrast.progress import Progress
from deepcontrast.stack import Frame, Stack
from deepcontrast.valid import Box, Invalid, Survey, codes, invalid_of, survey
from deepcontrast.views import AS_IT_IS, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


KEPT = 2**27
"""Voxels of a stack that is small enough to keep which of its voxels are invalid."""


@dataclass(frozen=True, eq=False)
class Source:
    """One time point of one channel of a stack, with the depth of its planes.

    Attributes:
        stack: where the voxels are.
        t: index of the time point.
        c: index of the channel.
        depth: of each plane below the surface (Z,), in micrometres, or in planes where the spacing is unknown.
        target: a registered stack of the same shape that shows what the network should make of it, for a task that
            learns from pairs.
        together: the same time point of all channels, for a network that restores them together.
    """

    stack: Stack
    t: int
    c: int
    depth: NDArray[np.float64]
    target: Stack | None = None
    together: tuple[Source, ...] = ()

    @property
    def frame(self) -> Frame:
        """The voxels (Z, Y, X), unread."""
        return self.stack.frame(self.t, self.c)

    @property
    def truth(self) -> Frame:
        """The voxels of the target (Z, Y, X), unread.

        Raises:
            InputError: there is no target.
        """
        if self.target is None:
            raise InputError(f"'{self.stack.source}' has no target to learn from")
        return self.target.frame(self.t, self.c)

    @cached_property
    def survey(self) -> Survey:
        """What one reading of all voxels tells; saturated ones are valid where a target shows what they are."""
        if self.together:
            return self.together[self.c].survey
        known = survey(self.frame)
        return known if self.target is None else known.with_saturation()

    @property
    def channels(self) -> tuple[Source, ...]:
        """What a network is given of it: the channels that are restored together, or this one."""
        return self.together or (self,)

    @property
    def all_valid(self) -> bool:
        """Whether every voxel holds a measurement, in all channels that are restored together."""
        return all(one.survey.all_valid for one in self.channels)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return which voxels of a box (slices of Z, Y, X with start and stop) hold a measurement; ``None``: all do.

        Of channels that are restored together, in all of them. Of a stack larger than ``KEPT`` voxels nothing is kept:
        it is read again, the box only or its planes.
        """
        if self.all_valid:
            return None
        if self.together:
            known = [one.valid(box) for one in self.together]
            in_all: NDArray[np.bool_] = np.logical_and.reduce([one for one in known if one is not None])
            return in_all
        kept = self.invalid.codes if self.frame.size <= KEPT else None
        found: NDArray[np.uint8] = codes(self.frame, self.survey, box) if kept is None else kept[box]
        valid: NDArray[np.bool_] = found == 0
        return valid

    def volume(self) -> NDArray[Any]:
        """Return the voxels as they were read, (Z, Y, X), all in memory."""
        return self.stack.volume(self.t, self.c)

    @cached_property
    def invalid(self) -> Invalid:
        """Voxels that hold no measurement, all in memory."""
        return invalid_of(self.frame, self.survey)


@dataclass(frozen=True)
class Geometry:
    """How a network may be applied to a volume (Z, Y, X) piece by piece.

    Attributes:
        halo: how far it looks, per axis.
        step: its total stride, per axis.
        context: planes above and below that it is given with those that it restores.
        channels: of the image that it is given together; with several a tile is (C, Z, Y, X), see
            :class:`deepcontrast.joined.Joined`.
        views: in which orders of its axes a volume is restored, for a result that is the mean of all of them; lengths
            above are along the axes of a view.
        above: the mean over views is the geometric one, of what lies above this grey level; ``None``: the arithmetic.
    """

    halo: tuple[int, int, int]
    step: tuple[int, int, int]
    context: int = 0
    channels: int = 1
    views: tuple[View, ...] = (AS_IT_IS,)
    above: float | None = None


@dataclass(frozen=True, eq=False)
class Bank:
    """Co-registered images in pieces, planes or windows of planes, that training patches are cut from.

    The pieces of an image lie one after another in one flat tensor, so that a batch of patches is one gathering by
    computed indices, whatever the sizes of the pieces.

    Attributes:
        images: for every name, the voxels of all pieces (voxels,).
        start: int64 (P,): where each piece begins in them.
        width: int64 (P,): length of a row of each piece.
        layers: int64 (P, C): the pieces that a patch of each piece is cut from, itself in their middle.
        depth: of each piece (P,).
        corners: int64 (M, 3): piece, y, x where a training patch may start, plus a shift below ``jitter`` along
            y and x.
        jitter: spacing of the grid of corners.
        validation: for every name, the held-out patches (V, C, Y, X), the same in every round.
        validation_depth: their depths (V,).
        complete: whether all planes are in it, so that every round has the same bank.
    """

    images: Mapping[str, Tensor]
    start: Tensor
    width: Tensor
    layers: Tensor
    depth: Tensor
    corners: Tensor
    jitter: int
    validation: Mapping[str, Tensor]
    validation_depth: Tensor
    complete: bool

    def to(self, device: str) -> Bank:
        """Return the bank on a device."""
        return replace(
            self,
            images={name: image.to(device) for name, image in self.images.items()},
            start=self.start.to(device),
            width=self.width.to(device),
            layers=self.layers.to(device),
            depth=self.depth.to(device),
            corners=self.corners.to(device),
            validation={name: patches.to(device) for name, patches in self.validation.items()},
            validation_depth=self.validation_depth.to(device),
        )


class Task(Protocol):
    """A module of ``tasks/``. Its ``Params`` are the ``[task]`` table of the TOML file.

    ``PAIRED`` says whether it learns from pairs of images, ``DEEP`` whether from how a stack fades with depth: then it
    matters where the surface is, ``enhance`` chooses how often it is applied, and what is saturated stays as it is.
    ``SIMULATED`` says whether it makes its pairs itself, of images of high quality, single planes too, or of nothing.
    ``BESIDE`` are the names of what :meth:`restore` always gives beside the mean, for maps that are written too.
    """

    PAIRED: bool
    DEEP: bool
    SIMULATED: bool
    BESIDE: tuple[str, ...]
    Params: type[BaseModel]
    Fit: type[Any]

    def fit(self, sources: Sequence[Source], config: Config, *, progress: Progress) -> Any:
        """Estimate, once, every number that later stages need."""

    def clean(self, volume: NDArray[Any], fit: Any, invalid: Invalid | None = None) -> NDArray[np.float32]:
        """Return a volume (Z, Y, X) without camera pattern and empty voxels: what is trained on and restored."""

    def cleaned(self, volume: Any, fit: Any, known: Survey) -> Cleaned:
        """Return the same of a volume of which only what is sliced is read, given its survey."""

    def own_norm(self, fit: Any, frame: Frame, known: Survey) -> Norm | None:
        """Return the norm of an image by itself, given its survey, where models of this fit are applied so."""

    def simulated(self, config: Config) -> Stack:
        """Return an image in place of those that are read; of a task that makes its pairs of nothing."""

    def pairs(self, sources: Sequence[Source], config: Config) -> list[Source]:
        """Return pairs as training makes them of its images; of a task that makes its pairs."""

    def assumed(self, stack: Stack, config: Config) -> list[str]:
        """Return in words what is assumed of an image whose file does not say it; of a task that makes its pairs."""

    def on_grid(self, stack: Stack, fit: Any) -> Stack:
        """Return an image on the grid of its result, of which it has the axes and voxels: what is restored."""

    def paired(self, image: Stack, target: Stack, config: Config) -> tuple[Stack, Stack]:
        """Return an image and its target on one grid, for training; of a task that learns from pairs."""

    def matches(self, fit: Any) -> bool:
        """Return whether :meth:`matched` has a meaning; of a task whose settings have ``match``."""

    def matched(self, fit: Any, restored: NDArray[np.float32]) -> Any:
        """Return the fit set right by a part (Z, Y, X) of what its networks make of an image of training."""

    def unlike(self, fit: Any, frame: Frame, known: Survey) -> list[str]:
        """Return in words how an image, given its survey, differs from all that the model was trained on."""

    def left(self, fit: Any, values: NDArray[Any]) -> NDArray[Any]:
        """Return, in the result's grey levels, values of the image that were not restored."""

    def normed(self, fit: Any, norms: Sequence[Norm], c: int) -> Any:
        """Return the fit for a channel of an image of which all have norms of their own; of a task that has such."""

    def of_pair(self, fit: Any, source: Source) -> Any:
        """Return the fit for an image of training with its target, whose grey levels the result will have."""

    def bounds(self, fit: Any) -> tuple[float, float]:
        """Return which shares of the predicted distribution lie below the bounds of its interval."""

    def windowed(self, fit: Any, field: tuple[int, int], y: slice, x: slice) -> Any:
        """Return the fit for a window of the planes, of which an excerpt is."""

    def prepare(self, sources: Sequence[Source], fit: Any, config: Config, *, seed: int, round: int) -> Bank:
        """Return what patches are cut from. Pure: the same arguments give the same bytes."""

    def sample(
        self,
        batch: Mapping[str, Tensor],
        depth: Tensor,
        fit: Any,
        generator: torch.Generator,
        config: Config,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return input, target and weight (N, 1, Y, X) of a batch, with fresh noise."""

    def degrade(self, source: Source, fit: Any, config: Config, generator: torch.Generator) -> NDArray[np.float32]:
        """Return what training shows the network, of a whole volume (Z, Y, X), in grey levels; not of pairs."""

    def example(
        self, source: Source, z: int, fit: Any, config: Config
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a plane and its degradation, (Y, X) each, in grey levels, for the report; not of pairs."""

    def build(self, fit: Any, config: Config) -> nn.Module:
        """Return the network, its weights not yet set."""

    def geometry(self, net: nn.Module, fit: Any, config: Config) -> Geometry:
        """Return halo and step of the network along Z, Y, X."""

    def restore(self, net: nn.Module, tile: Tensor, fit: Any, config: Config) -> dict[str, Tensor]:
        """Restore one tile (Z, Y, X), or (C, Z, Y, X), once, in grey levels; ``"mean"`` is always there."""

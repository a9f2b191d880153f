"""What held-out patches say of how far the networks of a channel can be trusted: kept in the model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.calibration import Calibration, covered, distances, reliability
from deepcontrast.config import Config
from deepcontrast.flattened import planes_in
from deepcontrast.joined import given
from deepcontrast.patches import squares, validation_places
from deepcontrast.prediction import make_plan, predict_apart
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recalibration import Recalibration, recalibrate
from deepcontrast.task import Source
from deepcontrast.uncertainty import MAPS, disagreement

TILE = 32
"""Side of the tiles, in pixels, that are trusted or not."""

ORDINARY = 99.0
"""Percentage of held-out tiles whose networks disagree less than what is called too much."""

SMALL = 0.01
"""A distance that calibration is judged at, as a share of the range of the truth (CARE supplement, section 3)."""


@dataclass(frozen=True)
class Trust:
    """What held-out patches say of the networks of one channel.

    Attributes:
        too_much: mean disagreement of a tile that only 1 % of held-out tiles exceed; ``None`` of a single network.
        tiles: how many there were.
        before: calibration as trained, of the first network, the first two, and so on; none where the target is not the
            truth.
        after: of all networks, their distributions set right by all held-out patches; judged on every other one, set
            right by the rest; ``None`` where that is not wanted.
    """

    too_much: float | None
    tiles: int
    before: tuple[Calibration, ...]
    after: Calibration | None

    def describe(self) -> list[str]:
        """Return it in lines for the user."""
        lines = [f"held-out patches, {_networks(one.members)}: {one.describe()}" for one in self.before]
        if self.after:
            lines.append(
                f"scales are multiplied by {self.after.factor:.2f} and probabilities set right, by these patches; "
                f"where that was done by half of them, on the others: {self.after.describe()}"
            )
        if self.too_much is None:
            return [*lines, "a single network does not disagree: what it does not know cannot be told (--ensemble 5)"]
        return [
            *lines,
            f"disagreement above {self.too_much:.3f} is too much: 1 % of {self.tiles} held-out tiles exceed it",
        ]

    def encode(self) -> dict[str, Any]:
        """Return it as JSON, as the model file keeps it."""
        return asdict(self)

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Trust:
        """Return what was stored; the inverse of :meth:`encode`."""
        before = tuple(map(Calibration.decode, table["before"]))
        after = None if table["after"] is None else Calibration.decode(table["after"])
        return cls(table["too_much"], table.get("tiles", 0), before, after)


def _networks(count: int) -> str:
    return "1 network" if count == 1 else f"{count} networks"


def trust(
    task: Any,
    sources: Sequence[Source],
    fit: Any,
    config: Config,
    nets: Sequence[nn.Module],
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> Trust:
    """Return what the held-out squares of images say of networks that were trained on the rest of them.

    The networks are applied as they are to any image: with all that lies around a square, in all orientations.

    Args:
        task: what they restore.
        sources: the images, all of one channel.
        fit: numbers of the channel.
        config: the settings they were trained with.
        nets: the networks, which predict a scale, on the device.
        device: where they are.
        progress: gets an event per square; may raise Cancelled.
    """
    places = validation_places(sources, squares(sources, fit.held_out), fit.patch)
    squares_of = [(i, (slice(z, z + 1), slice(y, y + fit.patch), slice(x, x + fit.patch))) for i, z, y, x in places]
    fits = {i: task.of_pair(fit, sources[i]) for i in sorted({i for i, _ in squares_of})}
    step = task.geometry(nets[0], fit, config).step[0]
    found = []
    for n, (i, box) in enumerate(squares_of):
        source, own = sources[i], fits[i]
        volumes = [task.cleaned(one.frame, own, one.survey) for one in source.channels]
        volume = given(source.c if source.together else 0, len(volumes), volumes.__getitem__)
        # A tile is no larger than a square: all of it is computed.
        block = (step, fit.patch, fit.patch)
        plan = make_plan(
            task, nets[:1], volume.shape, own, config, device=device, block=block, maps=MAPS, planes=planes_in(volume)
        )
        means, scales = predict_apart(task, nets, volume, own, config, box=box, plan=plan, device=device)
        target = None if source.target is None else source.truth[box].astype(np.float32)
        found.append(_Square(torch.from_numpy(means), torch.from_numpy(scales), target, source.valid(box), own))
        progress(Event("trust", n + 1, len(squares_of)))
    before: tuple[Calibration, ...] = ()
    after: Calibration | None = None
    if sources[0].target is not None:
        before, after = _judged(found, recalibrating=config.task["recalibrate"])
    factor = after.factor if after else 1.0
    differs = torch.stack([disagreement(one.means, one.scales * factor) for one in found]).numpy()
    tiles = (_tile_sums(differs) / _tile_sums(np.ones_like(differs))).ravel()
    return Trust(float(np.percentile(tiles, ORDINARY)) if len(nets) > 1 else None, len(tiles), before, after)


@dataclass(frozen=True, eq=False)
class _Square:
    """A held-out square: means and scales (M, 1, Y, X), the truth (1, Y, X), where it is known, and its fit."""

    means: Tensor
    scales: Tensor
    truth: NDArray[np.float32] | None
    known: NDArray[np.bool_] | None
    fit: Any


def _judged(found: Sequence[_Square], *, recalibrating: bool) -> tuple[tuple[Calibration, ...], Calibration | None]:
    """Return the calibration as trained, of the first networks, and that of all where their distributions are right."""
    means, scales, truth, odd = [], [], [], []
    for n, one in enumerate(found):
        known = slice(None) if one.known is None else torch.from_numpy(one.known).flatten()
        norm, count = one.fit.target, len(one.means)
        means.append(norm(one.means.reshape(count, -1)[:, known]))
        scales.append(one.scales.reshape(count, -1)[:, known] / norm.scale)
        truth.append(norm(torch.from_numpy(np.asarray(one.truth)).flatten()[known]))
        odd.append(torch.full_like(truth[-1], n % 2, dtype=torch.bool))
    mean, scale, true = torch.cat(means, 1), torch.cat(scales, 1), torch.cat(truth)
    low, high = np.percentile(true.numpy(), (0.1, 99.9))
    unit = max(float(high - low), 1e-6)
    mean, scale, true = mean / unit, scale / unit, true / unit

    at = distances(mean, true, [SMALL])

    def judged(count: int, right: Recalibration, on: Tensor | slice) -> Calibration:
        some = mean[:count, on], scale[:count, on], true[on]
        diagrams = tuple(reliability(*some, d, right) for d in at)
        return Calibration(count, right.factor, diagrams, covered(*some, right), right.levels)

    before = tuple(judged(count, Recalibration(), slice(None)) for count in range(1, len(mean) + 1))
    if not recalibrating:
        return before, None
    right = recalibrate(mean, scale, true)
    others = torch.cat(odd)
    if not others.any():
        return before, judged(len(mean), right, slice(None))
    after = judged(len(mean), recalibrate(mean[:, ~others], scale[:, ~others], true[~others]), others)
    return before, replace(after, factor=right.factor, levels=right.levels)


def area_beyond(image: NDArray[np.float32], too_much: float) -> tuple[int, int]:
    """Return how many pixels of a map of disagreement (..., Y, X) lie in tiles of too much, and how many are known.

    What is NaN is not known.
    """
    known = np.isfinite(image)
    count, total = _tile_sums(known), _tile_sums(np.where(known, image, 0))
    return int(count[total > too_much * count].sum()), int(count.sum())


def verdict_of(share: float) -> str:
    """Return in words what it means that the networks disagree too much in a share of the area."""
    if share == 0:
        return (
            "nowhere do the networks disagree more than in the held-out parts of the training images (which is no "
            "proof: they may be wrong alike)"
        )
    return (
        f"{share:.1%} of the area is not trustworthy: there the networks disagree more than in {ORDINARY:.0f} % of the "
        "held-out parts of the training images; see the map of disagreement"
    )


def _tile_sums(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums of an image (..., Y, X) over its tiles; those at the far ends may be smaller."""
    sums: NDArray[np.float64] = image.astype(np.float64)
    for axis in (-2, -1):
        sums = np.add.reduceat(sums, np.arange(0, image.shape[axis], TILE), axis=axis)
    return sums

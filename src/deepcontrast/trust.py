"""What held-out patches say of how far the networks of a channel can be trusted: kept in the model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.calibration import Reliability, best_factor, covered, distances, reliability
from deepcontrast.config import Config
from deepcontrast.task import Bank, Source
from deepcontrast.training import seed_of
from deepcontrast.uncertainty import INTERVAL, disagreement

TILE = 16
"""Side of the tiles, in pixels, that are trusted or not."""

ORDINARY = 99.0
"""Percentage of held-out tiles whose networks disagree less than what is called too much."""

SMALL = 0.01
"""A distance that calibration is judged at, as a share of the range of the truth (CARE supplement, section 3)."""


@dataclass(frozen=True)
class Calibration:
    """How well distributions describe where the truth lies.

    Attributes:
        members: how many networks, the first ones, they are the mixture of.
        factor: by which the scales were multiplied.
        diagrams: at several distances, in shares of the range of the truth.
        inside: share of the truth within the interval that ``INTERVAL`` of it should lie in.
    """

    members: int
    factor: float
    diagrams: tuple[Reliability, ...]
    inside: float

    def describe(self) -> str:
        """Return it in words for the user."""
        errors = ", ".join(f"{one.error:.1%} at {one.distance:.3f}" for one in self.diagrams)
        return f"calibration error {errors} of the range; {self.inside:.1%} lie in the {INTERVAL:.0%} interval"


@dataclass(frozen=True)
class Trust:
    """What held-out patches say of the networks of one channel.

    Attributes:
        too_much: mean disagreement of a tile that only 1 % of held-out tiles exceed.
        before: calibration as trained, of the first network, the first two, and so on.
        after: of all networks, their scales multiplied by the likeliest factor; ``None`` where the target is not the
            truth, or that is not wanted.
    """

    too_much: float
    before: tuple[Calibration, ...]
    after: Calibration | None

    def describe(self) -> list[str]:
        """Return it in lines for the user."""
        count = len(self.before)
        lines = [f"held-out patches, {count} network{'s' * (count > 1)}: {self.before[-1].describe()}"]
        if self.after:
            lines.append(f"scales are multiplied by {self.after.factor:.2f}: {self.after.describe()}")
        return lines

    def encode(self) -> dict[str, Any]:
        """Return it as JSON, as the model file keeps it."""
        return asdict(self)

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Trust:
        """Return what was stored; the inverse of :meth:`encode`."""
        before = tuple(map(_calibration, table["before"]))
        after = None if table["after"] is None else _calibration(table["after"])
        return cls(table["too_much"], before, after)


def _calibration(table: Mapping[str, Any]) -> Calibration:
    def diagram(of: Mapping[str, Any]) -> Reliability:
        return Reliability(of["distance"], *(tuple(of[name]) for name in ("confidence", "accuracy", "share")))

    return Calibration(**{**table, "diagrams": tuple(map(diagram, table["diagrams"]))})


def trust(
    task: Any,
    sources: Sequence[Source],
    fit: Any,
    config: Config,
    nets: Sequence[nn.Module],
    *,
    device: str = "cpu",
) -> Trust:
    """Return what the held-out patches of images say of networks that were trained on the rest of them.

    Args:
        task: what they restore.
        sources: the images, all of one channel.
        fit: numbers of the channel.
        config: the settings they were trained with.
        nets: the networks, which predict a scale, on the device.
        device: where they are.
    """
    bank = task.prepare(sources, fit, config, seed=seed_of(config.train.seed, 0, 3), round=0)
    means, scales, truth, known = _predicted(task, bank, fit, config, nets, device)
    known_means, known_scales, truth = means[:, known], scales[:, known], truth[known]
    low, high = np.percentile(truth.numpy()[:: max(1, truth.numel() // 10**6)], (0.1, 99.9))
    unit = max(float(high - low), 1e-6)
    known_means, known_scales, truth = known_means / unit, known_scales / unit, truth / unit

    def judged(count: int, factor: float) -> Calibration:
        some = known_means[:count], known_scales[:count] * factor
        diagrams = tuple(reliability(*some, truth, d) for d in distances(known_means, truth, [SMALL]))
        return Calibration(count, factor, diagrams, covered(*some, truth, INTERVAL))

    before = tuple(judged(count, 1.0) for count in range(1, len(nets) + 1))
    after = None
    if task.PAIRED and config.task["recalibrate"]:
        after = judged(len(nets), best_factor(known_means, known_scales, truth))
    # As the networks are applied, scales multiplied and all.
    differs = disagreement(means, scales * (after.factor if after else 1.0)).numpy()
    too_much = np.percentile(_tile_sums(differs) / _tile_sums(np.ones_like(differs)), ORDINARY)
    return Trust(float(too_much), before, after)


def area_beyond(image: NDArray[np.float32], too_much: float) -> tuple[int, int]:
    """Return how many pixels of a map of disagreement (..., Y, X) lie in tiles of too much, and how many are known.

    What is NaN is not known.
    """
    known = np.isfinite(image)
    count, total = _tile_sums(known), _tile_sums(np.where(known, image, 0))
    return int(count[total > too_much * count].sum()), int(count.sum())


def verdict_of(share: float) -> str:
    """Return in words what it means that the networks disagree too much in a share of the area."""
    much = "nothing" if share == 0 else f"{share:.1%} of the area"
    return (
        f"{much} is not trustworthy: there the networks disagree more than in {ORDINARY:.0f} % of the held-out parts "
        "of the training images; see the map of disagreement"
    )


def _tile_sums(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums of an image (..., Y, X) over its tiles; those at the far ends may be smaller."""
    sums: NDArray[np.float64] = image.astype(np.float64)
    for axis in (-2, -1):
        sums = np.add.reduceat(sums, np.arange(0, image.shape[axis], TILE), axis=axis)
    return sums


def _predicted(
    task: Any, bank: Bank, fit: Any, config: Config, nets: Sequence[nn.Module], device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return means and scales (M, V, ..., Y, X) of held-out patches, the truth, and where it is known."""
    generator = torch.Generator().manual_seed(seed_of(config.train.seed, 0, 4))
    found = []
    for start in range(0, len(bank.validation_depth), config.train.batch):
        part = slice(start, start + config.train.batch)
        images = {name: patches[part] for name, patches in bank.validation.items()}
        x, y, weight = task.sample(images, bank.validation_depth[part], fit, generator, config)
        with torch.inference_mode():
            outs = torch.stack([net(x.to(device)).float().cpu() for net in nets])
        known = torch.ones_like(y, dtype=torch.bool) if weight is None else (weight > 0).expand_as(y)
        found.append((outs[:, :, 0], outs[:, :, 1], y[:, 0], known[:, 0]))
    means, scales, truth, known = zip(*found, strict=True)
    return torch.cat(means, 1), torch.cat(scales, 1), torch.cat(truth), torch.cat(known)

"""Which settings train best? Every point of a grid, every seed, judged by the same held-out patches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.errors import InputError, nearest
from deepcontrast.experiments import Cell, Finding, Run
from deepcontrast.experiments._networks import seeded
from deepcontrast.experiments._scores import spread
from deepcontrast.learning import Lesson
from deepcontrast.losses import LOSSES, mae
from deepcontrast.patches import retiled
from deepcontrast.prediction import load_nets
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recipe import changed
from deepcontrast.report.canvas import new_figure, plain_style, png_bytes
from deepcontrast.scale.journal import open_journal
from deepcontrast.task import Bank
from deepcontrast.training import Trained, learning_rate, train

Grid = Mapping[str, Sequence[Any]]
"""Values to try, by the dotted key of the setting."""
PHANTOMS = ("tissue",)
SCORES = ("loss", "mae", "best", "final", "steps", "seconds", "parameters")
OF_THE_GRID = ("train.seed", "train.validation", "train.validate_every")
"""Settings of training that are the same for all points: what is held out, and when it is looked at."""
TOGETHER = 16
"""Held-out patches that are judged at once, whatever the batches of training."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#767676", "#1a1a1a")
LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Point:
    """One point of the grid.

    Attributes:
        values: by the key of the setting.
        config: the recipe with them.
    """

    values: Mapping[str, Any]
    config: Config

    @property
    def title(self) -> str:
        """The values in words, e.g. ``"learning_rate 0.001, patch 64"``."""
        return ", ".join(f"{key.split('.')[-1]} {shown(value)}" for key, value in self.values.items())


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search found.

    Attributes:
        finding: table, figure and sentences.
        best: the recipe with the settings of the lowest mean loss.
        histories: of every training, by the names of their columns: ``settings``, ``seed``, ``step`` of a validation,
            training ``loss`` since the one before (mean), ``val_loss``, and the ``learning_rate`` after it.
    """

    finding: Finding
    best: Config
    histories: Sequence[Run]


def search(
    lesson: Callable[[Config], Lesson],
    config: Config,
    *,
    grid: Grid,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
    folder: Path,
) -> Searched:
    """Return what networks with the settings of every point of a grid make of the same held-out patches.

    The patches are held out as for the largest patch of the grid, and no training patch of any size touches them.
    While it trains, a network is validated on patches of its own size from there; the loss that points are compared by
    is that of the patches of the largest size, with the same noise wherever networks are shown the same planes.

    Args:
        lesson: gives what is trained on, and its fit for given settings: images, pairs of them, or no image at all.
        config: the recipe.
        grid: values of ``net`` and ``train`` to try.
        seeds: of training; the held-out patches are those of the recipe's own seed.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.
        folder: what is done is kept here, and not done again.

    Raises:
        InputError: a setting that cannot be tried, or values whose held-out patches differ.

    Source: the semi-synthetic data paper, section 4 and figure 1 (a grid search, judged by its training histories).
    """
    points = points_of(config, grid)
    depth = max(point.config.net.depth for point in points)
    patch = max(point.config.train.patch for point in points)
    largest = {"net.depth": depth, "train.patch": patch}
    _, reference = lesson(changed(config, largest))
    folder.mkdir(exist_ok=True)
    with open_journal(folder / "runs.jsonl") as journal:
        todo = [(p, seed) for p in points for seed in seeds if (p.title, seed) not in journal.records]
        done = f", {len(points) * len(seeds) - len(todo)} of them done" if len(todo) < len(points) * len(seeds) else ""
        trainings = f"{len(points)} settings, {len(points) * len(seeds)} trainings{done}"
        progress(Event("search", values={"message": trainings}))
        for n, (point, seed) in enumerate(todo, 1):
            checkpoint = folder / f"training_{points.index(point)}_{seed}.safetensors"
            record = _tried(point, seed, lesson, reference, checkpoint, device=device, progress=progress)
            journal.append((point.title, seed), record)
            checkpoint.unlink(missing_ok=True)
            progress(Event("search", n, len(todo), {"done": f"{point.title}, seed {seed}"}))
        records = {(p.title, seed): journal.records[p.title, seed] for p in points for seed in seeds}
    if len({record["held_out"] for record in records.values()}) > 1:
        raise InputError(
            "the held-out patches of these settings differ, so their losses do not compare; "
            "try networks in the plane and in space apart"
        )
    by = judged_by(grid)
    runs = tuple(
        {**_cells(p), "seed": seed, **{name: records[p.title, seed][name] for name in SCORES}}
        for p in points
        for seed in seeds
    )
    columns = (*grid, "seeds", "loss", "loss_sd", "mae", "mae_sd", *SCORES[2:])
    rows = tuple((*_cells(p).values(), len(seeds), *_means(p, runs)) for p in points)
    of_point = {p.title: [float(records[p.title, seed][by]) for seed in seeds] for p in points}
    best = min(points, key=lambda p: np.mean(of_point[p.title]))
    histories = {key: record["history"] for key, record in records.items()}
    finding = Finding(
        "Search: which settings train best",
        "the semi-synthetic data paper, section 4 and figure 1",
        columns,
        rows,
        runs,
        figure(histories, of_point, by),
        sentences(of_point, {p.title: [records[p.title, seed]["seconds"] for seed in seeds] for p in points}, by),
        {
            "loss": f"of the kept weights on held-out patches of {reference.patch} px, the same for all settings",
            "mae": "mean absolute error there, in the units of the network",
            "best, final": "lowest and last validation loss on held-out patches of the size of training",
            "seconds": "of training; none where it was interrupted",
            "tried": "; ".join(f"{key}: {', '.join(map(shown, values))}" for key, values in grid.items()),
        },
    )
    return Searched(finding, best.config, _rows(histories))


def points_of(config: Config, grid: Grid) -> list[Point]:
    """Return the points of a grid, the last setting changing fastest.

    Raises:
        InputError: a setting that is not of the network or of training, is the same for all, or has no values.
    """
    accepted = [f"{table}.{key}" for table in ("net", "train") for key in config.model_dump()[table]]
    accepted = [key for key in accepted if key not in OF_THE_GRID]
    for key, values in grid.items():
        if key not in accepted:
            raise InputError(f"'{key}' cannot be tried; accepted: {', '.join(accepted)}{nearest(key, accepted)}")
        if not values:
            raise InputError(f"no value to try for '{key}'; accepted: values with commas, e.g. {key}=1,2")
    every = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return list({(p := Point(values, changed(config, values))).title: p for values in every}.values())


def default_grid(config: Config) -> dict[str, list[Any]]:
    """Return what is tried unless something else is asked for: learning rate and patch of a recipe, and half of both.

    The learning rate is also doubled.
    """
    rate, patch = config.train.learning_rate, config.train.patch
    return {"train.learning_rate": [rate / 2, rate, 2 * rate], "train.patch": [max(8, patch // 2), patch]}


def judged_by(grid: Grid) -> str:
    """Return which score points are compared by: the loss, or the error where losses of different kinds are tried."""
    return "mae" if "train.loss" in grid else "loss"


def sentences(
    scores: Mapping[str, Sequence[float]], seconds: Mapping[str, Sequence[float | None]], by: str
) -> tuple[str, ...]:
    """Return which settings have the lowest score, and whether by more than the spread over seeds.

    A point is better than another where their means differ by more than the spread of either: its largest score less
    its smallest.

    Args:
        scores: of every seed, by the title of the point.
        seconds: likewise, of training.
        by: name of the score.
    """
    mean = {title: float(np.mean(values)) for title, values in scores.items()}
    order = sorted(mean, key=lambda title: mean[title])
    first = order[0]
    said = [
        f"Lowest {by} on held-out patches: {mean[first]:.5g}, {first}; highest: {mean[order[-1]]:.5g}, {order[-1]}."
    ]
    if len(order) == 1:
        return tuple(said)
    count = len(scores[first])
    if count == 1:
        return (*said, "One seed: whether this is chance, only more --seeds show; no winner is claimed.")
    wide = {title: max(values) - min(values) for title, values in scores.items()}
    near = [t for t in order[1:] if mean[t] - mean[first] <= max(wide[t], wide[first])]
    if not near:
        said.append(f"It is better than all others by more than the spread over {count} seeds ({wide[first]:.2g}).")
        return tuple(said)
    said.append(
        f"No winner: within the spread over {count} seeds it is no different from {len(near)} of {len(order) - 1} "
        f"others: {'; '.join(near)}."
    )
    known = {t: sum(map(float, filter(None, seconds[t]))) for t in (first, *near) if None not in seconds[t]}
    if known:
        quickest = min(known, key=lambda title: known[title])
        said.append(f"Of these the quickest to train is {quickest}.")
    return tuple(said)


def figure(histories: Mapping[tuple[str, int], Any], scores: Mapping[str, Sequence[float]], by: str) -> bytes:
    """Return a PNG of all training histories over steps, and of the scores that are compared.

    Args:
        histories: of every point and seed, as in the journal: ``step``, ``loss``, ``val_loss``, ``learning_rate``.
        scores: of every seed, by the title of the point.
        by: name of the score.
    """
    titles = list(scores)
    look = {t: (COLOURS[n % len(COLOURS)], LINES[n // len(COLOURS) % len(LINES)]) for n, t in enumerate(titles)}
    with plain_style():
        whole = new_figure(1120, 560 + 18 * -(-len(titles) // 3))
        panels = whole.subplots(2, 2)
        panes = {
            "loss": (panels[0, 0], "training loss, mean since the last validation"),
            "val_loss": (panels[0, 1], "validation loss, held-out patches of the size of training"),
            "learning_rate": (panels[1, 0], "learning rate"),
        }
        for name, (axes, said) in panes.items():
            drawn = []
            for (title, seed), history in histories.items():
                colour, line = look[title]
                first = seed == next(s for t, s in histories if t == title)
                label = title if first else None
                axes.plot(history["step"], history[name], line, color=colour, marker=".", linewidth=1, label=label)
                drawn += history[name]
            if min(drawn) > 0 and max(drawn) > 4 * min(drawn):
                axes.set_yscale("log")
            axes.set_title(said)
            axes.set_xlabel("training step")
        axes = panels[1, 1]
        for n, title in enumerate(titles):
            axes.plot(scores[title], [n] * len(scores[title]), "o", color=look[title][0], markersize=5)
        axes.set_yticks(range(len(titles)), titles)
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_title(f"{by} on the same held-out patches, each seed a point")
        axes.set_xlabel(by)
        whole.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return png_bytes(whole)


def shown(value: Any) -> str:
    """Return a value of a setting in words."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tried(
    point: Point,
    seed: int,
    lesson: Callable[[Config], Lesson],
    reference: Any,
    checkpoint: Path,
    *,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Train a network and return its scores and its history, as the journal keeps them."""
    task: Any = registry.load("tasks", point.config.task_name)
    sources, fit = lesson(point.config)
    patch = min(fit.patch, reference.patch)
    own = replace(fit, patch=patch, held_out=retiled(reference.held_out, reference.patch, patch))
    common = replace(fit, patch=reference.patch, held_out=reference.held_out)
    config = seeded(point.config, seed)
    interrupted, began = checkpoint.exists(), time.monotonic()
    trained = train(task, sources, own, config, checkpoint=checkpoint, device=device, progress=progress)
    seconds = None if interrupted else time.monotonic() - began
    weights = trained.last if config.train.keep == "last" else trained.best
    [net] = load_nets(task, [weights], common, config, device)
    bank = task.prepare(sources, common, point.config, seed=0, round=0)
    loss, error = _judged(net, task, bank, common, config, device)
    val_loss = trained.history["val_loss"]
    return {
        "loss": loss,
        "mae": error,
        "best": min(val_loss),
        "final": val_loss[-1],
        "steps": len(trained.history["loss"]),
        "seconds": seconds,
        "parameters": sum(tensor.numel() for tensor in net.parameters()),
        "held_out": str([round(depth, 4) for depth in bank.validation_depth.tolist()]),
        "history": _history(trained, config),
    }


def _judged(net: Any, task: Any, bank: Bank, fit: Any, config: Config, device: str) -> tuple[float, float]:
    """Return loss and mean absolute error on the held-out patches of a bank, always with the same noise."""
    generator = torch.Generator().manual_seed(0)
    count, total = len(bank.validation_depth), np.zeros(2)
    with torch.no_grad():
        for start in range(0, count, TOGETHER):
            images = {name: patches[start : start + TOGETHER] for name, patches in bank.validation.items()}
            depth = bank.validation_depth[start : start + TOGETHER]
            x, y, weight = task.sample(images, depth, fit, generator, config)
            found = net(x.to(device)).cpu()
            error = mae(found[:, : y.shape[1]], y, weight)
            total += np.array([float(LOSSES[config.train.loss](found, y, weight)), float(error)]) * len(depth)
    loss, error = (total / count).tolist()
    return loss, error


def _history(trained: Trained, config: Config) -> dict[str, list[float]]:
    """Return what was seen at every validation."""
    losses, val_loss = list(trained.history["loss"]), list(trained.history["val_loss"])
    ends = [int(step) for step in trained.history["val_step"]]
    return {
        "step": [float(end) for end in ends],
        "loss": [float(np.mean(losses[a:b])) for a, b in zip([0, *ends], ends, strict=False)],
        "val_loss": val_loss,
        "learning_rate": [learning_rate(end, config.train, val_loss[: n + 1]) for n, end in enumerate(ends)],
    }


def _rows(histories: Mapping[tuple[str, int], Any]) -> list[Run]:
    return [
        {"settings": title, "seed": seed, **dict(zip(history, values, strict=True))}
        for (title, seed), history in histories.items()
        for values in zip(*history.values(), strict=True)
    ]


def _cells(point: Point) -> dict[str, Cell]:
    return {key: shown(value) for key, value in point.values.items()}


def _means(point: Point, runs: Sequence[Run]) -> list[Cell]:
    """Return the means over seeds, of loss and error with their standard deviation; ``None`` where undefined."""
    own = [run for run in runs if _cells(point).items() <= run.items()]
    found = {name: spread([run[name] for run in own]) for name in SCORES}
    whole = {name: round(float(found[name][0] or 0)) for name in ("steps", "parameters")}
    return [*found["loss"], *found["mae"], *(whole.get(name, found[name][0]) for name in SCORES[2:])]

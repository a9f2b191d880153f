"""What each idea of the default recipe is worth, on simulated stacks of known truth, beside filters and an oracle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepcontrast import registry
from deepcontrast.baselines import Scene
from deepcontrast.brightness import blend, match_brightness
from deepcontrast.config import Config
from deepcontrast.depth import bins
from deepcontrast.errors import InputError, nearest
from deepcontrast.evaluation import FIFTHS, depth_means, truth_rows
from deepcontrast.experiments import PAIR, Cell, Finding, Run, Subject
from deepcontrast.experiments._ablation_table import AUTO, ORACLE, RAW, SCORES, Table, tabulate, told
from deepcontrast.experiments._figures import Pictures, figure
from deepcontrast.experiments._networks import Network, Volume, clean, learned, seeded, source_of
from deepcontrast.experiments._oracle import oracle
from deepcontrast.experiments._scores import DEFINITIONS
from deepcontrast.patches import unseen
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recipe import changed
from deepcontrast.scale.journal import open_journal
from deepcontrast.select import haze_gone, haze_left, structures_kept
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth import Phantom
from deepcontrast.task import Source

SHAPE = (60, 192, 192)
PUBLISHED, TRUTH = "published pairing", "truth"
PHANTOMS = ("tissue", "nuclei", "filaments", "spots")
MORE: Mapping[str, Mapping[str, Any]] = {"nuclei": {"spacing_um": 4.8}}
"""Nuclei are crowded."""
LIGHTS = (25.0, 100.0)
"""Photons at the brightest structures."""
SCATTERS: Mapping[str, Mapping[str, Any]] = {"near": {}, "far": {"scatter_um": 9.0, "haze_um": (0.9, 2.0, 12.0)}}
"""That of the phantoms, and one that begins deeper and reaches further; neither is the training degradation."""
OTHERS = 3
"""Volumes that the oracle is trained on."""


STEPS: Mapping[str, tuple[str, ...]] = {
    PUBLISHED: PAIR,
    "photons shared out": ("train.loss=mae", "task.widths=[1]", "net.context=0", "net.dims=2"),
    "mean-seeking loss": ("task.widths=[1]", "net.context=0", "net.dims=2"),
    "neighbouring planes": ("task.widths=[1]",),
}
"""Settings over those of the recipe; each adds one idea to the one before, and the recipe adds the haze's widths.

The published pairing has a quarter of the steps of four times the patches at half the rate, which suits it better, and
twice as many passes, of which it needs more.
"""
BESIDE: Mapping[str, tuple[str, ...]] = {"with bias": ("net.bias=true",)}
"""Settings over those of the recipe that are compared with the recipe."""
FILTERS = ("band_pass_2d", "band_pass_3d", "richardson_lucy")
TUNED = {"band_pass_2d, tuned": "band_pass_2d", "band_pass_3d, tuned": "band_pass_3d"}
"""Filters with the settings that suit this volume's truth best, which no user knows."""
TUNED_ON_OTHERS = {"band_pass_3d, tuned on others": "band_pass_3d"}
"""Filters with the settings that suit best the three volumes that the oracle learns from: they know what it knows."""
RADIUS = 4.0
"""Half the width of the structures in pixels, about."""
SHOWN = (RAW, "band_pass_3d", PUBLISHED, ORACLE)
"""What is shown as pictures beside recipe and truth, where it was made, in the middle of the deepest two fifths."""
SCORING = 60.0
"""Processor seconds to simulate, filter and score a volume, about."""
Scores = list[dict[str, Cell]]
"""Of a result, in five parts of the depth, shallow to deep; ``None`` where undefined."""
Made = tuple[str, Volume]
"""A result (Z, Y, X), and how often the network was applied: ``"1"``, ``"2"``, ``"auto"``, or ``""``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Simulated(Subject):
    """A simulated stack, and all that it takes to simulate others like it.

    Attributes:
        light: photons at the brightest structures.
        scatter: a name of ``SCATTERS``.
        made: with the optics, which no recipe is told.
    """

    light: float
    scatter: str
    made: Phantom

    @property
    def title(self) -> str:
        return f"{self.name} {self.seed} ({self.light:g} photons, {self.scatter})"

    def others(self) -> list[Simulated]:
        """Return stacks of the same kind from other seeds."""
        return [simulate(self.name, 1000 + 10 * (self.seed or 0) + n, self.light, self.scatter) for n in range(OTHERS)]


def simulate(phantom: str, seed: int, light: float, scatter: str) -> Simulated:
    """Return a simulated stack as a user has it: the camera is unknown, the surface is known."""
    settings = {**MORE.get(phantom, {}), **SCATTERS[scatter]}
    made: Phantom = registry.load("synth", phantom)(shape=SHAPE, seed=seed, light=light, **settings)
    known = Optics(voxel_size=made.optics.voxel_size, surface="first")
    stack = Stack(made.raw, "ZYX", known, source=f"simulated {phantom}")
    return Simulated(phantom, stack, made.truth, made.mask, seed, light=light, scatter=scatter, made=made)


def simulated(seeds: Sequence[int]) -> list[Subject]:
    """Return every phantom for every seed; over four seeds each has both lights with both scatters."""
    found: list[Subject] = []
    for place, phantom in enumerate(PHANTOMS):
        for seed in seeds:
            turn = seed + place
            found.append(simulate(phantom, seed, LIGHTS[turn % 2], list(SCATTERS)[turn // 2 % 2]))
    return found


def ablation(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
    folder: Path,
    only: Sequence[str] = (),
) -> Finding:
    """Return what filters, an oracle and networks with one idea more each make of simulated stacks.

    Every network is applied once, twice and so on, and mixed by depth as ``enhance`` does. The oracle has the same
    network, input and steps, and the truths of three other stacks to learn from.

    Args:
        subjects: what :func:`simulated` gave.
        config: the recipe.
        seeds: of the stacks, and of training on each.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events; the first says what it will cost.
        folder: what is done is kept here, and not done again.
        only: which of :func:`ideas_of` to train; all by default. Raw and filters are always there.

    Raises:
        InputError: there is no such idea.

    Source: DeepContrast, whose recipe is the first line; baselines as in :mod:`deepcontrast.baselines`.
    """
    ideas = chosen(config, only)
    methods = [RAW, *FILTERS, *TUNED, *TUNED_ON_OTHERS, *ideas]
    stacks = [stack for stack in subjects if isinstance(stack, Simulated) and stack.seed in seeds]
    folder.mkdir(exist_ok=True)
    runs: list[Run] = []
    with open_journal(folder / "runs.jsonl") as journal:
        todo = [(stack, name) for stack in stacks for name in methods if (_key(stack, name), 0) not in journal.records]
        progress(Event("ablation", values={"message": _cost(todo, ideas, len(stacks), device)}))
        for n, (stack, name) in enumerate(todo, 1):
            scores: list[Run] = []
            for k, result, spent in _timed(_results(name, stack, ideas.get(name), device)):
                about: dict[str, Cell] = {"stack": stack.title, "seed": stack.seed, "phantom": stack.name}
                about |= {"method": name, "k": k, "cpu_s": spent}
                scores += [{**about, "depth": d, **one} for d, one in enumerate(scored(result, stack.made))]
                if k in ("", AUTO) and name in (*SHOWN, config.recipe):
                    np.save(folder / f"{_key(stack, name)}.npy", result[_shown(result)])
            np.save(folder / f"{_key(stack, TRUTH)}.npy", stack.made.truth[_shown(stack.made.truth)])
            journal.append((_key(stack, name), 0), {"runs": scores})
            progress(Event("ablation", n, len(todo), {"done": f"{stack.title}, {name}"}))
        for stack in stacks:
            for name in methods:
                runs += journal.records[_key(stack, name), 0]["runs"]
    table = tabulate(runs)
    shown = [name for name in dict.fromkeys((*SHOWN[:-1], config.recipe, ORACLE)) if name in methods]
    return Finding(
        "Ablation: what each idea of the recipe is worth",
        "DeepContrast, with ideas added one by one",
        table.columns,
        table.rows,
        tuple(runs),
        _figure(stacks, shown, folder, table),
        sentences(runs),
        {
            "iou": DEFINITIONS["iou"],
            "ssim": DEFINITIONS["ssim"],
            "pearson_clipped": "Pearson's correlation with the truth, per plane, clipped",
            "deep": "the deepest two of five parts of the depth",
            "closed": "share of the gap between raw and oracle that is closed: IoU / SSIM / SSIM of the foreground / "
            "correlation, the last three clipped; and the mean of the four",
            "worst": "the worst score of the worst part of the depth, less the raw's, of the mean over stacks",
            "cpu_s": "processor seconds to train and apply",
            **{name: ", ".join({**STEPS, **BESIDE}.get(name, ())) or "the recipe" for name in ideas},
            "published pairing also": "a quarter of the steps of four times the patches at half the rate, "
            "twice as many passes",
        },
    )


def sentences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what the last idea closes of the gap, how it compares with the filters, and what each idea adds."""
    ideas = dict.fromkeys(str(run["method"]) for run in runs if run["k"] == AUTO)
    return told(runs, [name for name in ideas if name not in BESIDE], [name for name in ideas if name in BESIDE])


def ideas_of(config: Config) -> dict[str, Config]:
    """Return the settings of every network that is trained, the oracle's last; the recipe has its own name.

    What a recipe lacks is left out: an idea that changes nothing of the one before.

    Raises:
        InputError: the recipe has the name of something else.
    """
    if config.recipe in (RAW, ORACLE, TRUTH, *FILTERS, *TUNED, *TUNED_ON_OTHERS, *STEPS, *BESIDE):
        raise InputError(
            f"a recipe named '{config.recipe}' would be taken for the method of that name; rename its file"
        )
    train, passes = config.train, config.predict.iterations
    longer = {
        "train.steps": max(1, train.steps // 4),
        "train.batch": 4 * train.batch,
        "train.learning_rate": train.learning_rate / 2,
        "train.clip": 0.0,
        "predict.iterations": min(2 * passes, 20),
    }
    found: dict[str, Config] = {}
    for name, settings in {**STEPS, config.recipe: (), **BESIDE}.items():
        idea = changed(config, settings)
        idea = changed(idea, longer) if name == PUBLISHED else idea
        if idea not in found.values() or name == config.recipe:
            found[name] = idea
    return {**found, ORACLE: config}


def chosen(config: Config, only: Sequence[str]) -> dict[str, Config]:
    """Return the settings of the ideas that are asked for, all where none are.

    Raises:
        InputError: there is no such idea.
    """
    known = ideas_of(config)
    for name in only:
        if name not in known:
            raise InputError(f"no idea '{name}'; accepted: {', '.join(known)}{nearest(name, known)}")
    return {name: settled for name, settled in known.items() if name in (only or known)}


def scored(result: Volume, made: Phantom) -> Scores:
    """Return the scores of every third plane of a result (Z, Y, X), by name, in five parts of the depth."""
    planes = slice(0, None, 3)
    image = np.asarray(result, np.float32)[planes]
    rows = truth_rows(
        image, made.truth[planes], made.mask[planes],
        method="", k=None, depth_um=[None] * len(image), metrics=("ssim", "pearson"),
    )  # fmt: skip
    means = depth_means(rows, len(image))
    return [
        {name: float(value) if np.isfinite(value := means[name][part]) else None for name in SCORES}
        for part in range(FIFTHS)
    ]


def _key(stack: Simulated, name: str) -> str:
    return f"{stack.title}, {name}"


def _results(name: str, stack: Simulated, config: Config | None, device: str) -> Iterator[Made]:
    """Yield what a method makes of a stack: every k, then the mixture that ``enhance`` writes."""
    if config is None:
        yield "", _filtered(name, stack)
        return
    config = seeded(config, stack.seed or 0)
    if name == ORACLE:
        yield "", oracle(stack, stack.others(), config, device=device, progress=silent)
        return
    source = source_of(stack)
    network = learned(source, config, device=device, progress=silent)
    raw = clean(network, source)
    passes = network.passes(raw, config.predict.iterations, progress=silent)
    for k, result in enumerate(passes, 1):
        yield str(k), result
    yield AUTO, _mixed(network, source, raw, passes)


def _filtered(name: str, stack: Simulated) -> Volume:
    """Return the raw or what a filter makes of it: as a user would set it, or with the best of all settings."""
    image = _raw(stack)
    if name == RAW:
        return image
    filtered = {**TUNED, **TUNED_ON_OTHERS}.get(name, name)
    module, function = registry.module("baselines", filtered), registry.load("baselines", filtered)
    if filtered != name:
        known = [stack] if name in TUNED else stack.others()

        def suits(choice: Mapping[str, Any]) -> float:
            return float(np.mean([_mean(scored(function(_raw(one), **choice), one.made)) for one in known]))

        best: Volume = function(image, **max(module.CHOICES, key=suits))
        return best
    optics = stack.made.optics
    read_noise, offset, gain = (float(number or 0) for number in (optics.read_noise, optics.offset, optics.gain))
    scene = Scene(RADIUS, 1.0, read_noise, offset, gain, optics)
    made: Volume = function(image, **module.suggested(scene))
    return made


def _raw(stack: Simulated) -> Volume:
    return stack.stack.volume().astype(np.float32)


def _mixed(network: Network, source: Source, raw: Volume, passes: Sequence[Volume]) -> Volume:
    """Return the passes mixed by depth, as ``enhance`` does."""
    every, depth, fit = [raw, *passes], source.depth, network.fit
    edges = bins([depth])
    haze = haze_left(every, depth, edges, offset=fit.norm.offset)
    region = unseen(fit.held_out, fit.patch, raw.shape[1:])
    kept = structures_kept(every, depth, edges, region=region, apart=fit.independent)
    choice = haze_gone([haze], [kept], edges, limit=fit.haze)
    brightness = match_brightness([every], [depth], edges, [None])
    out = np.empty_like(raw)
    blend(choice.at(depth), depth, brightness, offset=fit.norm.offset).write(dict(enumerate(every)), out)
    return out


def _mean(scores: Scores) -> float:
    return float(np.nanmean(np.array([list(one.values()) for one in scores], float)))


def _timed(results: Iterator[Made]) -> Iterator[tuple[str, Volume, float]]:
    """Yield results with the processor seconds that were spent on them, and on those before, so far."""
    spent = 0.0
    while True:
        began = time.process_time()
        found = next(results, None)
        spent += time.process_time() - began
        if found is None:
            return
        yield *found, spent


def _cost(todo: Sequence[tuple[Simulated, str]], ideas: Mapping[str, Config], stacks: int, device: str) -> str:
    """Return in words how long it will take, from the time a few steps take."""
    left = [name for _, name in todo if name in ideas]
    seconds = SCORING * len({stack.title for stack, _ in todo})
    each = {name: _seconds(ideas[name], device) for name in dict.fromkeys(left)}
    seconds += sum(each[name] for name in left)
    trainings = stacks * len(ideas)
    done = f", {trainings - len(left)} of them done" if len(left) < trainings else ""
    return f"{trainings} trainings on {stacks} stacks{done}: about {seconds / 3600:.1f} processor hours"


def _seconds(config: Config, device: str) -> float:
    """Return about how long it takes to train a network and apply it to a stack."""
    net, settings, planes = config.net, config.train, 2 * config.net.context + 1
    shape = net.model_dump(include={"depth", "features", "kernel", "bias", "residual", "dims"})
    form = {"pool_z": 0} if net.dims == 3 else {"channels": planes}
    module = registry.load("nets", net.name)(**shape, **form).to(device)
    patch = (settings.patch, settings.patch)
    slabs = (1, planes) if net.dims == 3 else (planes,)
    batch = torch.ones(settings.batch, *slabs, *patch, device=device)

    def step() -> None:
        module(batch).square().mean().backward()

    def forward() -> None:
        with torch.no_grad():
            module(batch)

    restored = batch[:, 0].numel() if net.dims == 3 else settings.batch * settings.patch**2
    passes = config.predict.iterations * float(np.prod(SHAPE)) / restored
    return settings.steps * _took(step, device) + passes * _took(forward, device)


def _took(function: Callable[[], None], device: str, times: int = 3) -> float:
    """Return the seconds a function takes: of the processor, or, where another device computes, of the clock."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = 0.0
    for n in range(times + 1):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        # The first call warms up.
        began = clock() if n == 1 else began
        function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (clock() - began) / times


def _shown(volume: Volume) -> int:
    """Return the plane in the middle of the deepest two fifths."""
    return int(0.8 * len(volume))


def _figure(stacks: Sequence[Simulated], names: Sequence[str], folder: Path, table: Table) -> bytes:
    """Return the first stack of every phantom, and the scores of every method over all stacks."""
    first = {stack.name: stack for stack in reversed(stacks)}
    pictures: Pictures = [
        (stack.name, {name: np.load(folder / f"{_key(stack, name)}.npy") for name in (*names, TRUTH)})
        for stack in (first[name] for name in PHANTOMS if name in first)
    ]
    return figure(
        pictures, table.columns, [row for row in table.rows if row[0] == table.rows[0][0] and row[2] in ("", AUTO)],
        x="method", scores=SCORES, joined=False,
    )  # fmt: skip

"""What each idea of the default recipe is worth, on simulated volumes of known truth. The figures of docs/evidence.md.

    python benchmarks/ablation.py --folder DIR [--phantoms tissue,nuclei] [--seeds 101] [--recipes contrast,oracle]

Light (25 or 100 photons) and scatter (that of the phantoms, or one that reaches further and is wider) change from
phantom to phantom and from seed to seed, so that four seeds show every phantom in all four; `--light` and `--scatter`
fix them. Every recipe is trained on every volume, applied once, twice and so on, and mixed by depth as `enhance` does
(`auto`). Scores are means over five depth bins: IoU of the best threshold, and SSIM, SSIM of the foreground and
correlation with grey levels below the plane's median set to it. `closed` is the share of the gap between the raw and an
oracle that a recipe closes: the oracle is the same network, with the same input and as many steps, that was trained on
the truths of three other volumes. `tuned` band-passes have the widths that suit this volume's truth best, which no user
knows. A second table has mean and standard deviation over the volumes of each phantom, and how much better than the raw
the worst score of the worst depth bin is. What is done is kept in DIR/runs.jsonl, and not done again; several processes
may share DIR if they have no volume in common.

Seeds from 100 on are for tuning; others, those of `demo` among them, are for reports.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast import registry
from deepcontrast.baselines import Scene
from deepcontrast.brightness import blend, match_brightness
from deepcontrast.config import Config
from deepcontrast.depth import bins, depths
from deepcontrast.evaluation import depth_means, truth_rows
from deepcontrast.experiments import Subject
from deepcontrast.experiments._networks import Network, clean, learned, seeded, source_of
from deepcontrast.jobs.experiment import PUBLISHED
from deepcontrast.patches import unseen
from deepcontrast.prediction import load_nets
from deepcontrast.progress import silent
from deepcontrast.recipe import load_recipe
from deepcontrast.select import haze_gone, haze_left, structures_kept
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Bank, Source
from deepcontrast.training import train

SHAPE = (60, 192, 192)
SCORES = ("iou", "ssim_clipped", "ssim_foreground_clipped", "pearson_clipped")
RECIPES: Mapping[str, tuple[str, ...]] = {
    "published pairing": PUBLISHED,
    "photons shared out": ("train.loss=mae", "task.widths=[1]", "net.context=0"),
    "mean-seeking loss": ("task.widths=[1]", "net.context=0"),
    "neighbouring planes": ("task.widths=[1]",),
    "contrast": (),
}
"""Settings over those of `contrast`; each adds one idea to the one before."""
BASELINES = ("band_pass_2d", "band_pass_3d", "richardson_lucy")
TUNED = {"band_pass_2d, tuned": "band_pass_2d", "band_pass_3d, tuned": "band_pass_3d"}
ORACLE = "oracle"
RADIUS = 4.0
"""Half the width of the structures in pixels, about."""
PHANTOMS = ("tissue", "nuclei", "filaments", "spots")
MORE: Mapping[str, Mapping[str, Any]] = {"nuclei": {"spacing_um": 4.8}}
"""Nuclei are crowded."""
LIGHTS = (25.0, 100.0)
SCATTERS: Mapping[str, Mapping[str, Any]] = {"near": {}, "far": {"scatter_um": 9.0, "haze_um": (0.9, 2.0, 12.0)}}
Job = tuple[str, int, float, str]
"""A volume: phantom, seed, photons at its brightest structures, scatter."""
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Truthful:
    """A task whose targets are the truths of its stacks, as bright as the result of a network is."""

    task: Any
    truths: Sequence[Volume]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def prepare(self, sources: Sequence[Source], fit: Any, config: Config, *, seed: int, round: int) -> Bank:
        """Return the task's bank, the truths beside its images; the validation stays without, and is not looked at."""
        bank: Bank = self.task.prepare(sources, fit, config, seed=seed, round=round)
        truth = np.concatenate([one / np.float32(np.percentile(one, 99)) for one in self.truths])
        blank = {**bank.validation, "truth": torch.zeros_like(bank.validation["raw"])}
        return replace(bank, images={**bank.images, "truth": torch.from_numpy(truth).flatten()}, validation=blank)

    def sample(
        self, batch: Mapping[str, Tensor], depth: Tensor, fit: Any, generator: torch.Generator, config: Config
    ) -> tuple[Tensor, Tensor, None]:
        """Return the raw planes with their neighbours, and the truth of each."""
        del depth, generator, config
        return fit.norm(batch["raw"]), batch["truth"].narrow(1, len(fit.layers) // 2, 1), None


def made(phantom: str, seed: int, light: float, scatter: str = "near") -> Any:
    """Return a phantom."""
    settings = {**MORE.get(phantom, {}), **SCATTERS[scatter]}
    return registry.load("synth", phantom)(shape=SHAPE, seed=seed, light=light, **settings)


def volumes(phantoms: Sequence[str], seeds: Sequence[int], light: float | None, scatter: str | None) -> list[Job]:
    """Return which volumes are made: over four seeds each phantom has both lights with both scatters."""
    found = []
    for phantom, seed in product(phantoms, seeds):
        turn = seed + PHANTOMS.index(phantom)
        found.append((phantom, seed, light or LIGHTS[turn % 2], scatter or list(SCATTERS)[turn // 2 % 2]))
    return found


def subject_of(phantom: str, volume: Any) -> Subject:
    """Return what a user would have of a phantom: the stack, and which end is the surface."""
    optics = Optics(voxel_size=volume.optics.voxel_size, surface="first")
    return Subject(phantom, Stack(volume.raw, "ZYX", optics, source=phantom))


def scored(result: Volume, volume: Any) -> list[list[float]]:
    """Return every score in five depth bins, shallow to deep."""
    planes = slice(0, None, 3)
    rows = truth_rows(
        np.asarray(result, np.float32)[planes], volume.truth[planes], volume.mask[planes],
        method="", k=None, depth_um=[None] * len(result[planes]), metrics=("ssim", "pearson"),
    )  # fmt: skip
    means = depth_means(rows, len(result[planes]))
    return [[float(value) for value in means[name]] for name in SCORES]


def chosen(network: Network, source: Source, raw: Volume, passes: Sequence[Volume]) -> Volume:
    """Return the passes mixed by depth, as `enhance` does."""
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


def filtered(name: str, volume: Any) -> list[list[float]]:
    """Return the scores of the raw or a baseline: as a user would set it, or with the best of all settings."""
    image = volume.raw.astype(np.float32)
    if name == "raw":
        return scored(image, volume)
    module = registry.module("baselines", TUNED.get(name, name))
    function = registry.load("baselines", TUNED.get(name, name))
    if name in TUNED:
        return max((scored(function(image, **choice), volume) for choice in module.CHOICES), key=np.mean)
    optics = volume.optics
    scene = Scene(RADIUS, 1.0, optics.read_noise, optics.offset, optics.gain, optics)
    return scored(function(image, **module.suggested(scene)), volume)


def results(name: str, phantom: str, seed: int, light: float, scatter: str) -> Iterator[tuple[str, list[list[float]]]]:
    """Yield the scores of a recipe, a baseline or the oracle on a volume: every k, then `auto`."""
    volume = made(phantom, seed, light, scatter)
    if name in ("raw", *BASELINES, *TUNED):
        yield "", filtered(name, volume)
        return
    config = seeded(load_recipe("contrast", RECIPES["contrast" if name == ORACLE else name]), seed)
    subject = subject_of(phantom, volume)
    source = source_of(subject)
    if name == ORACLE:
        yield "", scored(oracle(phantom, seed, light, scatter, source, config), volume)
        return
    network = learned(source, config, device="cpu", progress=silent)
    raw = clean(network, source)
    passes = network.passes(raw, config.predict.iterations, progress=silent)
    for k, result in enumerate(passes, 1):
        yield f"k = {k}", scored(result, volume)
    yield "auto", scored(chosen(network, source, raw, passes), volume)


def oracle(phantom: str, seed: int, light: float, scatter: str, source: Source, config: Config) -> Volume:
    """Return the result of a network that was trained on the truths of three other volumes."""
    others = [made(phantom, 1000 + 10 * seed + n, light, scatter) for n in range(3)]
    stacks = [subject_of(phantom, other).stack for other in others]
    sources = [Source(stack, 0, 0, depths(stack)) for stack in stacks]
    config = config.model_copy(update={"train": config.train.model_copy(update={"keep": "last"})})
    task = registry.load("tasks", config.task_name)
    fit = task.fit(sources, config)
    truthful = Truthful(task, [other.truth.astype(np.float32) for other in others])
    weights = train(truthful, sources, fit, config).last  # type: ignore[arg-type]
    [net] = load_nets(task, [weights], fit, config, "cpu")
    network = Network(task, net, fit, config, "cpu")
    return network.passes(task.clean(source.volume(), fit), 1, progress=silent)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--phantoms", default=",".join(PHANTOMS))
    parser.add_argument("--seeds", default="101")
    parser.add_argument("--light", type=float, help="photons at the brightest structures")
    parser.add_argument("--scatter", choices=list(SCATTERS))
    parser.add_argument("--recipes", default=",".join((*RECIPES, ORACLE)))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "runs.jsonl"
    chosen_volumes = volumes(
        given.phantoms.split(","), [int(s) for s in given.seeds.split(",")], given.light, given.scatter
    )
    recipes = given.recipes.split(",")
    todo = [(name, *volume) for volume in chosen_volumes for name in ("raw", *BASELINES, *TUNED, *recipes)]
    print(f"{len(chosen_volumes)} volumes, {len(recipes)} trainings each: about 3 CPU minutes a training", flush=True)
    for job in todo:
        if not any(tuple(run["job"]) == job for run in kept(file)):
            found = dict(results(*job))
            with file.open("a") as lines:
                lines.write(json.dumps({"job": job, "scores": found}) + "\n")
            print(*job, flush=True)
    print("\n".join(table([run for run in kept(file) if tuple(run["job"][1:]) in chosen_volumes])))


def kept(file: Path) -> list[dict[str, Any]]:
    """Return the runs that are done."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the means over volumes as lines."""
    every = {(tuple(run["job"]), k): np.array(scores) for run in runs for k, scores in run["scores"].items()}
    names = list(dict.fromkeys((job[0], k) for job, k in every))
    volumes = list(dict.fromkeys(job[1:] for job, _ in every))
    lines = ["| recipe | | IoU | SSIM | SSIM fg | corr. | deep IoU | SSIM | SSIM fg | corr. | closed, % | mean |"]
    lines.append("|" + "---|" * 12)
    for name, k in names:
        there = [volume for volume in volumes if ((name, *volume), k) in every]
        scores = np.mean([every[(name, *volume), k] for volume in there], axis=0)
        gaps = [closed(every, name, k, volume) for volume in there]
        gap = np.mean([g for g in gaps if g is not None], axis=0) if all(g is not None for g in gaps) else None
        cells = [f"{value:.3f}" for value in (*scores.mean(axis=1), *scores[:, -2:].mean(axis=1))]
        shares = ["-", "-"] if gap is None else [" / ".join(f"{100 * g:.0f}" for g in gap), f"{100 * gap.mean():.0f}"]
        lines.append(f"| {' | '.join([name, k, *cells, *shares])} |")
    lines += [
        f"mean of {len(volumes)} volumes: " + ", ".join(f"{p} {s} ({n:g} photons, {far})" for p, s, n, far in volumes)
    ]
    return [*lines, "", *by_phantom(every, volumes)]


def by_phantom(every: Mapping[Any, NDArray[np.float64]], volumes: Sequence[Job]) -> list[str]:
    """Return, for every phantom, mean and standard deviation over its volumes, and the worst depth bin beside raw."""
    lines = ["| phantom | recipe | | IoU | SSIM | SSIM fg | corr. | closed, mean | worst bin - raw |", "|" + "---|" * 9]
    names = [key for key in dict.fromkeys((job[0], k) for job, k in every) if key[1] in ("", "auto")]
    for phantom, (name, k) in product(dict.fromkeys(volume[0] for volume in volumes), names):
        there = [one for one in volumes if one[0] == phantom and ((name, *one), k) in every]
        if not there:
            continue
        scores = np.array([every[(name, *one), k] for one in there])
        worst = (scores - np.array([every[("raw", *one), ""] for one in there])).mean(axis=0).min()
        gaps = [gap.mean() for one in there if (gap := closed(every, name, k, one)) is not None]
        means = scores.mean(axis=2)
        cells = [f"{m:.3f} ± {sd:.3f}" for m, sd in zip(means.mean(axis=0), means.std(axis=0), strict=True)]
        share = f"{100 * np.mean(gaps):.0f} ({100 * min(gaps):.0f} to {100 * max(gaps):.0f})" if gaps else "-"
        lines.append(f"| {' | '.join([phantom, name, k, *cells, share, f'{worst:+.3f}'])} |")
    return lines


def closed(every: Mapping[Any, NDArray[np.float64]], name: str, k: str, volume: tuple[Any, ...]) -> Any:
    """Return the share of the gap between raw and oracle that a result closes, for every score."""
    best = every.get(((ORACLE, *volume), ""))
    if best is None:
        return None
    raw = every[("raw", *volume), ""].mean(axis=1)
    return (every[(name, *volume), k].mean(axis=1) - raw) / (best.mean(axis=1) - raw)


if __name__ == "__main__":
    main()

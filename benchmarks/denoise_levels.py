"""Denoising from simulated pairs at three light levels, and whether the networks know how sure they are.

    python benchmarks/denoise_levels.py --folder DIR [--members 5] [--seeds 0] [--set KEY=VALUE ...] [--picture FILE]

Pairs are two exposures of simulated tissue: one of 2,000 photons at the brightest structures, one of 5, 20 or 80 (C1 to
C3). One ensemble learns from all levels of some volumes, with the Laplace loss; others are restored. The table has the
form of CARE's supplementary table 2: NRMSE and SSIM of input, network and non-local means tuned on the test images, and
beside it the same by depth (supplementary figure S2). Then the calibration of M = 1, 2, ... networks at the distances
of the supplement's section 3, how many truths lie in the 90 % interval (in all, in the brightest tenth of the truth, by
level), and how well the mean disagreement of tiles of 32 x 32 px tells nuclei and filaments, and a fainter exposure,
from the tissue that was learned (area under the ROC curve).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means

from deepcontrast import registry
from deepcontrast.calibration import NONE, covered, distances, reliability
from deepcontrast.learning import learn
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.ssim import ssim
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.prediction import predict_apart
from deepcontrast.recalibration import Recalibration
from deepcontrast.recipe import load_recipe
from deepcontrast.scale.members import normed, open_members, own_norms
from deepcontrast.stack import Stack
from deepcontrast.trust import SMALL, TILE, Trust, area_beyond
from deepcontrast.uncertainty import disagreement, mixture
from deepcontrast.valid import survey

LEVELS = {"C1": 5.0, "C2": 20.0, "C3": 80.0}
BRIGHT = 2000.0
SHAPE = (24, 160, 160)
TRAINED, TESTED = (100, 101, 102), (200, 201)
STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.3, 1.7)
Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Restored:
    """A test volume: what it was, should be, and is by every network."""

    level: str
    raw: Volume
    truth: Volume
    means: Volume
    scales: Volume


def exposure(phantom: str, seed: int, light: float) -> Stack:
    """Return a simulated stack of so many photons; of one seed all show the same place."""
    made = registry.load("synth", phantom)(shape=SHAPE, seed=seed, light=light)
    return Stack(made.raw, "ZYX", replace(made.optics, surface="first"), source=f"{phantom} {seed}, {light:g} photons")


def trained(folder: Path, seed: int, members: int, settings: Sequence[str]) -> Model:
    """Return an ensemble that learned from all levels; what is done is kept."""
    path = folder / f"seed{seed}.safetensors"
    if not path.exists():
        config = load_recipe("care", ["train.loss=laplace", *settings, f"train.seed={seed}"])
        pairs = [
            (exposure("tissue", s, light), exposure("tissue", s, BRIGHT)) for s in TRAINED for light in LEVELS.values()
        ]
        work = folder / f"seed{seed}"
        work.mkdir(exist_ok=True)
        begun = time.process_time()
        model, _ = learn([p[0] for p in pairs], config, targets=[p[1] for p in pairs], members=members, folder=work)
        save_model(path, model)
        print(f"trained in {time.process_time() - begun:.0f} CPU s")
    return load_model(path)


def restored(model: Model, image: Stack) -> tuple[Volume, Volume]:
    """Return mean and scale (M, Z, Y, X) of every network."""
    task: Any = registry.load("tasks", "denoise")
    members = open_members(task, [model], 0, "cpu")
    known = survey(image.frame())
    [member] = normed(task, members, [own_norms(task, members, image.frame(), known, "image")], 0)
    volume = task.cleaned(image.frame(), member.fit, known)
    return predict_apart(task, member.nets, volume, member.fit, member.config)


def tested(model: Model) -> list[Restored]:
    """Return all test volumes; the truth has the mean and spread of its image, as the result has."""
    done = []
    for seed in TESTED:
        truth = np.asarray(exposure("tissue", seed, BRIGHT).array, np.float32)
        for level, light in LEVELS.items():
            image = exposure("tissue", seed, light)
            raw = np.asarray(image.array, np.float32)
            alike = (truth - truth.mean()) / truth.std() * raw.std() + raw.mean()
            done.append(Restored(level, raw, alike.astype(np.float32), *restored(model, image)))
    return done


def value(metric: Any, image: Volume, truth: Volume) -> float:
    """Return a score of a stack, the mean over its planes."""
    return float(np.mean([metric(a, b)[0].value for a, b in zip(image, truth, strict=True)]))


def smoothed(one: Restored, strength: float) -> Volume:
    """Return non-local means of every plane."""
    noise = float(np.std(one.raw - one.truth))
    how = partial(denoise_nl_means, patch_size=5, patch_distance=7, h=strength * noise, sigma=noise, fast_mode=True)
    return np.stack([how(plane - plane.mean()) for plane in one.raw.astype(np.float64)]).astype(np.float32)


def denoising(found: Sequence[Restored]) -> Iterable[str]:
    """Yield the table of the levels, and that of the depth."""
    yield "| level | NRMSE: input | network | NLM | SSIM: input | network | NLM |"
    yield "|---" * 7 + "|"
    deep = []
    for level in LEVELS:
        some = [one for one in found if one.level == level]
        ways = [[smoothed(one, strength) for one in some] for strength in STRENGTHS]
        filtered = min(ways, key=lambda way: sum(value(nrmse, a, b.truth) for a, b in zip(way, some, strict=True)))
        images = {"input": [o.raw for o in some], "network": [o.means.mean(0) for o in some], "NLM": filtered}
        cells = [
            f"{np.mean([value(metric, a, b.truth) for a, b in zip(volumes, some, strict=True)]):.3f}"
            for metric in (nrmse, ssim)
            for volumes in images.values()
        ]
        yield f"| {level} | {' | '.join(cells)} |"
        parts = np.array_split(np.arange(SHAPE[0]), 4)
        for name, volumes in images.items():
            by_depth = [
                float(np.mean([value(nrmse, a[part], b.truth[part]) for a, b in zip(volumes, some, strict=True)]))
                for part in parts
            ]
            deep.append(f"| {level} | {name} | {' | '.join(f'{one:.3f}' for one in by_depth)} |")
    yield ""
    yield "| level | NRMSE by depth | surface | | | deep |"
    yield "|---" * 6 + "|"
    yield from deep


def calibration(found: Sequence[Restored], right: Recalibration) -> Iterable[str]:
    """Yield the calibration of the first networks, in the range of the truth, and what the interval holds."""
    means, scales, truth = [], [], []
    for one in found:
        low, high = np.percentile(one.truth, (0.1, 99.9))
        count = len(one.means)
        means.append(one.means.reshape(count, -1) / (high - low))
        scales.append(one.scales.reshape(count, -1) / (high - low))
        truth.append(one.truth.ravel() / (high - low))
    mean, scale = (torch.from_numpy(np.concatenate(arrays, 1)) for arrays in (means, scales))
    true = torch.from_numpy(np.concatenate(truth))
    at = distances(mean, true, [SMALL])
    yield f"| M | distributions | {' | '.join(f'ECE at {d:.4f}' for d in at)} | bins | in the 90 % interval |"
    yield "|---" * (4 + len(at)) + "|"
    # Those of the ensemble are multiplied in prediction.
    scale = scale / right.factor
    for count in range(1, len(mean) + 1):
        for name, what in (("as trained", NONE), ("set right", right)):
            some = mean[:count], scale[:count], true
            diagrams = [reliability(*some, d, what) for d in at]
            bins = min(sum(share > 0.001 for share in one.share) for one in diagrams)
            cells = " | ".join(f"{one.error:.2%}" for one in diagrams)
            yield f"| {count} | {name} | {cells} | {bins} | {covered(*some, what):.1%} |"
    bright = true >= torch.quantile(true[:: max(1, len(true) // 10**6)], 0.9)
    yield ""
    inside = covered(mean[:, bright], scale[:, bright], true[bright], right)
    yield f"brightest tenth of the truth: {inside:.1%} in the 90 % interval"
    size = len(true) // len(found)
    for level in LEVELS:
        part = torch.cat([torch.arange(n * size, (n + 1) * size) for n, one in enumerate(found) if one.level == level])
        yield f"{level}: {covered(mean[:, part], scale[:, part], true[part], right):.1%} in the 90 % interval"
    expected = mixture(mean, right.factor * scale)["scale"]
    error, order = (true - mean.mean(0)).abs(), expected.argsort()
    fifths = [f"{expected[part].mean():.4f} / {error[part].mean():.4f}" for part in order.tensor_split(5)]
    yield f"error expected / found, of the range, by fifth of the expected: {', '.join(fifths)}"


def tiles(differs: Volume) -> NDArray[np.float64]:
    """Return the mean disagreement of tiles."""
    z, y, x = differs.shape
    whole = differs[:, : y // TILE * TILE, : x // TILE * TILE]
    return np.asarray(whole.reshape(z, y // TILE, TILE, x // TILE, TILE).mean((2, 4))).ravel()


def told_apart(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: the chance that a tile of the other has more than one of its own."""
    order = np.argsort(np.argsort(np.concatenate([own, other])))
    return float((order[len(own) :].sum() - len(other) * (len(other) - 1) / 2) / (len(own) * len(other)))


def trusted(model: Model, found: Sequence[Restored]) -> Iterable[str]:
    """Yield how well disagreement tells what was learned from what was not."""
    trust = Trust.decode(model.channels[0].trust or {})
    own: Mapping[str, Volume] = {
        one.level: disagreement(torch.from_numpy(one.means), torch.from_numpy(one.scales)).numpy() for one in found
    }
    yield "| image | mean disagreement | not trustworthy | AUROC against tissue of the same light |"
    yield "|---|---|---|---|"
    for level, differs in own.items():
        beyond, known = area_beyond(differs, trust.too_much)
        yield f"| tissue, {level} | {differs.mean():.3f} | {beyond / known:.1%} | |"
    for phantom, light, level in (
        ("nuclei", 20.0, "C2"), ("filaments", 20.0, "C2"), ("spots", 20.0, "C2"), ("filaments", 80.0, "C3"),
        ("tissue", 1.0, "C1"),
    ):  # fmt: skip
        means, scales = restored(model, exposure(phantom, TESTED[0], light))
        differs = disagreement(torch.from_numpy(means), torch.from_numpy(scales)).numpy()
        beyond, known = area_beyond(differs, trust.too_much)
        area = told_apart(tiles(own[level]), tiles(differs))
        yield f"| {phantom}, {light:g} photons | {differs.mean():.3f} | {beyond / known:.1%} | {area:.3f} |"


def picture(path: Path, model: Model) -> None:
    """Draw a plane of tissue of 5 and of 20 photons, of filaments and nuclei of 20: image, mean, truth, scale, D."""
    rows = []
    for phantom, light in (("tissue", 5.0), ("tissue", 20.0), ("filaments", 20.0), ("nuclei", 20.0)):
        image, truth = (exposure(phantom, TESTED[0], photons) for photons in (light, BRIGHT))
        means, scales = restored(model, image)
        differs = disagreement(torch.from_numpy(means), torch.from_numpy(scales)).numpy()
        middle = SHAPE[0] // 2
        shown = [np.asarray(image.array), means.mean(0), np.asarray(truth.array), scales.mean(0)]
        panels = [_grey(one[middle], *np.percentile(one[middle], (0.5, 99.7))) for one in shown]
        rows.append(np.hstack([*panels, _grey(differs[middle], 0, 0.12)]))
    iio.imwrite(path, np.vstack(rows))


def _grey(plane: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    return np.asarray((plane - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        model = trained(given.folder, seed, given.members, given.settings)
        if given.picture:
            picture(given.picture, model)
        found = tested(model)
        print(f"\nseed {seed}, {given.members} networks {' '.join(given.settings)}\n")
        fit = model.channels[0].fit
        right = Recalibration(fit["widened"], tuple(fit["levels"]))
        for lines in (denoising(found), calibration(found, right), trusted(model, found)):
            for line in lines:
                print(line, flush=True)
            print()


if __name__ == "__main__":
    main()

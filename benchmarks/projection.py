"""Surfaces of simulated epithelia at three light levels, of a movie that bleaches, and of a real wing disc.

    python benchmarks/projection.py levels --folder DIR [--seeds 0,1,2] [--set KEY=VALUE ...] [--picture FILE]
    python benchmarks/projection.py wing DATA/surface --folder DIR [--seeds 0] [--picture FILE]

``levels``: one network of the recipe ``project`` learns from pairs of stacks at all three light levels and the truth
of their surface; other epithelia are projected. The table has the form of CARE's supplementary table 6: NRMSE and
SSIM, and beside it SEG of cells between membranes and the median error of the height map in planes. Every classical
projection has the settings (of its ``CHOICES``) and the strength of non-local means (none among them) with the lowest
NRMSE against the truth of the test stacks, level by level; so has the stack read at the true height, which no method
knows. Then SEG frame by frame of a movie whose light falls (supplementary figure 11).

``wing``: ``wing_disc_stack.tif``, which has a second layer above, with the noise of a tenth of its light; the network
learns from its upper two thirds and their minimum-cost projection, and is applied to all of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.baselines.nlm import nlm
from deepcontrast.jobs.predict_in_memory import predict_maps
from deepcontrast.learning import learn
from deepcontrast.metrics.membrane_seg import membrane_seg
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.ssim import ssim
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.projections import Projection
from deepcontrast.projections._read_out import read_out
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth import Phantom
from deepcontrast.synth.epithelium import epithelium
from deepcontrast.tasks import project

LEVELS = {"C1": 3.0, "C2": 8.0, "C3": 25.0}
"""Photons at the brightest membranes."""
BLEACHING = (25.0, 12.0, 6.0, 3.0, 1.5)
SHAPE = (30, 160, 160)
TRAINED, TESTED = tuple(range(100, 106)), (200, 201, 202)
STRENGTHS = (0.0, 0.5, 0.8, 1.2, 1.8, 2.6)
"""Of non-local means, in standard deviations of the noise; 0 is without."""
METHODS = registry.names("projections")
Image = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("levels", "wing"))
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        if given.what == "levels":
            of_levels(seed, given.folder, given.settings, given.picture)
        else:
            of_wing(given.data, seed, given.folder, given.settings, given.picture)


def of_levels(seed: int, folder: Path, settings: Sequence[str], picture: Path | None) -> None:
    """Train on all levels, and print both tables."""
    lessons = [simulated(number, light) for number in TRAINED for light in LEVELS.values()]
    model = trained(
        [stack_of(one) for one in lessons], [plane_of(one) for one in lessons], folder / f"levels_{seed}.safetensors",
        settings, seed,
    )  # fmt: skip
    panels: list[Image] = []
    for level, light in LEVELS.items():
        tests = [simulated(number, light) for number in TESTED]
        found = [restored(model, one) for one in tests]
        rows = {"network": mean([scores(made, one) for made, one in zip(found, tests, strict=True)])}
        rows["truth"] = mean([scores(Projection(one.truth[0], one.height), one) for one in tests])
        rows["stack at the true height"] = oracle(tests)
        best = {}
        for name in METHODS:
            best[name], rows[name] = classical(name, tests)
        for name, row in rows.items():
            tell(f"{level} ({light:g} photons), {name}", row)
        if level == "C1":
            panels = [tests[0].truth[0], found[0].image, *(images[0].image for images in best.values())]
            panels.append(np.asarray(found[0].height))
    movie(model)
    if picture is not None:
        iio.imwrite(picture, np.hstack([grey(one) for one in panels]))
        print(f"{picture}: truth, network, {', '.join(METHODS)}, height of the network", flush=True)


def simulated(number: int, light: float, noise: int = 0) -> Phantom:
    return epithelium(shape=SHAPE, seed=number, light=light, noise_seed=noise)


def stack_of(one: Phantom) -> Stack:
    return Stack(one.raw, "ZYX", one.optics, source="epithelium")


def plane_of(one: Phantom) -> Stack:
    return Stack(one.truth[0], "YX", Optics(), source="surface")


def trained(stacks: Sequence[Stack], targets: Sequence[Stack], path: Path, settings: Sequence[str], seed: int) -> Model:
    """Return the model of pairs, trained where its file is not there yet."""
    if path.exists():
        return load_model(path)
    began = time.perf_counter()
    config = load_recipe("project", settings, train__seed=seed)
    pairs = [project.paired(image, target, config) for image, target in zip(stacks, targets, strict=True)]
    work = path.with_suffix(".work")
    work.mkdir(exist_ok=True)
    flat = [image.with_optics(surface="first") for image, _ in pairs]
    model, _ = learn(flat, config, targets=[target for _, target in pairs], folder=work)
    save_model(path, model)
    print(f"{path.stem}: trained in {time.perf_counter() - began:.0f} s", flush=True)
    return model


def restored(model: Model, one: Phantom | Stack) -> Projection:
    """Return what the network makes of a stack."""
    maps = predict_maps([model], one if isinstance(one, Stack) else stack_of(one))
    return Projection(np.asarray(maps["mean"].array), np.asarray(maps["height"].array))


def classical(name: str, tests: Sequence[Phantom]) -> tuple[list[Projection], dict[str, float]]:
    """Return a method's projections and mean scores, with the settings and smoothing of the lowest mean NRMSE."""
    module = registry.module("projections", name)
    best: tuple[float, list[Projection], dict[str, float]] = (np.inf, [], {})
    for choice in module.CHOICES:
        made = [getattr(module, name)(one.raw.astype(np.float32), **choice) for one in tests]
        for strength in STRENGTHS:
            smooth = [replace(one, image=denoised(one.image, strength)) for one in made]
            error = float(
                np.mean([nrmse(p.image, one.truth[0])[0].value for p, one in zip(smooth, tests, strict=True)])
            )
            if error < best[0]:
                best = (error, smooth, {"nlm": strength})
    row = mean([scores(made, one) for made, one in zip(best[1], tests, strict=True)])
    return best[1], {**row, **best[2]}


def oracle(tests: Sequence[Phantom]) -> dict[str, float]:
    """Return the scores of stacks read at the true height, which no method knows, smoothed as the others are."""
    found = []
    for thickness, strength in product((0, 1, 2), STRENGTHS):
        made = []
        for one in tests:
            assert one.height is not None
            image = read_out(one.raw.astype(np.float32), one.height, thickness=thickness, reading="mean")
            made.append(Projection(denoised(image, strength), one.height))
        row = mean([scores(projection, one) for projection, one in zip(made, tests, strict=True)])
        found.append({**row, "nlm": strength})
    return min(found, key=lambda row: row["nrmse"])


def denoised(image: Image, strength: float) -> Image:
    return nlm(image[None], strength=strength)[0] if strength else image


def scores(made: Projection, one: Phantom) -> dict[str, float]:
    """Return the scores of a projection."""
    truth = one.truth[0]
    assert one.labels is not None
    seg = next(float(m.value or 0) for m in membrane_seg(made.image, one.labels[0]) if m.metric == "membrane_seg")
    height = np.nan if made.height is None else float(np.median(np.abs(made.height - one.height)))
    return {
        "nrmse": float(nrmse(made.image, truth)[0].value),  # type: ignore[arg-type]
        "ssim": float(ssim(made.image, truth)[0].value),  # type: ignore[arg-type]
        "seg": seg,
        "height": height,
    }


def movie(model: Model) -> None:
    """Print SEG of a movie whose light falls, raw (maximum projection, with NLM tuned on each frame) and restored."""
    for light in BLEACHING:
        rows: dict[str, list[float]] = {"maximum": [], "maximum + nlm": [], "network": []}
        for number in TESTED:
            one = simulated(number, light, noise=1)
            raw = registry.load("projections", "maximum")(one.raw.astype(np.float32))
            rows["maximum"].append(scores(raw, one)["seg"])
            tried = [scores(replace(raw, image=denoised(raw.image, s)), one)["seg"] for s in STRENGTHS]
            rows["maximum + nlm"].append(max(tried))
            rows["network"].append(scores(restored(model, one), one)["seg"])
        tell(f"movie, {light:g} photons, SEG", {name: float(np.mean(values)) for name, values in rows.items()})


def of_wing(data: Path, seed: int, folder: Path, settings: Sequence[str], picture: Path | None) -> None:
    """Learn from the upper part of the real stack, and compare all of it with the other program's projection."""
    raw = tifffile.imread(data / "wing_disc_stack.tif").astype(np.float32)
    other = tifffile.imread(data / "wing_disc_projected_by_epitools.tif").astype(np.float32)
    rng = np.random.default_rng(seed)
    dim = rng.poisson(np.maximum(raw, 0) / 10).astype(np.float32)
    cut = 2 * raw.shape[1] // 3
    optics = Optics(voxel_size=(1.0, 0.25, 0.25))
    low, high = (Stack(one[:, :cut], "ZYX", optics, source="wing disc") for one in (dim, raw))
    model = trained([low], [high], folder / f"wing_{seed}.safetensors", settings, seed)
    found = restored(model, Stack(dim, "ZYX", optics, source="wing disc"))
    results = {"network": found.image, "maximum": dim.max(0)}
    for name, part in product(METHODS, ("raw", "dim")):
        stack = raw if part == "raw" else dim
        results[f"{name} of {part}"] = registry.load("projections", name)(stack).image
    for name, image in results.items():
        for where, rows in (("learned", slice(None, cut)), ("unseen", slice(cut, None))):
            value = float(np.corrcoef(image[rows].ravel(), other[rows].ravel())[0, 1])
            print(f"  {name:32s} {where:8s} correlation with the other program's {value:.4f}", flush=True)
    if picture is not None:
        panels = [
            other,
            results["network"],
            results["maximum"],
            results["minimum_cost_surface of dim"],
            np.asarray(found.height),
        ]
        iio.imwrite(picture, np.hstack([grey(one) for one in panels]))
        print(f"{picture}: other program, network, maximum, minimum-cost surface, height of the network", flush=True)


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def tell(name: str, row: Mapping[str, float]) -> None:
    print(f"  {name:40s}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)


def grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.percentile(image, (0.5, 99.8))
    panel = np.clip(255 * (np.asarray(image, np.float64) - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
    return np.pad(np.kron(panel, np.ones((2, 2), np.uint8)), ((0, 0), (0, 4)), constant_values=255)


if __name__ == "__main__":
    main()

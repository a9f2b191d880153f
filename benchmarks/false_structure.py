"""Does a result show structures where there are none, and those that are there? The figures of docs/evidence.md.

    python benchmarks/false_structure.py --folder DIR --repeats 20 [--recipes contrast,contrast-paper]
        [--control own] [--set KEY=VALUE ...] [--picture FILE.png]

Every repeat simulates a stack (phantoms in turn, 25 photons) whose shallow half is the phantom as the microscope sees
it. Its deep half is only haze: what reaches each plane there, spread in the plane by the phantom's widest haze
(7.5 um, 25 px). The control has the same deep half, and a shallow half that was spread alike, so it is as bright in
every plane; its noise is another draw. Each recipe is trained on the structured stack as `enhance` does it, with its
own k by depth and brightness. That chain, unchanged, is then applied to all draws: what differs from the control is
what it made of the noise it was trained on, and of the structures above. With `--control own` it is also trained anew
on the control. `contrast-paper` is the published pair of images in the network of `contrast`: the recipe of that name
has 61 million weights and needs a GPU. The raw and a band-pass in space, clipped at the median of every plane, are
beside it, and an ideal observer: the matched filter of the inserted structures, who knows noise and background.

Structures are counted plane by plane: the result less its Gaussian of 20 px, over its standard deviation in that plane
of a third draw, above a threshold, 8-connected, 4 px or more. A method has one threshold for a repeat, at which that
third draw has as many of them per mm2 as the ideal observer counts above 3 standard deviations. So all methods find
equally much where there is nothing, whatever their scale; a ratio of 1 is no false structure. The chain trained on the
control is calibrated alike, and counted in the very noise that it was trained on.

Inserted structures are Gaussians in space of 4 px full width at half maximum, drawn into the expected photons of the
deep half before the noise is. Their d' is that of the matched filter over all their planes (with the read noise): no
observer, of whatever planes, has more. That of the central plane alone is 1.73 times smaller; structures whose d' in
that plane is 3, 5 and 8 are inserted too. Found: counted in the central plane, within 3 px of the centre. By chance:
the share of the control's places so near to what is counted there.

The interface is sharp, and no light of the shallow half is in focus below. What filters and networks carry down from
above, they do in the first few planes: the table has the planes from 6 below the interface on, and beside it the ratio
of the whole deep half. The outermost 8 px of all planes are left out; what there is in the control is the last column,
per mm2 of that rim. What is done is kept in DIR/runs.jsonl, and not done again; an interrupted training goes on. About
3 CPU minutes per repeat and recipe.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from runs import kept
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.brightness import blend
from deepcontrast.depth import depths
from deepcontrast.enhancing import enhance
from deepcontrast.experiments import PUBLISHED
from deepcontrast.experiments.ablation import MORE
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth._deep import haze_shares

RECIPES: Mapping[str, tuple[str, ...]] = {"contrast": (), "contrast-paper": PUBLISHED}
"""Settings over those of `contrast`."""
PHANTOMS = ("tissue", "nuclei", "filaments", "spots")
SHAPE, LIGHT, SEED = (48, 160, 160), 25.0, 800
MARGIN = 6
"""Planes below the interface that the main figures leave out: the reach of three passes with two planes each."""
FWHM, DETECTABILITY, NEAR = 4.0, (3, 5, 8), 3
SPREAD = FWHM / 2.3548
EVERY, BETWEEN = 24, 10
"""Pixels and planes from one inserted structure to the next."""
WIDE, SMALLEST, CHANCE = 20.0, 4, 3.0
EDGE = 8
"""Pixels of the rim of a plane that is counted apart."""
INSIDE = (slice(None), slice(EDGE, -EDGE), slice(EDGE, -EDGE))
Volume = NDArray[np.float32]
Method = Callable[[NDArray[np.uint16]], Volume]
"""From a raw stack to the result's deep half."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Expected photons of one repeat.

    Attributes:
        structured: structures in the shallow half, haze below (Z, Y, X).
        haze: haze alone; equal in the deep half.
        camera: optics with gain, offset and read noise.
        repeat: its number.
    """

    structured: Volume
    haze: Volume
    camera: Optics
    repeat: int

    @property
    def half(self) -> int:
        """The first plane without structures."""
        return len(self.haze) // 2

    @property
    def variance(self) -> Volume:
        """Of the noise in the deep half, photons squared."""
        return self.haze[self.half :] + (self.camera.read_noise / self.camera.gain) ** 2

    @property
    def voxel(self) -> float:
        """Side of a voxel in mm."""
        return self.camera.voxel_size[0] / 1000

    def drawn(self, photons: Volume, number: int) -> NDArray[np.uint16]:
        """Return one of the raw stacks that the camera may make of expected photons."""
        rng = np.random.default_rng((SEED, self.repeat, number))
        grey = self.camera.gain * rng.poisson(photons) + self.camera.offset
        grey = grey + rng.normal(0, self.camera.read_noise, photons.shape)
        return np.clip(np.rint(grey), 0, np.iinfo(np.uint16).max).astype(np.uint16)

    def places(self) -> NDArray[np.int64]:
        """Return where structures are inserted: plane of the deep half, row and column (N, 3)."""
        rng = np.random.default_rng((SEED, self.repeat))
        planes = range(MARGIN + 3, len(self.haze) - self.half - 4, BETWEEN)
        corners = [range(EDGE, side - EDGE - EVERY + 1, EVERY) for side in self.haze.shape[1:]]
        grid = np.stack(np.meshgrid(planes, *corners, indexing="ij"), axis=-1).reshape(-1, 3)
        inside = rng.integers(EVERY // 4, EVERY - EVERY // 4, (len(grid), 2))
        return grid + np.column_stack([np.zeros(len(grid), np.int64), inside])

    def inserted(self, wanted: float, *, plane: bool) -> Volume:
        """Return the stack's photons with structures of a d', in all planes or in the central one alone."""
        out, below = self.structured.copy(), self.variance
        for place in self.places():
            z, y, x = (
                np.exp(-((np.arange(n) - at) ** 2) / (2 * SPREAD**2)) for n, at in zip(below.shape, place, strict=True)
            )
            shape = z[:, None, None] * y[:, None] * x
            known = shape**2 / below
            out[self.half :] += wanted / np.sqrt((known[place[0]] if plane else known).sum()) * shape
        return out


def scene(repeat: int, shape: tuple[int, int, int]) -> Scene:
    """Return the expected photons of a repeat, by the model of the phantoms."""
    name = PHANTOMS[repeat % len(PHANTOMS)]
    made = registry.load("synth", name)(shape=shape, seed=SEED + repeat, light=LIGHT, **MORE.get(name, {}))
    p, voxel = made.parameters, made.parameters["voxel_um"]
    depth = np.arange(len(made.truth), dtype=np.float32)[:, None, None] * voxel
    ballistic = np.exp(-depth / p["scatter_um"])
    glow = made.truth * np.exp(-depth / p["attenuation_um"])
    photons = glow * ballistic + LIGHT * p["autofluorescence"]
    for width, share in zip(p["haze_um"], haze_shares(depth, p["scatter_um"]), strict=True):
        photons += ndimage.gaussian_filter(glow * (1 - ballistic) * share, width / voxel, truncate=3.0)
    wide = p["haze_um"][-1] / voxel
    haze = ndimage.gaussian_filter(photons, (0, wide, wide))
    half = len(photons) // 2
    return Scene(np.concatenate([photons[:half], haze[half:]]), haze, made.optics, repeat)


def draws(made: Scene) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Yield the raw stacks of a repeat: `structured` is trained on, `calibration` gives the threshold."""
    yield "structured", made.drawn(made.structured, 0)
    yield "control", made.drawn(made.haze, 1)
    yield "calibration", made.drawn(made.haze, 2)
    for number, (name, photons) in enumerate(insertions(made), 3):
        yield name, made.drawn(photons, number)


def insertions(made: Scene) -> Iterator[tuple[str, Volume]]:
    """Yield expected photons with structures of every d'."""
    for plane in (False, True):
        for wanted in DETECTABILITY:
            yield f"{'plane ' if plane else ''}{wanted}", made.inserted(wanted, plane=plane)


def raw_itself(raw: NDArray[np.uint16]) -> Volume:
    return raw[len(raw) // 2 :].astype(np.float32)


def band_pass(raw: NDArray[np.uint16]) -> Volume:
    deep = registry.load("baselines", "band_pass_3d")(raw.astype(np.float32))[len(raw) // 2 :]
    return np.maximum(deep, np.median(deep, axis=(1, 2), keepdims=True))


def ideal(raw: NDArray[np.uint16], made: Scene) -> Volume:
    """Return the matched filter's output in standard deviations."""
    photons = (raw[made.half :] - made.camera.offset) / made.camera.gain
    matched = partial(ndimage.gaussian_filter, mode="constant", truncate=5.0)
    # The square of a Gaussian is one that is narrower by the root of 2; both filters here have a sum of 1.
    peak, square = (1 / (np.sqrt(2 * np.pi) * s) ** 3 for s in (SPREAD, SPREAD / np.sqrt(2)))
    signal = matched((photons - made.haze[made.half :]) / made.variance, SPREAD) / peak
    return signal / np.sqrt(matched(1 / made.variance, SPREAD / np.sqrt(2)) / square)


def chain(
    recipe: str, raw: NDArray[np.uint16], made: Scene, settings: Sequence[str], folder: Path
) -> tuple[Method, float]:
    """Return a trained recipe, with the k and brightness that `enhance` chose for the stack; and its mean k below."""
    config = load_recipe("contrast", (*RECIPES[recipe], *settings), train__seed=made.repeat)
    optics = Optics(voxel_size=made.camera.voxel_size, surface="first")
    stack = Stack(raw, "ZYX", optics)
    found = enhance([stack], config, folder=folder)
    fit, choice, brightness, channel = found.fits[0], found.choices[0], found.brightness[0], found.model.channels[0]
    task: Any = registry.load("tasks", found.model.task)
    nets = load_nets(task, channel.members, fit, found.model.config)
    depth = depths(stack)
    chosen = choice.at(depth)[made.half :]
    times = int(np.ceil(chosen.max()))
    # So many planes above are seen by the first one of the deep half.
    above = times * max(fit.layers)

    def apply(image: NDArray[np.uint16]) -> Volume:
        passes = [task.clean(image, fit)[made.half - above :]]
        for _ in range(times):
            out = np.empty_like(passes[-1])
            predict_pass(task, nets, passes[-1], fit, found.model.config, out=out)
            passes.append(out)
        deep = np.empty_like(passes[0][above:])
        mixed = blend(chosen, depth[made.half :], brightness, offset=fit.norm.offset)
        mixed.write({k: one[above:] for k, one in enumerate(passes)}, deep)
        return deep

    return apply, float(chosen.mean())


def detrended(result: Volume) -> Volume:
    return result - ndimage.gaussian_filter(result, (0, WIDE, WIDE))


def spread(band: Volume) -> Volume:
    """Return the standard deviation of every plane (Z, 1, 1), without its rim."""
    return band[INSIDE].std(axis=(1, 2), keepdims=True)


def structures(significance: Volume, threshold: float) -> tuple[NDArray[np.bool_], list[int]]:
    """Return what is connected above a threshold (Z, Y, X), and how many there are in every plane."""
    marked, counts = np.zeros(significance.shape, bool), []
    for z, plane in enumerate(significance):
        labels, _ = ndimage.label(plane > threshold, np.ones((3, 3)))
        large = np.bincount(labels.ravel()) >= SMALLEST
        large[0] = False
        marked[z] = large[labels]
        counts.append(int(large.sum()))
    return marked, counts


@cache
def wanted_density() -> float:
    """Return how many structures per pixel the ideal observer counts in noise above ``CHANCE``."""
    noise = ndimage.gaussian_filter(np.random.default_rng(SEED).standard_normal((200, 200, 200)), (0, SPREAD, SPREAD))
    return sum(structures(noise / spread(noise), CHANCE)[1]) / noise.size


def calibrated(significance: Volume) -> float:
    """Return the highest threshold at which there are as many structures as wanted; else that with the most."""
    thresholds = np.quantile(significance, 1 - np.geomspace(1e-5, 0.5, 150))
    most = (0, float(thresholds[0]))
    for threshold in thresholds:
        count = sum(structures(significance, threshold)[1])
        if count >= wanted_density() * significance.size:
            return float(threshold)
        most = max(most, (count, float(threshold)))
    return most[1]


def near(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    y, x = np.ogrid[-NEAR : NEAR + 1, -NEAR : NEAR + 1]
    return np.stack([ndimage.binary_dilation(plane, y**2 + x**2 <= NEAR**2) for plane in marked])


def measured(method: Method, made: Scene, keep: Path | None) -> dict[str, Any]:
    """Return the counts per plane of structured stack and control, and the shares that were found."""
    stacks = dict(draws(made))
    band = detrended(method(stacks.pop("calibration")))
    unit = spread(band)
    threshold = calibrated((band / unit)[INSIDE])
    places = made.places()
    run: dict[str, Any] = {"threshold": threshold, "found": {}}
    images = {}
    for name, raw in stacks.items():
        result = method(raw)
        significance = detrended(result) / unit
        marked, counts = structures(significance[INSIDE], threshold)
        if name in ("structured", "control"):
            run[name] = counts
            run[f"{name} rim"] = np.subtract(structures(significance, threshold)[1], counts).tolist()
        else:
            run["found"][name] = float(near(marked)[tuple((places - (0, EDGE, EDGE)).T)].mean())
            images[name] = result[INSIDE][places[0, 0]], marked[places[0, 0]]
        if name == "control":
            run["chance"] = float(near(marked[MARGIN:]).mean())
    if keep is not None:
        np.savez(keep, **{name: np.stack(pair).astype(np.float32) for name, pair in images.items()})
    return run


def run_of(repeat: int, name: str, own: bool, given: argparse.Namespace) -> dict[str, Any]:
    """Return the results of a method on one repeat, or of a recipe that was trained on its control."""
    made = scene(repeat, given.shape)
    area = {"": made.haze[INSIDE][0].size * made.voxel**2, " rim": made.haze[0].size * made.voxel**2}
    area[" rim"] -= area[""]
    plain: Mapping[str, Method] = {"raw": raw_itself, "band-pass": band_pass, "ideal": partial(ideal, made=made)}
    keep = None if repeat else given.folder / f"planes_{name}.npz"
    if name in plain:
        return {"area": area, **measured(plain[name], made, keep)}
    stacks = dict(draws(made))
    raw = stacks["control" if own else "structured"]
    work = given.folder / "work" / f"{name}_{repeat}{'_own' if own else ''}"
    method, k = chain(name, raw, made, given.settings, work)
    if own:
        band = detrended(method(stacks["calibration"]))
        significance, fresh = (image[INSIDE] / spread(band) for image in (detrended(method(raw)), band))
        run = {"control": structures(significance, calibrated(fresh))[1]}
    else:
        run = measured(method, made, keep)
    shutil.rmtree(work)
    return {"area": area, "k": k, **run}


def table(runs: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[str]:
    """Return the means over repeats as lines."""
    total = list(map(str, DETECTABILITY))
    lines = [
        "| method | k | structures per mm2, deep half | on pure haze and noise | ratio (95 %) | worst repeat "
        f"| trained anew | found, % at d' {' / '.join(total)} | at d' of the central plane | by chance "
        "| ratio, whole deep half | rim of the control |"
    ]
    lines.append("|" + "---|" * 12)
    for name in methods:
        mine = [run for run in runs if run["job"][1] == name and "found" in run]
        own = [run for run in runs if run["job"][1] == name and "found" not in run]
        there, empty = (np.array([density(run, of) for run in mine]) for of in ("structured", "control"))
        whole = [np.mean([density(run, of, margin=0) for run in mine]) for of in ("structured", "control")]
        low, high = interval(there, empty)
        shares = {d: 100 * np.mean([run["found"][d] for run in mine]) for d in mine[0]["found"]}
        cells = [
            name,
            f"{np.mean([run['k'] for run in mine]):.1f}" if "k" in mine[0] else "-",
            f"{there.mean():.0f}",
            f"{empty.mean():.0f}",
            f"{there.mean() / empty.mean():.2f} ({low:.2f} to {high:.2f})",
            f"{(there / empty).max():.2f}",
            f"{np.mean([density(run, 'control') for run in own]):.0f} (n = {len(own)})" if own else "-",
            " / ".join(f"{shares[d]:.0f}" for d in total),
            " / ".join(f"{shares[f'plane {d}']:.0f}" for d in total),
            f"{100 * np.mean([run['chance'] for run in mine]):.1f}",
            f"{whole[0] / whole[1]:.2f}",
            f"{np.mean([density(run, 'control', where=' rim') for run in mine]):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def density(run: Mapping[str, Any], of: str, *, margin: int = MARGIN, where: str = "") -> float:
    """Return structures per mm2 from so many planes below the interface on, inside or at the rim."""
    return float(np.mean(run[of + where][margin:]) / run["area"][where])


def interval(there: NDArray[np.float64], empty: NDArray[np.float64]) -> tuple[float, float]:
    """Return where 95 % of the ratios of means lie when repeats are drawn anew."""
    picks = np.random.default_rng(0).integers(0, len(there), (2000, len(there)))
    low, high = np.percentile(there[picks].mean(axis=1) / empty[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def picture(methods: Sequence[str], given: argparse.Namespace) -> None:
    """Draw one deep plane of the first repeat: expected photons, and the results with what is counted in them."""
    from matplotlib import pyplot

    made = scene(0, given.shape)
    z = made.half + made.places()[0, 0]
    rows = {name: photons[INSIDE][z] for name, photons in insertions(made) if name in map(str, DETECTABILITY)}
    planes = {name: np.load(given.folder / f"planes_{name}.npz") for name in methods}
    columns = 1 + len(methods)
    size = (3 * columns, 3 * len(rows))
    figure, axes = pyplot.subplots(len(rows), columns, figsize=size, layout="constrained", squeeze=False)
    for line, (wanted, photons) in zip(axes, rows.items(), strict=True):
        shown = {"expected photons": (photons, None), **{name: planes[name][wanted] for name in methods}}
        for axis, (name, (image, marked)) in zip(line, shown.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.8))
            if marked is not None:
                axis.contour(marked, [0.5], colors="red", linewidths=0.6)
            axis.set(xticks=[], yticks=[], title=f"{name}, d' {wanted}")
    figure.savefig(given.picture, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--control", choices=("same", "own"), default="same", help="own: also train on the control")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="over those of the recipes")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=SHAPE)
    parser.add_argument("--picture", type=Path, help="of the first repeat")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    file, recipes = given.folder / "runs.jsonl", given.recipes.split(",")
    methods = ["ideal", "raw", "band-pass", *recipes]
    todo = [(repeat, name, False) for repeat in range(given.repeats) for name in methods]
    if given.control == "own":
        todo += [(repeat, name, True) for repeat in range(given.repeats) for name in recipes]
    setting = [list(given.shape), given.settings]
    if any(run["setting"] != setting for run in kept(file)):
        parser.error(f"{given.folder} has runs with another shape or --set; take another folder")
    for job in todo:
        if not any(tuple(run["job"]) == job for run in kept(file)):
            run = {"job": job, "setting": setting, **run_of(*job, given)}
            with file.open("a") as lines:
                lines.write(json.dumps(run) + "\n")
            print(*job[:2], "trained on its control" if job[2] else "", flush=True)
    every = [run for run in kept(file) if tuple(run["job"]) in todo]
    print("\n".join(table(every, methods)))
    if given.picture:
        picture(methods, given)


if __name__ == "__main__":
    main()

"""Structures below the resolution limit, from drawn pairs alone: tubules and granules. For docs/evidence.md.

    python benchmarks/structures.py tubules|granules --folder DIR [--seeds 0,1,2] [--set KEY=VALUE ...]
        [--picture FILE] [--nothing]

tubules: the recipe `tubules`, which draws what `hela` draws, trained in minutes; then images that it never saw, drawn
with other seeds, at three light levels: NRMSE and SSIM after the affine fit (CARE supplement, 2.2) of the input, of
Richardson-Lucy with the true point-spread function, and of the network applied once and twice. Then pairs of parallel
straight tubules, at random angles and places: the share whose profile, the mean over 7 pixels along them, has two
maxima with a dip of 10 % between them, each within a pixel and half the distance of its place; the distance from which
90 % have; the error of the maxima's places (median, 95 of 100); and the width of a single tubule.

granules: the recipe `granules`, which draws what `ins1-granules` draws, likewise, and F1 of detections, a detection
being right within 2 pixels of the centre of a granule, one for one. The detector is the Laplacian of Gaussian on every
image; its width and threshold, and the iterations of Richardson-Lucy, are chosen on other drawings, for every method
and light level.

With --picture only that is made: a part of a drawing at the second light level, as every method shows it. With
--nothing only images without structure are restored, and what appears in them is printed; 1 is a tubule or a granule.

Models are kept in DIR under the hash of their settings and not trained again.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.signal import find_peaks, peak_widths
from skimage.feature import peak_local_max

import deepcontrast as dc
from deepcontrast.baselines.richardson_lucy import richardson_lucy
from deepcontrast.config import Config
from deepcontrast.degrade.convolve import computed
from deepcontrast.distortion import Pair, distort, draw
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.train import train_images
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.ssim import ssim
from deepcontrast.recipe import load_recipe
from deepcontrast.report.canvas import new_figure, plain_style, png_bytes
from deepcontrast.stack import Stack
from deepcontrast.synth._walks import SUBPIXELS, deposit
from deepcontrast.synth.granules import labelled
from deepcontrast.tasks import structures

Plane = NDArray[np.float64]
Method = Callable[[Plane], Plane]

LIGHT = {"tubules": (30, 150, 750), "granules": (10, 50, 250)}
"""Photons where the truth is 1: a single tubule, a granule of median brightness."""
SEEN_BY_NOBODY, CHOSEN_ON = 1000, 2000
"""Seeds of the drawings that are scored, and of those that settings of detectors are chosen on."""
DRAWINGS = 8
ITERATIONS = (5, 10, 20, 40, 80, 160)
DISTANCES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
PLACES = 40
DIP, RESOLVED = 0.1, 0.9


def trained(kind: str, folder: Path, settings: Sequence[str], seed: int) -> tuple[Any, Config, float]:
    """Return the model of a seed, its settings, and the seconds its training took; 0 where it was there."""
    config = load_recipe(kind, settings, train__seed=seed)
    model = folder / f"{kind}_{hashlib.sha256(config.json().encode()).hexdigest()[:12]}.safetensors"
    begun = time.perf_counter()
    if model.exists():
        return dc.load(model), config, 0.0
    train_images(
        (), model, config, reading=Reading(), device="cpu",
        resume=model.with_name(f"{model.name}.partial").exists(),
    )  # fmt: skip
    return dc.load(model), config, time.perf_counter() - begun


def at_light(config: Config, light: float) -> structures.Params:
    """Return the settings of a recipe with so many photons, in drawings that show something."""
    chain = [{**step, "light": light} if step["step"] == "poisson" else step for step in config.task["chain"]]
    return structures.Params(**{**config.task, "chain": chain, "empty": 0.0})


def spot(params: structures.Params) -> NDArray[np.float32]:
    """Return the point-spread function (1, Y, X) of the chain."""
    [step] = [step for step in params.chain if step["step"] == "convolve"]
    return computed("widefield", step["na"], step["wavelength"], 0.0, step["index"], (params.pixel,) * 3, 1)


def methods(model: Any, params: structures.Params) -> dict[str, Method]:
    """Return what is compared, each a function of a plane."""
    kernel, optics = spot(params), structures.drawn_optics(params)

    def lucy(plane: Plane, iterations: int) -> Plane:
        volume = np.maximum(plane, 0)[None].astype(np.float32)
        return richardson_lucy(volume, psf=kernel, iterations=iterations, tolerance=0.0)[0].astype(np.float64)

    def network(plane: Plane, times: int) -> Plane:
        stack = Stack(plane[None].astype(np.float32), "ZYX", optics)
        return np.asarray(model.predict(stack, iterations=times, device="cpu").array, np.float64)[0]

    found: dict[str, Method] = {"input": lambda plane: plane}
    found |= {f"Richardson-Lucy {n}": lambda plane, n=n: lucy(plane, n) for n in ITERATIONS}
    found |= {"network": lambda plane: network(plane, 1), "network twice": lambda plane: network(plane, 2)}
    return found


def drawings(params: structures.Params, seed: int) -> list[Pair]:
    """Return pairs that no training made."""
    return [structures.drawn_pair(params, structures.chain_of(params), seed, "test", n) for n in range(DRAWINGS)]


def planes(pair: Pair) -> tuple[Plane, Plane]:
    return pair.image[0].astype(np.float64), pair.target[0].astype(np.float64)


def errors(model: Any, config: Config) -> None:
    """Print NRMSE and SSIM of every method at every light level."""
    print("| | light | NRMSE | of the input's | SSIM |\n|---|---|---|---|---|")
    for light in LIGHT["tubules"]:
        params = at_light(config, light)
        pairs = [planes(pair) for pair in drawings(params, SEEN_BY_NOBODY)]
        scored: dict[str, tuple[float, float]] = {}
        for name, method in methods(model, params).items():
            both = [
                (nrmse(image, truth)[0].value or 0.0, ssim(image, truth)[0].value or 0.0)
                for image, truth in ((method(image), truth) for image, truth in pairs)
            ]
            scored[name] = (float(np.mean([b[0] for b in both])), float(np.mean([b[1] for b in both])))
        for name in _best(scored):
            error, similarity = scored[name]
            share = error / scored["input"][0]
            print(f"| {name} | {light} | {error:.4f} | {share:.2f} | {similarity:.3f} |", flush=True)


def _best(scored: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the methods, of Richardson-Lucy only the iterations with the least error: the truth chooses for it."""
    lucy = min((name for name in scored if name.startswith("Richardson")), key=lambda name: scored[name][0])
    return ["input", lucy, "network", "network twice"]


def profiles(params: structures.Params, distance: float, seed: int) -> list[tuple[Pair, tuple[float, ...]]]:
    """Return pairs of images of two parallel tubules so many pixels apart, 0 for a single one, and their places.

    Places are (y, x) of the middle between both, and the angle of what runs across them.
    """
    steps, optics, found = structures.chain_of(params), structures.drawn_optics(params), []
    for n in range(PLACES):
        rng = np.random.default_rng((seed, n, round(100 * distance)))
        middle, angle = 48 + rng.uniform(-0.5, 0.5, 2), rng.uniform(0, np.pi)
        across = np.array([np.sin(angle), np.cos(angle)])
        truth = np.zeros((1, 96, 96), np.float32)
        for side in (-0.5, 0.5) if distance else (0.0,):
            truth += straight((96, 96), middle + side * distance * across, angle + np.pi / 2)
        found.append((distort(truth, optics, steps, draw(steps, rng)), (*middle, angle)))
    return found


def straight(shape: tuple[int, int], middle: Plane, angle: float) -> NDArray[np.float32]:
    """Return a straight tubule (1, Y, X) of brightness 1 through a place (y, x), longer than the field."""
    along = np.arange(-2 * max(shape), 2 * max(shape) + 1 / SUBPIXELS, 1 / SUBPIXELS)
    points = np.stack([np.zeros_like(along), middle[0] + along * np.sin(angle), middle[1] + along * np.cos(angle)], 1)
    density = np.zeros((1, *shape), np.float32)
    deposit(density, points, np.full(len(points), 1 / SUBPIXELS))
    return density


def across(plane: Plane, place: tuple[float, ...]) -> Plane:
    """Return the profile across, at every eighth of a pixel within 8 pixels of the middle, mean over 7 pixels."""
    y, x, angle = place
    ahead, aside = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    at = np.arange(-64, 65) / 8
    points = np.array([y, x])[:, None, None] + ahead[:, None, None] * at[:, None]
    points = points + aside[:, None, None] * np.arange(-3, 4)
    return ndimage.map_coordinates(plane, points, order=1).mean(axis=1)


def maxima(profile: Plane) -> Plane:
    """Return where a profile has its two highest maxima, in pixels from its middle, if there is a dip between them."""
    height = profile.max() - np.median(profile)
    found, _ = find_peaks(profile, prominence=DIP * height)
    inside = found[np.argsort(profile[found])[::-1][:2]]
    return np.sort(inside / 8 - 8.0)


def resolution(model: Any, config: Config) -> None:
    """Print the shares of pairs that are resolved, the distance from which they are, places, and widths."""
    print(f"| | light | {' | '.join(f'{d:g} px' for d in DISTANCES)} | from | places off by | width |")
    print("|---" * (len(DISTANCES) + 5) + "|")
    for light in LIGHT["tubules"]:
        params = at_light(config, light)
        ways = {name: way for name, way in methods(model, params).items() if "Richardson" not in name}
        ways |= {name: way for name, way in methods(model, params).items() if name.endswith((" 20", " 160"))}
        ways["truth"] = lambda plane: plane
        shares: dict[str, list[float]] = {name: [] for name in ways}
        off: dict[str, list[float]] = {name: [] for name in ways}
        for distance in DISTANCES:
            made = profiles(params, distance, SEEN_BY_NOBODY)
            for name, way in ways.items():
                seen = [maxima(across(way(planes(p)[name == "truth"]), at)) for p, at in made]
                near = min(1.0, distance / 2)
                good = [
                    one for one in seen if len(one) == 2 and np.abs(one - (-distance / 2, distance / 2)).max() <= near
                ]
                shares[name].append(len(good) / len(made))
                off[name] += [float(np.abs(one - (-distance / 2, distance / 2)).max()) for one in good]
        single = profiles(params, 0.0, SEEN_BY_NOBODY)
        for name, way in ways.items():
            from_ = next((d for n, d in enumerate(DISTANCES) if min(shares[name][n:]) >= RESOLVED), None)
            width = np.median([_width(across(way(planes(p)[name == "truth"]), at)) for p, at in single])
            cells = " | ".join(f"{share:.2f}" for share in shares[name])
            places = f"{np.median(off[name]):.2f}, {np.percentile(off[name], 95):.2f}" if off[name] else "-"
            print(f"| {name} | {light} | {cells} | {from_} | {places} | {width:.2f} px |", flush=True)


def _width(profile: Plane) -> float:
    """Return the full width at half height of a profile's highest maximum, in pixels."""
    above = profile - np.median(profile)
    return float(peak_widths(above, [int(np.argmax(above))], rel_height=0.5)[0][0] / 8)


Detector = tuple[float, float]
"""Width of the Laplacian of Gaussian in pixels, and least response."""


def response(plane: Plane, sigma: float) -> Plane:
    return -(sigma**2) * ndimage.gaussian_laplace(plane, sigma)


def f1(found: Plane, known: Plane) -> tuple[int, int, int]:
    """Return how many detections are right, how many there are, and how many granules."""
    if not len(found) or not len(known):
        return 0, len(found), len(known)
    apart = np.linalg.norm(found[:, None] - known[None], axis=-1)
    rows, columns = linear_sum_assignment(np.where(apart <= 2.0, apart, 1e3))
    return int((apart[rows, columns] <= 2.0).sum()), len(found), len(known)


def detected(plane: Plane, detector: Detector) -> Plane:
    sigma, least = detector
    return peak_local_max(response(plane, sigma), min_distance=1, threshold_abs=least, exclude_border=False)


def labelled_drawings(params: structures.Params, seed: int) -> list[tuple[Plane, Plane]]:
    """Return images and the centres (n, 2) of their granules."""
    steps, optics, made = structures.chain_of(params), structures.drawn_optics(params), []
    for n in range(DRAWINGS):
        rng = np.random.default_rng((seed, n))
        settings = {key: tuple(v) if isinstance(v, list | tuple) else v for key, v in params.draw.items()}
        truth, labels = labelled(rng, (1, params.size, params.size), voxel_um=(params.pixel,) * 3, **settings)
        pair = distort(truth, optics, steps, draw(steps, rng))
        centres = ndimage.center_of_mass(truth[0], labels[0], np.arange(1, labels.max() + 1))
        made.append((pair.image[0].astype(np.float64), np.array(centres).reshape(-1, 2)))
    return made


def score(images: Sequence[tuple[Plane, Plane]], detector: Detector) -> tuple[float, float, float]:
    """Return F1, precision and recall over all granules of some images."""
    right, found, known = np.sum([f1(detected(image, detector), centres) for image, centres in images], axis=0)
    return 2 * right / max(found + known, 1), right / max(found, 1), right / max(known, 1)


def choose(images: Sequence[tuple[Plane, Plane]]) -> tuple[Detector, float]:
    """Return the detector with the highest F1, and that."""
    tried = []
    for sigma in (0.7, 1.0, 1.4, 2.0, 2.8):
        highest = max(float(response(image, sigma).max()) for image, _ in images)
        some = [(sigma, float(least)) for least in highest * np.geomspace(0.005, 0.5, 14)]
        tried += [(score(images, detector)[0], detector) for detector in some]
    best = max(tried)
    return best[1], best[0]


def detection(model: Any, config: Config) -> None:
    """Print F1 of every method at every light level."""
    print("| | light | F1 | precision | recall | detector |\n|---|---|---|---|---|---|")
    for light in LIGHT["granules"]:
        params = at_light(config, light)
        tuning, test = (labelled_drawings(params, seed) for seed in (CHOSEN_ON, SEEN_BY_NOBODY))
        ways, chosen = methods(model, params), {}
        for name, way in ways.items():
            chosen[name] = choose([(way(image), centres) for image, centres in tuning])
        lucy = max((name for name in ways if "Richardson" in name), key=lambda name: chosen[name][1])
        for name in ("input", lucy, "network", "network twice"):
            (sigma, least), _ = chosen[name]
            found = score([(ways[name](image), centres) for image, centres in test], (sigma, least))
            print(f"| {name} | {light} | {' | '.join(f'{v:.3f}' for v in found)} | {sigma:g} px |", flush=True)


def nothing(model: Any, config: Config) -> None:
    """Print what the network makes of images without any structure: of glow and noise alone."""
    print("| light | brightest pixel of 8 images | pixels above 0.3 |\n|---|---|---|")
    for light in LIGHT["tubules"] if config.recipe == "tubules" else LIGHT["granules"]:
        params = at_light(config, light)
        steps, optics = structures.chain_of(params), structures.drawn_optics(params)
        network, made = methods(model, params)["network"], []
        for n in range(DRAWINGS):
            rng = np.random.default_rng((SEEN_BY_NOBODY, n))
            empty = distort(np.zeros((1, params.size, params.size), np.float32), optics, steps, draw(steps, rng))
            made.append(network(empty.image[0].astype(np.float64)))
        print(f"| {light} | {np.max(made):.2f} | {np.mean(np.array(made) > 0.3):.2%} |", flush=True)


def picture(model: Any, config: Config, light: float) -> bytes:
    """Return a PNG: a part of the densest drawing at one light level, as every method shows it."""
    params = at_light(config, light)
    image, truth = planes(max(drawings(params, SEEN_BY_NOBODY), key=lambda pair: float(pair.target.mean())))
    ways = methods(model, params)
    shown = {name: ways[name](image) for name in ("input", "Richardson-Lucy 40", "network", "network twice")}
    with plain_style():
        figure = new_figure(5 * 300, 330)
        for axes, (name, plane) in zip(figure.subplots(1, 5), {**shown, "truth": truth}.items(), strict=True):
            part = plane[64:192, 64:192]
            low, high = np.percentile(part, (1, 99.7))
            axes.imshow(part, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(f"{name}, {light} photons" if name == "input" else name)
        return png_bytes(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=tuple(LIGHT))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--nothing", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        model, config, seconds = trained(given.kind, given.folder, given.settings, seed)
        if given.picture:
            given.picture.write_bytes(picture(model, config, LIGHT[given.kind][1]))
            continue
        if given.nothing:
            nothing(model, config)
            continue
        print(f"\n{given.kind}, seed {seed}, trained in {seconds:.0f} s", flush=True)
        if given.kind == "granules":
            detection(model, config)
            continue
        errors(model, config)
        resolution(model, config)


if __name__ == "__main__":
    main()

"""Does the fidelity map see structures that a result lost or added? The figures of docs/evidence.md.

    python benchmarks/fidelity_map.py tissue:300:25 nuclei:301:25 tissue:302:100 --folder DIR

For every volume (phantom:seed:photons; 40 x 160 x 160 voxels) the default recipe is trained, and Gaussian structures
of known size (full width at half maximum, px) and detectability (d', matched filter against the photons' noise) are
drawn at 16 random places of ten planes from the surface to the deep. Lost: they are in the raw, with their own shot
noise, and the result (k = 2) comes from the raw without them. Added: they are drawn into the result, in the raw's
brightness, as `enhance` writes it. A structure counts as flagged where the map is marked, with the right sign, within
3 px of its centre; `by chance` is the same where nothing was drawn. Then: the area flagged on the raw's own independent
half (photons split in two) and for k = 1 .. 6; and how much of what k = 6 lost is flagged. Models are kept in DIR and
used again. `--share 0` flags what exceeds the noise, however small it is beside the structures around.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.brightness import match_brightness
from deepcontrast.depth import bins
from deepcontrast.fidelity_map import SHARE, fidelity_map, flagged
from deepcontrast.learning import learn
from deepcontrast.model import load_model, save_model
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack

SIZES = (1, 2, 3, 5, 7, 10)
DETECTABILITY = (3, 4, 5, 6, 8, 10, 14, 20)
PLANES, PLACES, PASSES = 10, 16, 2
TASK: Any = registry.load("tasks", "contrast")
Volume = NDArray[np.float32]


class Trained:
    """The network of one volume, applied to planes."""

    def __init__(self, stack: Stack, seed: int, file: Path, share: float) -> None:
        self.share = share
        if not file.exists():
            with tempfile.TemporaryDirectory() as folder:
                save_model(file, learn([stack], load_recipe("contrast", train__seed=seed), folder=Path(folder))[0])
        self.model = load_model(file)
        channel = self.model.channels[0]
        self.fit = TASK.Fit.decode(channel.fit, channel.arrays)
        self.nets = load_nets(TASK, channel.members, self.fit, self.model.config)
        camera = self.fit.camera
        self.camera = {"gain": camera.gain, "intercept": camera.intercept}

    def apply(self, image: Volume, times: int) -> Volume:
        for _ in range(times):
            out = np.empty_like(image)
            predict_pass(TASK, self.nets, image, self.fit, self.model.config, out=out)
            image = out
        return image

    def map(self, raw: Volume, result: Volume, depth: NDArray[np.float64]) -> NDArray[np.int8]:
        return flagged(fidelity_map(raw, result, depth, **self.camera, offset=self.fit.norm.offset, share=self.share))


def structures(
    raw: Volume, size: float, wanted: float, camera: dict[str, float], rng: np.random.Generator
) -> tuple[Volume, NDArray[np.int64]]:
    """Return the photons of structures in every plane (Z, Y, X), and their places (Z, PLACES, 2)."""
    gain, sigma = camera["gain"], size / 2.3548
    side = int(np.sqrt(PLACES))
    cell = np.array(raw.shape[1:]) // side
    out, places = np.zeros_like(raw), np.empty((len(raw), PLACES, 2), np.int64)
    for z, plane in enumerate(raw):
        photons = np.maximum(ndimage.gaussian_filter(plane, 3.0) - camera["intercept"], gain) / gain
        for i in range(PLACES):
            at = np.array(divmod(i, side)) * cell + rng.integers(cell // 4, cell - cell // 4)
            y, x = np.ogrid[: plane.shape[0], : plane.shape[1]]
            shape = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * sigma**2))
            amplitude = wanted / np.sqrt((shape**2 / photons).sum())
            out[z] += amplitude * shape
            places[z, i] = at
    return out, places


def detected(flags: NDArray[np.bool_], places: NDArray[np.int64]) -> float:
    y, x = np.ogrid[-3:4, -3:4]
    near = np.stack([ndimage.binary_dilation(f, y**2 + x**2 <= 9) for f in flags])
    return float(np.mean([near[z][tuple(places[z].T)].mean() for z in range(len(flags))]))


def detection(net: Trained, raw: Volume, depth: NDArray[np.float64], rng: np.random.Generator) -> dict[str, Any]:
    some = np.linspace(0, len(raw) - 1, PLANES).round().astype(int)
    planes, at = raw[some], depth[some]
    result = net.apply(planes, PASSES)
    empty = net.map(planes, result, at)
    # As enhance writes it: the result's structures in the raw's brightness.
    offset, edges = net.fit.norm.offset, bins([at])
    brightness = match_brightness([(planes, result)], [at], edges, [None])
    written = np.stack([brightness.at(z, 1) * (plane - offset) + offset for z, plane in zip(at, result, strict=True)])
    tables = {name: np.empty((len(SIZES), len(DETECTABILITY))) for name in ("lost", "added")}
    chance = {name: [] for name in tables}
    for i, size in enumerate(SIZES):
        for j, wanted in enumerate(DETECTABILITY):
            photons, places = structures(planes, size, wanted, net.camera, rng)
            gain = net.camera["gain"]
            lost = net.map(planes + gain * rng.poisson(photons).astype(np.float32), result, at)
            added = net.map(planes, (written + gain * photons).astype(np.float32), at)
            tables["lost"][i, j] = detected(lost > 0, places)
            tables["added"][i, j] = detected(added < 0, places)
            chance["lost"].append(detected(empty > 0, places))
            chance["added"].append(detected(empty < 0, places))
    return {"tables": tables, "chance": {name: float(np.mean(v)) for name, v in chance.items()}}


def area(flags: NDArray[np.int8]) -> str:
    fifths = np.array_split(flags, 5)
    return " ".join(f"{(f > 0).mean():.1%}/{(f < 0).mean():.1%}" for f in fifths)


def whole(net: Trained, made: Any, raw: Volume, depth: NDArray[np.float64], rng: np.random.Generator) -> None:
    gain, intercept = net.camera["gain"], net.camera["intercept"]
    photons = np.maximum(np.floor((raw - intercept) / gain + rng.random(raw.shape)), 0).astype(np.int64)
    one = rng.binomial(photons, 0.5)
    halves = [(2 * gain * part + intercept).astype(np.float32) for part in (one, photons - one)]
    flags = flagged(fidelity_map(*halves, depth, gain=2 * gain, intercept=intercept, offset=intercept))
    print(f"area lost/added per fifth, shallow to deep: the raw's independent half {area(flags)}")
    current = raw
    for k in range(1, 7):
        current = net.apply(current, 1)
        flags = net.map(raw, current, depth)
        print(f"  k = {k}: {area(flags)}", flush=True)
    gone, kept = [], []
    for z, truth in enumerate(made.truth):
        shown = ndimage.gaussian_filter(np.maximum(current[z] - net.fit.norm.offset, 0), 1.0)
        bright = made.mask[z] & (truth > np.median(truth[made.mask[z]]))
        share = shown / np.maximum(truth * np.median(shown[bright] / truth[bright]), 1e-6)
        near = ndimage.maximum_filter(flags[z] > 0, 7)
        gone += near[made.mask[z] & (share < 0.1)].tolist()
        kept += near[made.mask[z] & (share > 0.5)].tolist()
    print(
        f"  k = 6, share of true structures within 3 px of what is flagged as lost: {np.mean(gone):.1%} of {len(gone)} "
        f"voxels with less than 10 % of their brightness, {np.mean(kept):.1%} of {len(kept)} with more than half of it"
    )


def table(name: str, share: NDArray[np.float64], chance: float) -> None:
    print(f"\n| {name}: size px \\ d' | " + " | ".join(map(str, DETECTABILITY)) + " |")
    print("|---" * (len(DETECTABILITY) + 1) + "|")
    for size, row in zip(SIZES, share, strict=True):
        print(f"| {size} | " + " | ".join(f"{v:.0%}" for v in row) + " |")
    print(f"by chance: {chance:.1%}", flush=True)


def main(volumes: list[str], folder: Path, share: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for volume in volumes:
        kind, seed, light = volume.split(":")
        made = registry.load("synth", kind)(shape=(40, 160, 160), seed=int(seed), light=float(light))
        stack = Stack(made.raw, "ZYX", Optics(voxel_size=made.optics.voxel_size, surface="first"))
        net = Trained(stack, int(seed), folder / f"{kind}_{seed}_{light}.safetensors", share)
        raw = TASK.clean(made.raw, net.fit)
        depth = np.arange(len(raw), dtype=np.float64)
        rng = np.random.default_rng(int(seed))
        print(f"\n### {kind}, seed {seed}, {light} photons\n")
        whole(net, made, raw, depth, rng)
        found.append(detection(net, raw, depth, rng))
        for name in ("lost", "added"):
            table(name, found[-1]["tables"][name], found[-1]["chance"][name])
    print(f"\n### mean of {len(found)} volumes")
    for name in ("lost", "added"):
        mean = np.mean([f["tables"][name] for f in found], axis=0)
        table(name, mean, float(np.mean([f["chance"][name] for f in found])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volumes", nargs="+", metavar="PHANTOM:SEED:PHOTONS")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--share", type=float, default=SHARE, help="of the structures around; 0: the noise alone")
    given = parser.parse_args()
    main(given.volumes, given.folder, given.share)

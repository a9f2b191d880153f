"""Restoration from real pairs (W2S: one frame against the mean of 400), beside tuned filters. For docs/evidence.md.

    python benchmarks/w2s.py DATA/pairs --folder DIR [--seeds 0,1,2] [--set KEY=VALUE ...] [--ensemble M] [--joint]

Trains the recipe `care` on fields 001 to 020, all three channels as images of one kind, or, with --joint, as three
channels of one image that one network restores together, and restores 030 and 050, six images that were never seen.
They are 8-bit, each rescaled by itself, so scores are those after the affine fit (CARE supplement, 2.2), as
`evaluate` has them. Every filter has the one setting of many that is best in the mean over the six test images, and,
in the second line, the best for every image by itself: both favour the filters.

Of networks that say how sure they are (--set train.loss=laplace --ensemble 2) a second table says how many truths lie
in their 90 % interval, and in how much of the area they disagree too much. The truth has the mean and the spread of
its image then, as the result has.

What is done is kept in DIR and not done again: models under the hash of their settings.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import denoise_bilateral, denoise_nl_means, denoise_tv_chambolle

import deepcontrast as dc
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.train import train_images
from deepcontrast.metrics.psnr import psnr
from deepcontrast.metrics.ssim import ssim
from deepcontrast.recipe import load_recipe
from deepcontrast.trust import Trust, area_beyond

TRAINED, TESTED, CHANNELS = ("001", "005", "010", "020"), ("030", "050"), ("0", "1", "2")
Plane = NDArray[np.float64]
Filter = Callable[[Plane], NDArray[Any]]


def filters() -> dict[str, list[Filter]]:
    """Return every filter in many settings, strong and weak; images are from 0 to 1."""
    return {
        "gaussian": [partial(ndimage.gaussian_filter, sigma=s) for s in np.arange(0.5, 6.1, 0.25)],
        "median": [partial(ndimage.median_filter, size=n) for n in (3, 5, 7, 9, 11, 13)],
        "nlm": [
            partial(denoise_nl_means, patch_size=p, patch_distance=d, h=h, sigma=0.0, fast_mode=True)
            for p in (5, 9)
            for d in (6, 12)
            for h in (0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
        ],
        "bilateral": [
            partial(denoise_bilateral, sigma_color=c, sigma_spatial=s, win_size=13)
            for c in (0.2, 0.4, 0.8, 1.6)
            for s in (1.5, 2.5, 4.0)
        ],
        "tv": [partial(denoise_tv_chambolle, weight=w) for w in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)],
    }


def scores(image: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """Return PSNR in dB and SSIM of an image (Y, X)."""
    decibels, similarity = psnr(image, truth)[0].value, ssim(image, truth)[0].value
    if decibels is None or similarity is None:
        raise ValueError("an image of one value")
    return decibels, similarity


def tested(folder: Path) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return the test images and their truths."""
    names = [f"{field}_{channel}" for field in TESTED for channel in CHANNELS]
    return {
        n: (tifffile.imread(folder / f"input_avg1_{n}.tif"), tifffile.imread(folder / f"target_avg400_{n}.tif"))
        for n in names
    }


def put_together(folder: Path, out: Path) -> None:
    """Write every field as one image of three channels."""
    for field in (*TRAINED, *TESTED):
        for kind in ("input_avg1", "target_avg400"):
            planes = [tifffile.imread(folder / f"{kind}_{field}_{channel}.tif") for channel in CHANNELS]
            tifffile.imwrite(out / f"{kind}_{field}.ome.tif", np.stack(planes), metadata={"axes": "CYX"})


def restored(folder: Path, out: Path, settings: list[str], members: int, names: list[str]) -> tuple[Any, float]:
    """Return a model trained on pairs of such names, and the seconds its training took; 0 where it was there."""
    inputs = [folder / f"input_avg1_{name}" for name in names]
    targets = [folder / f"target_avg400_{name}" for name in names]
    config = load_recipe("care", settings)
    model = out / f"{hashlib.sha256(f'{config.json()} {members}'.encode()).hexdigest()[:12]}.safetensors"
    begun = time.perf_counter()
    if not model.exists():
        train_images(
            inputs, model, config, targets=targets, members=members, reading=Reading(), device="cpu",
            resume=model.with_name(f"{model.name}.partial").exists(),
        )  # fmt: skip
        return dc.load(model), time.perf_counter() - begun
    return dc.load(model), 0.0


def sure(model: Any, names: Mapping[str, Any], folder: Path) -> list[str]:
    """Return, for every test image, the share of truths in the interval, and of the area that is not trusted."""
    trust = Trust.decode(model.model.channels[0].trust)
    lines = ["| image | in the 90 % interval | not trustworthy |", "|---|---|---|"]
    for name, (image, truth) in names.items():
        maps = model.predict_with_uncertainty(dc.open(folder / f"input_avg1_{name}.tif"), device="cpu")
        found = {key: np.asarray(one.array, np.float64) for key, one in maps.items()}
        alike = (truth - truth.mean()) / truth.std() * image.std() + image.mean()
        inside = float(((found["lower"] <= alike) & (alike <= found["upper"])).mean())
        beyond, known = area_beyond(found["disagreement"].astype(np.float32), trust.too_much)
        lines.append(f"| {name} | {inside:.1%} | {beyond / known:.1%} |")
    return lines


def row(name: str, found: Mapping[str, tuple[float, float]], raw: Mapping[str, tuple[float, float]], note: str) -> str:
    """Return a line of the table: gain over the input, SSIM, and the gain on every image."""
    gains = [found[n][0] - raw[n][0] for n in raw]
    mean = float(np.mean([one[1] for one in found.values()]))
    return f"| {name} | {np.mean(gains):+.2f} | {mean:.3f} | {' | '.join(f'{g:+.1f}' for g in gains)} | {note} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ensemble", type=int, default=1)
    parser.add_argument("--joint", action="store_true")
    parser.add_argument("--no-filters", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    images = tested(given.data)
    raw = {name: scores(image, truth) for name, (image, truth) in images.items()}
    print(f"| | PSNR over the input | SSIM | {' | '.join(images)} | |")
    print("|---" * (4 + len(images)) + "|")
    print(row("input", raw, raw, f"{np.mean([one[0] for one in raw.values()]):.2f} dB"))
    for name, ways in {} if given.no_filters else filters().items():
        tried = [{n: scores(way(image / 255.0), truth) for n, (image, truth) in images.items()} for way in ways]
        best = max(range(len(tried)), key=lambda i: float(np.mean([one[0] for one in tried[i].values()])))
        print(row(name, tried[best], raw, str(getattr(ways[best], "keywords", ""))), flush=True)
        each = {n: max((one[n] for one in tried), key=lambda pair: pair[0]) for n in images}
        print(row(f"{name}, best for each image", each, raw, ""), flush=True)
    data, names = given.data, [f"{field}_{channel}.tif" for field in TRAINED for channel in CHANNELS]
    if given.joint:
        data, names = given.folder, [f"{field}.ome.tif" for field in TRAINED]
        put_together(given.data, data)
        given.settings.append("task.joint=true")
    for seed in filter(None, given.seeds.split(",")):
        settings = [*given.settings, f"train.seed={seed}"]
        model, seconds = restored(data, given.folder, settings, given.ensemble, names)
        found = {}
        for field in TESTED:
            files = [f"{field}.ome.tif"] if given.joint else [f"{field}_{channel}.tif" for channel in CHANNELS]
            stacks = [dc.open(data / f"input_avg1_{file}") for file in files]
            results = [np.asarray(model.predict(stack, device="cpu").array) for stack in stacks]
            planes = results[0] if given.joint else results
            for channel, plane in zip(CHANNELS, planes, strict=True):
                found[f"{field}_{channel}"] = scores(plane, images[f"{field}_{channel}"][1])
        what = f"{given.ensemble} networks, " if given.ensemble > 1 else ""
        print(row(f"care, {what}seed {seed}", found, raw, f"{' '.join(given.settings)} {seconds:.0f} s"), flush=True)
        if model.model.config.train.loss == "laplace" and given.ensemble > 1 and not given.joint:
            print("", *Trust.decode(model.model.channels[0].trust).describe(), "", *sure(model, images, data), sep="\n")


if __name__ == "__main__":
    main()

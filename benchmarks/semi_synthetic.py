"""Restoration of real images by networks that saw no real pair: pairs made of good images. For docs/evidence.md.

    python benchmarks/semi_synthetic.py DATA --folder DIR [--seeds 0,1,2] [--fly] [--set KEY=VALUE ...]

Good images are the 400-frame averages of W2S fields 001 to 020, all three channels, and one of nuclei
(labels/stardist_img2d.tif); `deepcontrast pairs` makes three pairs of each, `train care` learns from those, and the
real one-frame images of fields 030 and 050 are restored. With --fly the recipe `semi-synthetic` learns from the good
images itself, with other pairs in every round. The averages come from the microscope whose frames are restored, as
blurred as those: the chain has no blur and no minimum filter here. Scores are those of benchmarks/w2s.py, which has
the filters and the network that learned from real pairs.

What is done is kept in DIR and not done again: models under the hash of their settings.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
from w2s import CHANNELS, TRAINED, row, scores, tested

import deepcontrast as dc
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.make_pairs import make_pairs
from deepcontrast.jobs.train import train_images
from deepcontrast.recipe import load_recipe

SAME_MICROSCOPE = ("task.chain.convolve.kind=none", "task.chain.minimum.radius=0")


def good_images(data: Path) -> list[Path]:
    """Return the images that pairs are made of."""
    averages = [data / "pairs" / f"target_avg400_{field}_{channel}.tif" for field in TRAINED for channel in CHANNELS]
    return [data / "labels" / "stardist_img2d.tif", *averages]


def trained(data: Path, folder: Path, settings: list[str], seed: int, *, fly: bool) -> tuple[Path, float]:
    """Return the model of a seed, and the seconds that its training took; 0 where it was there."""
    chain = [*SAME_MICROSCOPE, *(s for s in settings if s.startswith("task."))]
    rest = [s for s in settings if not s.startswith("task.")]
    making = load_recipe("semi-synthetic", [*chain, *(rest if fly else ())], train__seed=seed)
    learning = making if fly else load_recipe("care", rest, train__seed=seed)
    name = hashlib.sha256(f"{making.json()} {learning.json()}".encode()).hexdigest()[:12]
    model, begun = folder / f"{name}.safetensors", time.perf_counter()
    if model.exists():
        return model, 0.0
    common = {"reading": Reading(), "device": "cpu", "resume": model.with_name(f"{model.name}.partial").exists()}
    if fly:
        train_images(good_images(data), model, making, **common)
        return model, time.perf_counter() - begun
    made = folder / f"{name}_pairs"
    make_pairs(good_images(data), made, making, reading=Reading(), overwrite=True)
    train_images([made / "input"], model, learning, targets=[made / "target"], **common)
    return model, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--fly", action="store_true")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    images = tested(given.data / "pairs")
    raw = {name: scores(image, truth) for name, (image, truth) in images.items()}
    print(f"| | PSNR over the input | SSIM | {' | '.join(images)} | |")
    print("|---" * (4 + len(images)) + "|")
    print(row("input", raw, raw, f"{np.mean([one[0] for one in raw.values()]):.2f} dB"))
    for seed in map(int, given.seeds.split(",")):
        path, seconds = trained(given.data, given.folder, given.settings, seed, fly=given.fly)
        model = dc.load(path)
        found = {
            name: scores(
                np.asarray(model.predict(dc.open(given.data / "pairs" / f"input_avg1_{name}.tif"), device="cpu").array),
                truth,
            )
            for name, (_, truth) in images.items()
        }
        kind = "pairs made in every round" if given.fly else "pairs on disk"
        print(row(f"{kind}, seed {seed}", found, raw, f"{seconds:.0f} s"), flush=True)


if __name__ == "__main__":
    main()

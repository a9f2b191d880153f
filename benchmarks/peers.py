"""Training on the same pairs, beside CSBDeep and CAREamics: the same network, the same steps. For docs/evidence.md.

    python benchmarks/peers.py --folder DIR --csbdeep PYTHON --careamics PYTHON [--seeds 0,1,2] [--pairs W2S]

PYTHON is the interpreter of an environment with `csbdeep tensorflow-cpu tensorboard`, or with `careamics`. The pairs
are planes of simulated tissue, 20 photons at the brightest structures against 2,000; or, where a folder of W2S is
given, its frames against means of 400. All train a U-Net of depth 2, 32 features and 3 x 3 convolutions with a
residual connection and without batch norm, on 2,000 batches of 16 patches of 64 x 64 px, with Adam at 4e-4 that is
halved after ten epochs of 100 steps without a better validation, and the mean absolute error. All else is as each
does it by default:

- CSBDeep: percentiles drawn for every patch, 2 and 99.8 in prediction; patches with foreground only; no augmentation.
- CAREamics: mean and standard deviation of all training images; patches from everywhere; flips and rotations.
- ours: the recipe `care`: every image by its own mean and standard deviation; patches with foreground only; flips and
  rotations. Once more with the recipe's own loss (squared error), schedule (cosine) and four orientations.

CSBDeep and CAREamics validate on images of their own; ours holds squares of the training images out. Scores are NRMSE
of every test plane after the affine fit of CARE (supplement, 2.2). What is done is kept in DIR and not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCHS, STEPS, BATCH, PATCH, RATE, DEPTH, FEATURES = 20, 100, 16, 64, 4e-4, 2, 32
SHAPE = (25, 256, 256)
LOW, HIGH = 20.0, 2000.0
SEEDS = {"train": (300, 301, 302, 303), "validation": (310,), "test": (320, 321)}
FIELDS = {"train": ("001", "005", "010"), "validation": ("020",), "test": ("030", "050")}
Images = dict[str, NDArray[Any]]


def simulated() -> Images:
    """Return simulated pairs, (planes, Y, X) under the names train_low, train_high and so on."""
    from deepcontrast import registry

    made = registry.load("synth", "tissue")
    return {
        f"{part}_{name}": np.concatenate([made(shape=SHAPE, seed=s, light=light).raw for s in seeds]).astype(np.float32)
        for part, seeds in SEEDS.items()
        for name, light in (("low", LOW), ("high", HIGH))
    }


def measured(folder: Path) -> Images:
    """Return the pairs of W2S, all channels as planes, under the same names."""
    import tifffile

    return {
        f"{part}_{name}": np.stack(
            [tifffile.imread(folder / f"{prefix}_{f}_{c}.tif") for f in fields for c in range(3)]
        ).astype(np.float32)
        for part, fields in FIELDS.items()
        for name, prefix in (("low", "input_avg1"), ("high", "target_avg400"))
    }


def by_csbdeep(data: Images, seed: int, folder: Path) -> NDArray[Any]:
    """Return the test planes as CSBDeep restores them; runs in its environment."""
    import keras
    from csbdeep.data import RawData, create_patches
    from csbdeep.models import CARE, Config

    keras.utils.set_random_seed(seed)

    def patches(part: str, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        low, high = data[f"{part}_low"], data[f"{part}_high"]
        raw = RawData.from_arrays(low, high, axes="YX")
        x, y, _ = create_patches(raw, (PATCH, PATCH), count // len(low), patch_axes="YX", verbose=False)
        return np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1)

    config = Config(
        "YX", 1, 1, unet_n_depth=DEPTH, unet_kern_size=3, unet_n_first=FEATURES, train_loss="mae",
        train_epochs=EPOCHS, train_steps_per_epoch=STEPS, train_batch_size=BATCH, train_learning_rate=RATE,
        train_tensorboard=False,
    )  # fmt: skip
    model = CARE(config, "model", str(folder))
    model.train(*patches("train", 1600), validation_data=patches("validation", 200))
    return np.stack([model.predict(plane, "YX") for plane in data["test_low"]])


def by_careamics(data: Images, seed: int, folder: Path) -> NDArray[Any]:
    """Return the test planes as CAREamics restores them; runs in its environment."""
    from careamics import CAREamist
    from careamics.config.factories import create_advanced_care_config

    planes, side = len(data["train_low"]), data["train_low"].shape[-1]
    batches = planes * (side // PATCH) ** 2 / BATCH
    config = create_advanced_care_config(
        experiment_name="peer", data_type="array", axes="SYX", patch_size=[PATCH, PATCH], batch_size=BATCH,
        trainer_params={"max_steps": EPOCHS * STEPS, "max_epochs": -1, "accelerator": "cpu"},
        model_params={
            "depth": DEPTH, "num_channels_init": FEATURES, "residual": True, "use_batch_norm": False,
            "independent_channels": False,
        },
        optimizer_params={"lr": RATE},
        lr_scheduler_params={"factor": 0.5, "patience": round(10 * STEPS / batches)},
        early_stopping_params={}, num_workers=0, seed=seed + 1,
    )  # fmt: skip
    careamist = CAREamist(config, work_dir=folder, enable_progress_bar=False)
    careamist.train(
        train_data=data["train_low"], train_data_target=data["train_high"],
        val_data=data["validation_low"], val_data_target=data["validation_high"],
    )  # fmt: skip
    return np.asarray(careamist.predict(data["test_low"], checkpoint="best")[0][0]).reshape(data["test_low"].shape)


def by_ours(data: Images, seed: int, folder: Path, *settings: str) -> NDArray[Any]:
    """Return the test planes as ours restores them."""
    import deepcontrast as dc
    from deepcontrast.learning import learn
    from deepcontrast.model import save_model
    from deepcontrast.recipe import load_recipe

    def stacks(name: str) -> list[Any]:
        return [dc.Stack(plane, "YX", source=f"{name} {n}") for n, plane in enumerate(data[name])]

    config = load_recipe("care", [
        f"train.seed={seed}", f"train.steps={EPOCHS * STEPS}", f"train.batch={BATCH}", f"train.patch={PATCH}",
        f"train.learning_rate={RATE}", f"train.validate_every={STEPS}", f"net.depth={DEPTH}",
        f"net.features={FEATURES}", "net.kernel=3", "net.residual=true", *settings,
    ])  # fmt: skip
    model, _ = learn(stacks("train_low"), config, targets=stacks("train_high"), folder=folder)
    save_model(folder / "model.safetensors", model)
    restorer = dc.load(folder / "model.safetensors")
    return np.stack([np.asarray(restorer.predict(stack, device="cpu").array) for stack in stacks("test_low")])


def by_ours_alike(data: Images, seed: int, folder: Path) -> NDArray[Any]:
    """Return the same with the loss and the schedule of the others, in one orientation."""
    return by_ours(data, seed, folder, "train.loss=mae", "train.schedule=plateau", "predict.orientations=1")


WAYS = {"csbdeep": by_csbdeep, "careamics": by_careamics, "ours, alike": by_ours_alike, "ours, care": by_ours}


def scored(planes: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the mean NRMSE of planes."""
    from deepcontrast.metrics.nrmse import nrmse

    values = [nrmse(a, b)[0].value for a, b in zip(planes, truth, strict=True)]
    return float(np.mean([value for value in values if value is not None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--csbdeep", default="")
    parser.add_argument("--careamics", default="")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pairs", type=Path, help="a folder of W2S, instead of simulated pairs")
    parser.add_argument("--train", choices=list(WAYS), help="train one, in the environment that this runs in")
    given = parser.parse_args()
    pairs = given.folder / "pairs.npz"
    if given.train:
        data = dict(np.load(pairs))
        work = given.folder / f"{given.train} {given.seeds}"
        work.mkdir(exist_ok=True)
        begun = time.process_time()
        planes = WAYS[given.train](data, int(given.seeds), work)
        np.savez(work / "restored.npz", planes=planes, seconds=time.process_time() - begun)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    if not pairs.exists():
        np.savez(pairs, **(measured(given.pairs) if given.pairs else simulated()))
    data = dict(np.load(pairs))
    print(f"input: NRMSE {scored(data['test_low'], data['test_high']):.4f}")
    print("| | seed | NRMSE | CPU s |\n|---|---|---|---|")
    for seed in given.seeds.split(","):
        for name in WAYS:
            python = {"csbdeep": given.csbdeep, "careamics": given.careamics}.get(name, sys.executable)
            done = given.folder / f"{name} {seed}" / "restored.npz"
            if python and not done.exists():
                command = [python, __file__, "--folder", str(given.folder), "--train", name, "--seeds", seed]
                with (given.folder / f"{name} {seed}.log").open("w") as log:
                    subprocess.run(command, check=True, stdout=log, stderr=log)
            if done.exists():
                found = np.load(done)
                score = scored(found["planes"], data["test_high"])
                print(f"| {name} | {seed} | {score:.4f} | {float(found['seconds']):.0f} |", flush=True)


if __name__ == "__main__":
    main()

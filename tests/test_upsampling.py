"""Planes between planes, learned from pairs: what is trained on, where the result lies, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.learning import lessons
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.tasks import upsampling

from .conftest import TINY

SETTINGS = (*TINY, "net.context=4", "net.pool_z=1", "train.steps=30", "train.learning_rate=0.003")


def pair(factor: int = 4, seed: int = 0) -> tuple[Stack, Stack]:
    """Return a noisy stack of few planes and a clean one of all."""
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.standard_normal((24, 48, 64)), 1.5)
    fine = (200 + 50 * fine / fine.std()).astype(np.float32)
    coarse = fine.reshape(24 // factor, factor, 48, 64).mean(1) + rng.normal(0, 10, (24 // factor, 48, 64))
    sizes = Optics(voxel_size=(0.2 * factor, 0.2, 0.2)), Optics(voxel_size=(0.2, 0.2, 0.2))
    return (
        Stack(coarse.astype(np.float32), "ZYX", sizes[0], source="coarse"),
        Stack(fine, "ZYX", sizes[1], source="fine"),
    )


def test_an_input_is_brought_to_the_planes_of_its_target() -> None:
    coarse, fine = pair()
    made, same = upsampling.paired(coarse, fine, load_recipe("upsampling"))
    assert made.shape == fine.shape
    assert same is fine
    assert made.optics.voxel_size == pytest.approx(fine.optics.voxel_size)


def test_the_fit_knows_how_many_planes_become_of_one() -> None:
    config = load_recipe("upsampling", SETTINGS)
    image, target = upsampling.paired(*pair(), config)
    [(_, fit)] = lessons([image.with_optics(surface="first")], config, targets=[target])
    assert fit.factor == 4
    assert upsampling.Fit.decode(*fit.encode()) == fit
    assert upsampling.on_grid(pair(seed=1)[0], fit).shape == (24, 48, 64)


def test_training_and_prediction_from_files(tmp_path: Path) -> None:
    coarse, fine = pair()
    write_stack(tmp_path / "coarse.tif", coarse)
    write_stack(tmp_path / "fine.tif", fine)
    model, out = tmp_path / "m.safetensors", tmp_path / "out.tif"
    command = ["train", "upsampling", "--input", str(tmp_path / "coarse.tif"), "--target", str(tmp_path / "fine.tif")]
    assert run([*command, "--out", str(model), *(f"--set={one}" for one in SETTINGS)]) == 0
    assert run(["predict", str(model), str(tmp_path / "coarse.tif"), "--out", str(out)]) == 0
    found = open_stack(out)
    assert found.shape == (24, 48, 64)
    assert found.optics.voxel_size == pytest.approx((0.2, 0.2, 0.2), rel=1e-3)
    again = dc.load(model).predict(coarse)
    np.testing.assert_allclose(np.asarray(found.array), again.array, rtol=1e-5, atol=1e-2)


def test_targets_of_other_planes_are_refused(tmp_path: Path, capsys: Any) -> None:
    coarse, fine = pair()
    few = replace(fine, array=fine.array[:4])
    with pytest.raises(InputError, match="more planes than its input"):
        dc.train(coarse, "upsampling", targets=few)
    other = replace(fine, array=fine.array[:18])
    with pytest.raises(InputError, match="3 to 4 planes"):
        dc.train([coarse, coarse], "upsampling", targets=[fine, other], settings={"train.steps": 2})

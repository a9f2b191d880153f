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
    fine = ndimage.gaussian_filter(rng.standard_normal((25, 48, 64)), 1.5)
    fine = (200 + 50 * fine / fine.std()).astype(np.float32)
    coarse = fine[::factor] + rng.normal(0, 10, (-(-25 // factor), 48, 64))
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
    assert upsampling.on_grid(pair(seed=1)[0], fit).shape == (25, 48, 64)


def test_training_and_prediction_from_files(tmp_path: Path) -> None:
    coarse, fine = pair()
    write_stack(tmp_path / "coarse.tif", coarse)
    write_stack(tmp_path / "fine.tif", fine)
    model, out = tmp_path / "m.safetensors", tmp_path / "out.tif"
    command = ["train", "upsampling", "--input", str(tmp_path / "coarse.tif"), "--target", str(tmp_path / "fine.tif")]
    assert run([*command, "--out", str(model), *(f"--set={one}" for one in SETTINGS)]) == 0
    assert run(["predict", str(model), str(tmp_path / "coarse.tif"), "--out", str(out)]) == 0
    found = open_stack(out)
    assert found.shape == (25, 48, 64)
    assert found.optics.voxel_size == pytest.approx((0.2, 0.2, 0.2), rel=1e-3)
    again = dc.load(model).predict(coarse)
    np.testing.assert_allclose(np.asarray(found.array), again.array, rtol=1e-5, atol=1e-2)


def test_targets_of_other_planes_are_refused(tmp_path: Path, capsys: Any) -> None:
    coarse, fine = pair()
    for planes in (4, 24, 30):
        with pytest.raises(InputError, match="accepted: a target of 25 planes"):
            dc.train(coarse, "upsampling", targets=replace(fine, array=np.resize(fine.array, (planes, 48, 64))))
    half = replace(coarse, array=fine.array[::2], optics=Optics(voxel_size=(0.4, 0.2, 0.2)))
    with pytest.raises(InputError, match="2 to 4 planes"):
        dc.train([coarse, half], "upsampling", targets=[fine, fine], settings={"train.steps": 2})


@pytest.mark.parametrize("planes", [25, 26, 28])
def test_planes_that_were_left_out_lie_where_they_were(planes: int) -> None:
    ramp = np.broadcast_to(np.arange(planes, dtype=np.float32)[:, None, None], (planes, 4, 4))
    coarse = Stack(ramp[::4], "ZYX", Optics(voxel_size=(0.8, 0.2, 0.2)))
    made, kept = upsampling.paired(
        coarse, Stack(ramp, "ZYX", Optics(voxel_size=(0.2, 0.2, 0.2))), load_recipe("upsampling")
    )
    np.testing.assert_allclose(made.array[:], kept.array, atol=1e-5)
    assert made.optics.origin_um == (0.0, 0.0, 0.0)


def test_registration_keeps_the_grid(tmp_path: Path) -> None:
    coarse, fine = pair()
    write_stack(tmp_path / "coarse.tif", coarse)
    write_stack(tmp_path / "fine.tif", replace(fine, array=np.roll(fine.array, (3, -2), (1, 2))))
    model = tmp_path / "m.safetensors"
    command = ["train", "upsampling", "--input", str(tmp_path / "coarse.tif"), "--target", str(tmp_path / "fine.tif")]
    assert run([*command, "--out", str(model), "--register", *(f"--set={one}" for one in SETTINGS)]) == 0
    assert dc.load(model).predict(coarse).shape == (25, 48, 64)

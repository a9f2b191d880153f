"""Models of CSBDeep and Noise2Void: read, they predict what Keras does (references: make_references.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.interop.csbdeep import read_csbdeep
from deepcontrast.io import open_stack, write_stack
from deepcontrast.joined import given
from deepcontrast.model import Model, load_model
from deepcontrast.prediction import load_nets
from deepcontrast.stack import Stack
from deepcontrast.tasks import denoise
from deepcontrast.valid import survey

from .csbdeep_models.make_references import HERE, image

MODELS = sorted(path.name for path in HERE.iterdir() if (path / "config.json").exists())


def as_keras_does(model: Model, array: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return what the network makes of an image, without the mirrored rim that prediction puts around it."""
    count = len(model.channels)
    stack = Stack(array, ("C" if count > 1 else "") + ("ZYX" if model.config.net.dims == 3 else "YX"))
    found: dict[str, list[NDArray[Any]]] = {}
    for c, channel in enumerate(model.channels):
        fit = denoise.Fit.decode(channel.fit, channel.arrays)
        frames = [stack.frame(0, n) for n in range(count)]
        norms = [denoise.own_norm(fit, frame, survey(frame)) for frame in frames]
        fit = fit if None in norms else denoise.normed(fit, [norm for norm in norms if norm], c)
        [net] = load_nets(denoise, channel.members, fit, model.config)  # type: ignore[arg-type]
        volume = given(c, count, lambda n: stack.volume(0, n))[:]
        with torch.inference_mode():
            maps = denoise.restore(net, torch.from_numpy(volume), fit, model.config)
        for name, one in maps.items():
            found.setdefault(name, []).append(one.numpy())
    return {name: np.stack(parts).reshape(array.shape) for name, parts in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_what_keras_does(name: str) -> None:
    model = read_csbdeep(HERE / name)
    found = as_keras_does(model, image(3 if name.startswith("space") else 2, 2 if "channels" in name else 1))
    expected = np.load(HERE / name / "expected.npz")
    assert list(found) == ["mean", "scale"][: len(expected.files)]
    assert ("scale" in found) == (model.config.train.loss == "laplace") == name.endswith(("probabilistic", "keras_2"))
    for one, key in zip(found.values(), expected.files, strict=True):
        assert np.ptp(expected[key]) > 0
        np.testing.assert_allclose(one, expected[key], rtol=0, atol=1e-4 * np.ptp(expected["arr_0"]))
    assert len(model.channels) == (2 if "channels" in name else 1)


def test_models_of_all_kinds_are_there() -> None:
    assert MODELS == [
        "noise2void", "plane", "plane_channels_probabilistic", "plane_keras_2", "plane_positive", "plane_probabilistic",
        "space", "space_channels", "space_probabilistic",
    ]  # fmt: skip


def test_a_converted_model_is_applied_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.safetensors"
    assert run(["convert", str(HERE / "plane_probabilistic"), "--out", str(out)]) == 0
    assert "predicts how sure it is" in capsys.readouterr().out
    assert load_model(out).provenance["converted"] == "plane_probabilistic/weights_best.h5"
    write_stack(tmp_path / "image.tif", Stack(image(2), "YX"))
    command = ["predict", str(out), str(tmp_path / "image.tif"), "--out", str(tmp_path / "out.tif"), "--uncertainty"]
    assert run(command) == 0
    assert "disagree" not in capsys.readouterr().out
    assert run([*command, "--norm", "stored", "--overwrite"]) == 2
    assert "keeps no norms" in capsys.readouterr().err
    made = np.asarray(open_stack(tmp_path / "out.tif").array)
    np.testing.assert_allclose(made, dc.load(out).predict(dc.open(tmp_path / "image.tif")).array, atol=1e-2)
    assert (tmp_path / "out.scale.tif").exists()
    assert run(["info", str(out)]) == 0
    assert run(["convert", str(HERE / "plane"), "--out", str(out)]) == 2
    assert run(["convert", str(HERE / "plane"), "--out", str(out), "--overwrite"]) == 0


def altered(tmp_path: Path, **settings: Any) -> Path:
    folder = tmp_path / "altered"
    shutil.copytree(HERE / "plane", folder)
    table = json.loads((folder / "config.json").read_text())
    table |= settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in table.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_channel_in": 2}, "2 channels in and 1 out; accepted: as many out as in"),
        ({"blurpool": True}, "has blurpool"),
        ({"unet_last_activation": "sigmoid"}, "ends in 'sigmoid'; accepted: linear, relu"),
        ({"unet_n_first": 8}, "does not fit its config.json: down.0.0.weight is (4, 1, 3, 3), not (8, 1, 3, 3)"),
        ({"unet_n_depth": None}, "has no unet_n_depth"),
        ({"n2v_perc_pix": 1.5}, "keeps no mean and standard deviation"),
    ],
)
def test_what_is_not_ours_is_refused_in_one_line(
    settings: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", str(altered(tmp_path, **settings)), "--out", str(tmp_path / "m.safetensors")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "m.safetensors").exists()


def test_older_noise2void_has_one_mean_and_wide_networks(tmp_path: Path) -> None:
    model = read_csbdeep(altered(tmp_path, n2v_perc_pix=1.5, mean="210.0", std="49.0"))
    assert (model.config.net.narrow, model.config.task["per_image"]) == (False, False)
    assert model.channels[0].fit["norm"] == {"offset": 210.0, "scale": 49.0}


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = altered(tmp_path), str(tmp_path / "m.safetensors")
    whole = (folder / "weights_best.h5").read_bytes()
    for make, words in (
        (lambda: (folder / "weights_best.h5").write_bytes(whole[:500]), "not a file of Keras weights"),
        (lambda: h5py.File(folder / "weights_best.h5", "w").close(), "not a file of Keras weights"),
        (lambda: (folder / "weights_best.h5").unlink(), "no weights in"),
        (lambda: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda: (folder / "config.json").unlink(), "no config.json in"),
    ):
        make()
        assert run(["convert", str(folder), "--out", out]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert words in line, line

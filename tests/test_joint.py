"""Channels that one network restores together: what it is given, what it learns, and how it is applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepcontrast.accept import check_pairs
from deepcontrast.calibration import Calibration
from deepcontrast.cli import run
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.info import describe
from deepcontrast.jobs.predict import predict_images
from deepcontrast.jobs.predict_in_memory import predict_maps, predict_stack
from deepcontrast.learning import learn
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.normalize import Norm
from deepcontrast.patches import cut
from deepcontrast.prediction import load_nets
from deepcontrast.progress import Event
from deepcontrast.scale import shard_sizes
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source
from deepcontrast.tasks import denoise
from deepcontrast.trust import Trust

from .test_denoise import blobs, settled

FORMS = {
    "planes": (),
    "neighbours": ("net.context=1",),
    "space": ("net.context=2", "net.dims=3", "net.pool_z=1"),
}


def pair(seed: int) -> tuple[Stack, Stack]:
    """Return two channels, of different grey levels: noise alone that should be the structure, and the structure."""
    clean = blobs(seed)
    rng = np.random.default_rng(100 + seed)
    dark, lit = 50 + rng.normal(0, 9, clean.shape), 1000 + 300 * clean + rng.normal(0, 20, clean.shape)
    image = np.stack([dark, lit], 1).astype(np.float32)
    target = np.stack([10 + 5 * clean, 70 - 9 * clean], 1).astype(np.float32)
    return channels_of(image), channels_of(target)


def channels_of(image: NDArray[np.float32]) -> Stack:
    """Return a stack of an array (Z, C, Y, X)."""
    return Stack(image.swapaxes(0, 1), "CZYX", Optics(surface="first"), ("dark", "lit"), source="made")


def trained(folder: Path, *settings: str, members: int = 1) -> Model:
    images, targets = zip(pair(0), pair(1), strict=True)
    config = settled("task.joint=true", "train.steps=150", *settings)
    model, curves = learn(images, config, targets=targets, members=members, folder=folder)
    assert len(curves) == len(model.channels) == 2
    return model


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("joint"), "train.loss=laplace", "train.steps=60", members=2)


@pytest.mark.parametrize("form", FORMS)
def test_patches_show_a_place_in_all_channels(form: str) -> None:
    image, target = pair(0)
    config = settled("task.joint=true", *FORMS[form])
    together = tuple(Source(image, 0, c, np.arange(6.0), target) for c in range(2))
    source = replace(together[1], together=together)
    fit = denoise.join([denoise.fit([one], config) for one in together])[1]
    bank = denoise.prepare([source], fit, config, seed=0, round=0)
    patches = cut(bank, torch.tensor([[3, 5, 7]]), 24)
    x, y, weight = denoise.sample(patches, torch.zeros(1), fit, torch.Generator(), config)
    assert weight is None
    planes = [3 + offset for offset in fit.layers] if form == "space" else [3]
    for found, stack in ((x, image), (y, target)):
        values = np.asarray(stack.array, np.float64)
        expected = (values - values.mean((1, 2, 3), keepdims=True)) / values.std((1, 2, 3), keepdims=True)
        # Of neighbours the plane itself is the middle of each channel's.
        shown = found[0] if form == "space" else found[0, found.shape[1] // 4 :: found.shape[1] // 2][:, None]
        np.testing.assert_allclose(shown, expected[:, planes, 5:29, 7:31], atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_channel_is_restored_from_another(form: str, tmp_path: Path) -> None:
    model = trained(tmp_path, "net.residual=false", *FORMS[form])
    image, target = pair(7)
    result = predict_stack([model], image)
    for c in range(2):
        found, truth = np.asarray(result.array[c], np.float64), np.asarray(target.array[c], np.float64)
        raw = np.asarray(image.array[c], np.float64)
        # The image shows nothing of it in one channel, and the opposite in the other.
        assert np.corrcoef(raw.ravel(), truth.ravel())[0, 1] < 0.1
        assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.4
        # The grey levels are the channel's own.
        assert abs(found.mean() - raw.mean()) < raw.std()


def test_the_network_is_given_the_channels_in_their_order(tmp_path: Path) -> None:
    model = trained(tmp_path, "train.steps=5", "predict.orientations=1")
    image = pair(7)[0]
    values = np.asarray(image.array, np.float64)
    mean, spread = values.mean((1, 2, 3), keepdims=True), values.std((1, 2, 3), keepdims=True)
    fit = denoise.Fit.decode(model.channels[0].fit, {})
    [net] = load_nets(denoise, model.channels[0].members, fit, model.config)  # type: ignore[arg-type]
    with torch.inference_mode():
        expected = net(torch.from_numpy(((values - mean) / spread).swapaxes(0, 1)).float()).numpy().swapaxes(0, 1)
    result = np.asarray(predict_stack([model], image).array)
    # Away from the rim, where the volume is extended by mirroring.
    inside = np.s_[:, :, 16:-16, 16:-16]
    np.testing.assert_allclose(((result - mean) / spread)[inside], expected[inside], atol=1e-4)


def test_a_model_file_has_the_networks_for_every_channel(ensemble: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", ensemble)
    there = load_model(tmp_path / "model.safetensors")
    for one, other in zip(there.channels[0].members, there.channels[1].members, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    fits = [denoise.Fit.decode(channel.fit, channel.arrays) for channel in there.channels]
    assert [fit.channel for fit in fits] == [0, 1]
    assert fits[0].together == fits[1].together == tuple((fit.norm, fit.target) for fit in fits)
    assert all(isinstance(norm, Norm) for norms in fits[0].together for norm in norms)
    judged = [Trust.decode(channel.trust or {}) for channel in there.channels]
    assert all(isinstance(one.after, Calibration) for one in judged)
    assert judged[0] != judged[1]


def test_shards_hold_what_the_whole_has(ensemble: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pair(7)[0]
    image = replace(image, array=np.tile(np.asarray(image.array), (1, 1, 3, 3)))
    write_stack(tmp_path / "image.tif", image)
    save_model(tmp_path / "model.safetensors", ensemble)
    monkeypatch.setattr(shard_sizes, "SHARD", np.prod(shard_sizes.FINEST))
    predict_images(
        [tmp_path / "model.safetensors"], [tmp_path / "image.tif"], tmp_path / "out.ome.zarr",
        uncertainty=True, reading=Reading(), dtype="float32", device="cpu",
    )  # fmt: skip
    whole = predict_maps([ensemble], image, uncertainty=True)
    for name, path in (("mean", "out.ome.zarr"), ("disagreement", "out.disagreement.ome.zarr")):
        np.testing.assert_allclose(
            np.asarray(open_stack(tmp_path / path).array[:]), np.asarray(whole[name].array), rtol=1e-4, atol=1e-3
        )


def test_several_passes_are_of_all_channels(tmp_path: Path) -> None:
    model = trained(tmp_path, "train.steps=20")
    image = pair(7)[0]
    write_stack(tmp_path / "image.tif", image)
    save_model(tmp_path / "model.safetensors", model)
    predict_images(
        [tmp_path / "model.safetensors"], [tmp_path / "image.tif"], tmp_path / "out.tif",
        iterations=2, reading=Reading(), dtype="float32", device="cpu",
    )  # fmt: skip
    twice = predict_stack([model], image, iterations=2)
    np.testing.assert_allclose(open_stack(tmp_path / "out.tif").array[:], twice.array, rtol=1e-4, atol=1e-3)


def with_holes(image: Stack) -> Stack:
    """Return the image without light in two planes and a border of its second channel."""
    array = np.array(image.array)
    array[1, :, :, :9] = array[1, :2] = array[1].min() - 1
    return replace(image, array=array)


def test_what_one_channel_lacks_weighs_nothing_in_all() -> None:
    image, target = pair(0)
    config = settled("task.joint=true")
    together = tuple(Source(with_holes(image), 0, c, np.arange(6.0), target) for c in range(2))
    source = replace(together[0], together=together)
    fit = denoise.join([denoise.fit([one], config) for one in together])[0]
    bank = denoise.prepare([source], fit, config, seed=0, round=0)
    weight = bank.images["weight"].reshape(6, *image.array.shape[-2:])
    assert not weight[:2].any()
    assert not weight[..., :9].any()
    assert weight[2:, :, 9:].all()
    assert (bank.validation["weight"].mean((1, 2, 3)) > 0.5).all()


def test_what_one_channel_lacks_is_restored_in_none(ensemble: Model, tmp_path: Path) -> None:
    image = with_holes(pair(7)[0])
    write_stack(tmp_path / "image.tif", image)
    save_model(tmp_path / "model.safetensors", ensemble)
    predict_images(
        [tmp_path / "model.safetensors"], [tmp_path / "image.tif"], tmp_path / "out.tif",
        uncertainty=True, reading=Reading(), dtype="float32", device="cpu",
    )  # fmt: skip
    whole = predict_maps([ensemble], image, uncertainty=True)
    hole = np.zeros(image.array.shape, bool)
    hole[:, :2] = hole[..., :9] = True
    for name, file in (("mean", "out.tif"), ("scale", "out.scale.tif")):
        written = np.asarray(open_stack(tmp_path / file).array[:])
        np.testing.assert_allclose(written, np.asarray(whole[name].array), rtol=1e-4, atol=1e-3)
        if name == "mean":
            np.testing.assert_allclose(written[hole], np.asarray(image.array)[hole], rtol=1e-5)
            assert (written[~hole] != np.asarray(image.array)[~hole]).any()
        else:
            np.testing.assert_array_equal(np.isnan(written), hole)


def test_other_channels_are_refused_or_told_of(
    ensemble: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, target = pair(7)
    save_model(tmp_path / "m.safetensors", ensemble)
    turned = replace(image, channels=("lit", "dark"))
    write_stack(tmp_path / "turned.ome.tif", turned)
    write_stack(tmp_path / "one.ome.tif", replace(image, array=image.array[:1], channels=("dark",)))
    command = ["predict", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "out.tif"), "--dtype", "float32"]
    assert run([*command, str(tmp_path / "turned.ome.tif")]) == 0
    assert "its channels are lit, dark, those of the model dark, lit" in capsys.readouterr().out
    assert run([*command, str(tmp_path / "one.ome.tif"), "--overwrite"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("the image has 1; accepted: an image of the same channels, without --channel")
    )
    with pytest.raises(InputError, match="accepted: one order"):
        check_pairs([image, image], [target, replace(target, channels=("lit", "dark"))])
    assert sum("the same as of all channels" in line for line in describe(tmp_path / "m.safetensors")) == 2


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.stage == "train" and event.done == 12:
            raise Cancelled("stopped")

    images, targets = zip(pair(0), pair(1), strict=True)
    config = settled("task.joint=true", "train.steps=20", "train.validate_every=5")
    whole, _ = learn(images, config, targets=targets, members=2, folder=tmp_path)
    folder = tmp_path / "again"
    folder.mkdir()
    with pytest.raises(Cancelled):
        learn(images, config, targets=targets, members=2, folder=folder, progress=stop)
    again, _ = learn(images, config, targets=targets, members=2, folder=folder)
    for one, other in zip(whole.channels, again.channels, strict=True):
        for some, same in zip(one.members, other.members, strict=True):
            assert all(torch.equal(some[name], same[name]) for name in some)

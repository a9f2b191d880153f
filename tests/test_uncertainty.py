"""Distributions: the mixture's mathematics, what a network that predicts a scale learns, and what is written of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, stats

import deepcontrast as dc
from deepcontrast import workdir
from deepcontrast.cli import run
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs import predict
from deepcontrast.jobs.movie import FRAMES, GAP, movie_suffix
from deepcontrast.jobs.predict_in_memory import predict_maps, predict_stack
from deepcontrast.learning import learn
from deepcontrast.losses import laplace
from deepcontrast.model import Model, save_model
from deepcontrast.nets.unet import LEAST_SCALE, unet
from deepcontrast.recipe import load_recipe
from deepcontrast.scale import shard_sizes
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source
from deepcontrast.tasks import denoise
from deepcontrast.uncertainty import MAPS, disagreement, draw, entropy, mixture, quantile

from .test_denoise import pair, settled


def drawn(seed: int, spread: float, count: int = 5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means about ``spread`` apart, and scales from 0.1 to 10, of members of some voxels (M, 4)."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, (count, 4)), 10 ** rng.uniform(-1, 1, (count, 4))


def tensors(*arrays: NDArray[np.float64]) -> list[torch.Tensor]:
    return [torch.from_numpy(array).float() for array in arrays]


def by_quadrature(means: NDArray[np.float64], scales: NDArray[np.float64]) -> float:
    """Return the entropy of a mixture (M,), integrated piece by piece by an adaptive rule."""

    def minus_plogp(x: float) -> float:
        density = float(stats.laplace.pdf(x, means, scales).mean())
        return -density * np.log(density) if density > 0 else 0.0

    far = 40 * scales.max()
    near = {mean + side * scale * n for mean in means for scale in scales for side in (-1, 1) for n in (0.0, 1.0, 5.0)}
    ends = sorted({*means, *near, means.min() - far, means.max() + far})
    return sum(integrate.quad(minus_plogp, a, b, epsabs=1e-9)[0] for a, b in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("count", [2, 5])
def test_entropy_and_disagreement_equal_an_adaptive_integral(spread: float, count: int) -> None:
    means, scales = drawn(int(spread) + count, spread, count)
    expected = np.array([by_quadrature(means[:, n], scales[:, n]) for n in range(4)])
    np.testing.assert_allclose(entropy(*tensors(means, scales)), expected, atol=1e-3)
    own = (1 + np.log(2 * scales)).mean(0)
    np.testing.assert_allclose(disagreement(*tensors(means, scales)), (expected - own) / np.log(count), atol=1e-3)


def test_equal_members_do_not_disagree_and_disjoint_ones_do_so_wholly() -> None:
    means, scales = torch.full((5, 3), 7000.0), torch.full((5, 3), 0.5)
    np.testing.assert_allclose(disagreement(means, scales), 0, atol=1e-5)
    apart = means + 1000 * torch.arange(5.0)[:, None]
    np.testing.assert_allclose(disagreement(apart, scales), 1, atol=1e-3)
    np.testing.assert_array_equal(disagreement(means[:1], scales[:1]), 0)


def test_disagreement_does_not_know_the_unit_and_where_zero_is() -> None:
    means, scales = tensors(*drawn(3, 1.0))
    expected = disagreement(means, scales)
    np.testing.assert_allclose(disagreement(1000 * means + 5000, 1000 * scales), expected, atol=1e-4)


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("probability", [0.05, 0.3, 0.95])
def test_a_share_of_the_mixture_lies_below_its_quantile(spread: float, probability: float) -> None:
    means, scales = drawn(11, spread)
    value = quantile(*tensors(means, scales), probability)
    below = stats.laplace.cdf(value.double().numpy(), means, scales).mean(0)
    np.testing.assert_allclose(below, probability, atol=1e-4)


def test_a_single_member_is_its_own_mixture() -> None:
    mean, scale = torch.tensor([[3.0, -5.0]]), torch.tensor([[2.0, 0.5]])
    maps = mixture(mean, scale)
    assert set(maps) == {"mean", *MAPS}
    np.testing.assert_allclose(maps["mean"], mean[0])
    np.testing.assert_allclose(maps["scale"], scale[0])
    for name, probability in (("lower", 0.05), ("upper", 0.95)):
        np.testing.assert_allclose(maps[name], stats.laplace.ppf(probability, mean[0], scale[0]), rtol=1e-5)


def test_the_scale_of_a_mixture_is_the_error_to_be_expected_of_its_mean() -> None:
    means, scales = drawn(2, 1.0)
    rng = np.random.default_rng(0)
    truth = rng.laplace(means[:, 0], scales[:, 0], (200_000, 5)).ravel()
    maps = mixture(*tensors(means, scales))
    assert float(maps["scale"][0]) == pytest.approx(np.abs(truth - float(maps["mean"][0])).mean(), rel=0.01)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"dims": 3, "depth": 2, "kernel": 3, "probabilistic": True}, 996_802),
        ({"dims": 2, "depth": 2, "kernel": 5, "probabilistic": True}, 923_010),
        ({"dims": 2, "depth": 2, "kernel": 5, "probabilistic": True, "channels": 2, "outputs": 2}, 923_876),
    ],
)
def test_networks_have_as_many_weights_as_the_published_ones(settings: dict[str, Any], parameters: int) -> None:
    """Planaria and Tribolium; tubules and granules; the retina's two channels (CARE supplement, table 3)."""
    assert sum(weight.numel() for weight in unet(features=32, **settings).parameters()) == parameters


@pytest.mark.parametrize(
    ("recipe", "parameters", "planes"),
    [
        ("planaria", 996_802, 16),
        ("tribolium", 996_802, 16),
        ("hela", 923_010, 1),
        ("ins1-tubules", 923_010, 1),
        ("ins1-granules", 923_010, 1),
        ("retina", 923_876, 1),
    ],
)
def test_recipes_of_the_paper_build_its_networks(recipe: str, parameters: int, planes: int) -> None:
    config = load_recipe(f"care-{recipe}")
    pairs = [Stack(np.random.default_rng(n).integers(0, 255, (20, 160, 300)), "ZYX") for n in (0, 1)]
    fit = denoise.fit([Source(pairs[0], 0, 0, np.arange(20.0), pairs[1])], config)
    [fit, *_] = denoise.join([fit, fit]) if config.task["joint"] else [fit]
    net = denoise.build(fit, config)
    assert sum(weight.numel() for weight in net.parameters()) == parameters
    assert (len(fit.layers), fit.patch) == (planes, 64 if planes > 1 else 128)


@pytest.mark.parametrize(("channels", "outputs", "shown"), [(1, 1, [0]), (5, 1, [2]), (2, 2, [0, 1]), (6, 2, [1, 4])])
def test_the_input_is_added_to_the_means_and_not_to_the_scales(channels: int, outputs: int, shown: list[int]) -> None:
    net = unet(depth=1, features=4, channels=channels, outputs=outputs, probabilistic=True)
    for weight in net.parameters():
        torch.nn.init.zeros_(weight)
    x = torch.randn(2, channels, 8, 8)
    y = net(x).detach()
    torch.testing.assert_close(y[:, :outputs], x[:, shown])
    np.testing.assert_allclose(y[:, outputs:], np.log(2) + LEAST_SCALE, rtol=1e-6)


def test_the_loss_is_the_likelihood_of_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, target = torch.randn((2, 2, 1, 5, 6), generator=generator)
    scale = torch.rand((2, 1, 5, 6), generator=generator) + 0.1
    expected = -stats.laplace.logpdf(target, mean, scale) - np.log(2)
    prediction = torch.cat([mean, scale], dim=1)
    assert float(laplace(prediction, target, None)) == pytest.approx(expected.mean(), rel=1e-5)
    weight = (torch.rand((2, 1, 5, 6), generator=generator) > 0.5).float()
    weighted = (expected * weight.numpy()).sum() / float(weight.sum())
    assert float(laplace(prediction, target, weight)) == pytest.approx(weighted, rel=1e-5)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two networks, trained on pairs for a few seconds."""
    pairs = [pair(seed) for seed in (0, 1, 2)]
    config = settled("train.steps=300", "train.learning_rate=2e-3", "train.loss=laplace")
    folder = tmp_path_factory.mktemp("ensemble")
    model, _ = learn([p[0] for p in pairs], config, targets=[p[1] for p in pairs], members=2, folder=folder)
    return model


def truth_of(image: Stack, target: Stack) -> NDArray[np.float64]:
    """Return the target in the grey levels of the result, which are those of the image."""
    one, other = (np.asarray(stack.array, np.float64) for stack in (image, target))
    return (other - other.mean()) / other.std() * one.std() + one.mean()


def test_the_predicted_scale_is_the_size_of_the_error(ensemble: Model) -> None:
    image, target = pair(7)
    maps = {name: np.asarray(stack.array) for name, stack in predict_maps([ensemble], image, uncertainty=True).items()}
    assert all(one.dtype == np.float32 for one in maps.values())
    error = np.abs(maps["mean"] - truth_of(image, target))
    order = np.argsort(maps["scale"], axis=None).reshape(4, -1)
    found, told = ([float(one.ravel()[part].mean()) for part in order] for one in (error, maps["scale"]))
    # From the quarter of the voxels that it is surest of to the one that it is least sure of.
    assert found == sorted(found)
    assert found[-1] > 1.5 * found[0]
    np.testing.assert_allclose(told, found, rtol=0.3)
    inside = (maps["lower"] < truth_of(image, target)) & (truth_of(image, target) < maps["upper"])
    assert 0.8 < inside.mean() < 0.98
    assert (maps["lower"] < maps["mean"]).all()
    assert (maps["mean"] < maps["upper"]).all()
    assert ((maps["disagreement"] >= 0) & (maps["disagreement"] <= 1)).all()
    assert maps["disagreement"].max() > 0.01
    np.testing.assert_allclose(maps["mean"], predict_stack([ensemble], image).array, rtol=1e-5)


def test_shards_and_containers_hold_the_maps_of_the_whole(
    ensemble: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_sizes, "SHARD", np.prod(shard_sizes.FINEST))
    volume = np.random.default_rng(0).poisson(50, (18, 130, 40)).astype(np.uint16)
    volume[:, :, :9] = 0
    write_stack(tmp_path / "large.ome.tif", Stack(volume, "ZYX"))
    save_model(tmp_path / "m.safetensors", ensemble)
    expected = dc.load(tmp_path / "m.safetensors").predict_with_uncertainty(dc.open(tmp_path / "large.ome.tif"))
    for name in ("out.ome.tif", "out.ome.zarr"):
        out = tmp_path / name
        command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "large.ome.tif"), "--out", str(out)]
        assert run([*command, "--uncertainty", "--dtype", "float32", "--quiet"]) == 0
        for which in ("mean", *MAPS):
            file = out if which == "mean" else tmp_path / name.replace("out", f"out.{which}")
            made = open_stack(file)
            assert made.dtype == np.float32
            tight = 1e-4 if which == "disagreement" else 1e-5 * np.ptp(volume)
            np.testing.assert_allclose(made.volume(), expected[which].volume(), rtol=0, atol=tight)
            assert np.isnan(made.volume()[:, :, :9]).all() == (which != "mean")
        before = {file.name for file in tmp_path.iterdir()}
        assert run([*command, "--uncertainty", "--dtype", "float32", "--resume"]) == 0
        assert run([*command, "--dtype", "float32", "--resume"]) == 2
        assert {file.name for file in tmp_path.iterdir()} == before


def test_draws_have_the_distribution_they_are_drawn_from() -> None:
    means, scales = drawn(2, 1.0)
    generator = torch.Generator().manual_seed(0)
    many = [torch.from_numpy(array[:, :1]).float().repeat(1, 50_000) for array in (means, scales)]
    values = draw(many[0], many[1], generator)
    assert values.isfinite().all()
    for probability in (0.05, 0.5, 0.95):
        below = float((values < quantile(*tensors(means, scales), probability)[0]).double().mean())
        assert below == pytest.approx(probability, abs=0.01)


def test_the_movie_shows_image_mean_and_draws(ensemble: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", ensemble)
    write_stack(tmp_path / "image.tif", pair(7)[0])
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "image.tif")]
    assert run([*command, "--out", str(tmp_path / "out.tif"), "--movie", "--quiet"]) == 0
    assert sorted(file.name for file in tmp_path.glob("out*")) == [f"out.movie{movie_suffix()}", "out.tif"]
    frames = np.asarray(iio.imread(tmp_path / f"out.movie{movie_suffix()}"), float)
    frames = frames[..., 0] if frames.ndim == 4 else frames
    assert frames.shape == (FRAMES, 64, 3 * 72 + 2 * GAP)
    shown, mean, draws = (frames[:, :, n * (72 + GAP) :][:, :, :72] for n in range(3))
    # As good as still, and moving; on an average the mean.
    assert max(shown.std(0).max(), mean.std(0).max()) < 3
    assert draws.std(0).mean() > 5
    assert np.corrcoef(draws.mean(0).ravel(), mean[0].ravel())[0, 1] > 0.95


def test_a_map_that_is_there_is_not_overwritten(
    ensemble: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "m.safetensors", ensemble)
    write_stack(tmp_path / "image.tif", pair(7)[0])
    (tmp_path / "out.scale.tif").write_text("mine")
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "image.tif")]
    assert run([*command, "--out", str(tmp_path / "out.tif"), "--uncertainty"]) == 2
    assert "out.scale.tif' exists" in capsys.readouterr().err
    assert (tmp_path / "out.scale.tif").read_text() == "mine"
    assert run([*command, "--out", str(tmp_path / "out.tif")]) == 0


def test_models_of_the_same_images_are_one_ensemble(ensemble: Model) -> None:
    [channel] = ensemble.channels
    other_seed = ensemble.config.train.model_copy(update={"seed": 5})
    fit = {**channel.fit, "held_out": []}
    apart = [
        replace(ensemble, channels=(replace(channel, members=channel.members[:1]),)),
        replace(
            ensemble,
            config=ensemble.config.model_copy(update={"train": other_seed}),
            channels=(replace(channel, fit=fit, members=channel.members[1:]),),
        ),
    ]
    image = pair(7)[0]
    for models in ([ensemble], apart):
        maps = predict_maps(models, image, uncertainty=True)
        np.testing.assert_array_equal(
            maps["disagreement"].array, predict_maps([ensemble], image, uncertainty=True)["disagreement"].array
        )
    norm = {**channel.fit["norm"], "offset": 3.0}
    elsewhere = replace(apart[1], channels=(replace(channel, fit={**fit, "norm": norm}),))
    with pytest.raises(InputError, match="other images"):
        predict_maps([apart[0], elsewhere], image, uncertainty=True)


def halves(ensemble: Model, folder: Path) -> list[str]:
    """Write the networks of an ensemble into a file each, and return the files."""
    [channel] = ensemble.channels
    for n, member in enumerate(channel.members):
        save_model(folder / f"m{n}.safetensors", replace(ensemble, channels=(replace(channel, members=(member,)),)))
    return [str(folder / f"m{n}.safetensors") for n in range(len(channel.members))]


def test_several_model_files_give_the_maps_of_one(ensemble: Model, tmp_path: Path) -> None:
    image = pair(7)[0]
    write_stack(tmp_path / "image.tif", image)
    command = ["predict", *halves(ensemble, tmp_path), str(tmp_path / "image.tif"), "--dtype", "float32"]
    assert run([*command, "--out", str(tmp_path / "out.tif"), "--uncertainty", "--movie"]) == 0
    assert run([*command, "--out", str(tmp_path / "alone.tif"), "--movie"]) == 0
    expected = predict_maps([ensemble], image, uncertainty=True)
    for name in ("scale", "disagreement"):
        made = np.asarray(open_stack(tmp_path / f"out.{name}.tif").array)
        np.testing.assert_allclose(made, expected[name].array, atol=1e-4)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
@pytest.mark.parametrize("stop", ["finish_single", "_put_in_place", "first"])
def test_a_run_that_is_stopped_at_its_end_goes_on_to_the_same_maps(
    stop: str, suffix: str, ensemble: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "m.safetensors", ensemble)
    write_stack(tmp_path / "image.tif", pair(7)[0])
    out = tmp_path / f"out{suffix}"
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "image.tif"), "--out", str(out)]
    command += ["--uncertainty", "--dtype", "float32", "--quiet"]
    moves = []

    def stopped(*of: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    def moved_first(*of: Any) -> None:
        if moves:
            raise KeyboardInterrupt
        moves.append(of)
        original(*of)

    original = workdir._move
    with monkeypatch.context() as patch:
        if stop == "first":
            patch.setattr(workdir, "_move", moved_first)
        else:
            patch.setattr(predict if stop == "finish_single" else workdir, stop, stopped)
        assert run(command) == 130
    assert run([*command, "--resume"]) == 0
    expected = predict_maps([ensemble], pair(7)[0], uncertainty=True)
    for name in ("mean", *MAPS):
        made = open_stack(out if name == "mean" else tmp_path / f"out.{name}{suffix}").volume()
        np.testing.assert_allclose(made, expected[name].volume(), rtol=1e-4, atol=1e-4)
    assert not (tmp_path / f"out{suffix}.partial").exists()


def test_what_lies_beside_results_is_kept_apart(
    ensemble: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(tmp_path / "m.safetensors"), tmp_path / "out"
    save_model(tmp_path / "m.safetensors", ensemble)
    (tmp_path / "in").mkdir()
    for name in ("liver.tif", "liver.scale.tif"):
        write_stack(tmp_path / "in" / name, pair(7)[0])
    image = str(tmp_path / "in" / "liver.tif")

    def refused(*command: str) -> str:
        assert run(["predict", model, *command, "--quiet"]) == 2
        return capsys.readouterr().err

    assert "would be written twice" in refused(str(tmp_path / "in"), "--out", str(out), "--uncertainty")
    (tmp_path / "one.lower.tif").write_text("mine")
    for more in ([], ["--resume"]):
        assert "one.lower.tif' exists" in refused(image, "--out", str(tmp_path / "one.tif"), "--uncertainty", *more)
    one = ["predict", model, image, "--out", str(tmp_path / "two.tif"), "--quiet"]
    assert run([*one, "--uncertainty", "--movie"]) == 0
    (tmp_path / "two.upper.tif").unlink()
    assert run([*one, "--uncertainty", "--movie", "--resume"]) == 2
    assert "'two.upper.tif' is gone" in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert run([*one, "--uncertainty", "--overwrite"]) == 0
    # A movie of the other kind is one too for a run that is complete, and a leftover for one that begins anew.
    kind, other = (movie_suffix(), *{".mp4", ".gif"} - {movie_suffix()})
    assert run([*one, "--movie", "--overwrite"]) == 0
    (tmp_path / f"two.movie{kind}").rename(tmp_path / f"two.movie{other}")
    assert run([*one, "--movie", "--resume"]) == 0
    assert run([*one, "--movie", "--overwrite"]) == 0
    assert sorted(path.name for path in tmp_path.glob("two*")) == [f"two.movie{kind}", "two.tif"]
    assert run([*one, "--uncertainty", "--overwrite"]) == 0
    # A map of the former result that is the input now, or another result, is no leftover.
    again = ["predict", model, str(tmp_path / "two.scale.tif"), "--out", str(tmp_path / "two.tif"), "--quiet"]
    assert run([*again, "--overwrite"]) == 0
    assert sorted(path.name for path in tmp_path.glob("two*")) == ["two.scale.tif", "two.tif"]
    assert run([*one, "--uncertainty", "--overwrite"]) == 0
    assert run([*one, "--overwrite"]) == 0
    assert sorted(path.name for path in tmp_path.glob("two*")) == ["two.tif"]
    (tmp_path / "three.tif").write_text("no image")
    three = ["predict", model, image, "--out", str(tmp_path / "three.tif"), "--quiet"]
    assert run([*three, "--overwrite"]) == 0
    (tmp_path / "four.scale.ome.zarr").mkdir()
    (tmp_path / "four.scale.ome.zarr" / "notes.txt").write_text("mine")
    four = [image, "--out", str(tmp_path / "four.ome.zarr"), "--uncertainty", "--overwrite"]
    assert "folder with other files in it" in refused(*four)


def test_what_predicts_no_uncertainty_is_told_so(
    ensemble: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "sure.safetensors", ensemble)
    other = ensemble.config.train.model_copy(update={"loss": "mse"})
    save_model(
        tmp_path / "m.safetensors", replace(ensemble, config=ensemble.config.model_copy(update={"train": other}))
    )
    write_stack(tmp_path / "image.tif", pair(7)[0])
    rest = [str(tmp_path / "image.tif"), "--out", str(tmp_path / "out.tif"), "--uncertainty"]
    for command, words in (
        (["predict", str(tmp_path / "m.safetensors"), *rest], "--set train.loss=laplace"),
        (["predict", str(tmp_path / "sure.safetensors"), *rest, "--iterations", "2"], "one pass"),
    ):
        assert run(command) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert words in line


def test_the_contrast_task_says_how_sure_it_is_too(tiny_stack: Stack) -> None:
    settings = {
        "net.depth": 1, "net.features": 4, "train.steps": 12, "train.batch": 4, "train.patch": 24,
        "train.precision": "float32", "train.loss": "laplace", "predict.orientations": 2,
    }  # fmt: skip
    restorer = dc.train(tiny_stack, settings=settings, surface="first")
    maps = restorer.predict_with_uncertainty(tiny_stack)
    assert (np.asarray(maps["scale"].array) > 0).all()
    np.testing.assert_array_equal(maps["disagreement"].array, 0)


def test_small_tiles_change_nothing(ensemble: Model) -> None:
    image = replace(pair(7)[0], optics=Optics(surface="first"))
    exact = predict_maps([ensemble], image, uncertainty=True)
    small = ensemble.config.predict.model_copy(update={"tile_voxels": 2048})
    tiled = predict_maps(
        [replace(ensemble, config=ensemble.config.model_copy(update={"predict": small}))], image, uncertainty=True
    )
    for name in exact:
        spread = np.ptp(np.asarray(exact["mean"].array)) if name != "disagreement" else 10.0
        np.testing.assert_allclose(tiled[name].array, exact[name].array, rtol=0, atol=1e-5 * spread)

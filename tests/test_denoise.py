"""Denoising from pairs: norms, what a bank holds, what is learned, and how a model is applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from csbdeep.data import PercentileNormalizer, no_background_patches
from numpy.typing import NDArray
from scipy import ndimage

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.config import Config
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.predict_in_memory import predict_stack
from deepcontrast.jobs.train import train_images
from deepcontrast.learning import learn
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.patches import cut
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source
from deepcontrast.tasks import denoise
from deepcontrast.tasks._norms import measure
from deepcontrast.training import threads
from deepcontrast.valid import survey

from .conftest import TINY

NORMS = ("mean_std", "percentile")
FORMS = {
    "planes": (),
    "neighbours": ("net.context=1",),
    "space": ("net.context=1", "net.dims=3"),
    "pooled": ("net.context=2", "net.dims=3", "net.pool_z=1"),
}
SLABS = {"space": slice(2, 5), "pooled": slice(1, 5)}


def stack_of(array: NDArray[Any]) -> Stack:
    return Stack(array, "ZYX" if array.ndim == 3 else "YX", Optics(surface="first"), source="made")


def blobs(seed: int, shape: tuple[int, ...] = (6, 64, 72)) -> NDArray[np.float64]:
    """Return smooth spots on a dark ground, from 0 to about 1."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter((rng.random(shape) > 0.995).astype(float), 2.0)
    return np.asarray(image / np.percentile(image, 99.9))


def pair(seed: int, photons: float = 20.0) -> tuple[Stack, Stack]:
    """Return a noisy image of few photons, and the same place with hundreds of times as many."""
    clean = blobs(seed)
    rng = np.random.default_rng(100 + seed)
    low = rng.poisson(photons * (0.1 + clean)).astype(np.uint16)
    return stack_of(low), stack_of((1000 + 5000 * clean).astype(np.uint16))


def source(seed: int) -> Source:
    image, target = pair(seed)
    return Source(image, 0, 0, np.arange(6.0), target)


def settled(*settings: str) -> Config:
    return load_recipe("care", (*TINY, *settings))


@pytest.mark.parametrize("kind", NORMS)
def test_the_norm_of_an_image_is_its_own(kind: str) -> None:
    image = pair(0)[0]
    norm = measure(image.frame(), image.frame(), survey(image.frame()), kind, 2.0, 99.8)
    values = np.asarray(image.array, np.float64)
    low, high = np.percentile(values, (2, 99.8))
    expected = (low, high - low) if kind == "percentile" else (values.mean(), values.std())
    np.testing.assert_allclose((norm.offset, norm.scale), expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_bank_holds_both_images_of_a_place_in_network_units(form: str) -> None:
    config = settled(*FORMS[form])
    sources = [source(0), source(1)]
    fit = denoise.fit(sources, config)
    bank = denoise.prepare(sources, fit, config, seed=0, round=0)
    patches = cut(bank, torch.tensor([[6 + 3, 5, 7]]), 24)
    x, y, weight = denoise.sample(patches, torch.zeros(1), fit, torch.Generator(), config)
    assert weight is None
    for found, stack in ((x, sources[1].stack), (y, sources[1].target)):
        assert stack is not None
        values = np.asarray(stack.array, np.float64)
        expected = (values - values.mean()) / values.std()
        planes = expected[SLABS.get(form, slice(3, 4))]
        middle = found[0, 0] if form in SLABS else found[0, found.shape[1] // 2][None]
        np.testing.assert_allclose(middle, planes[:, 5:29, 7:31], atol=1e-4)
    assert (x.shape[1], y.shape[1]) == ((1, 1) if form in SLABS else (len(fit.layers), 1))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_percentiles_are_those_of_csbdeep(dtype: type) -> None:
    image = stack_of((7 * np.asarray(pair(0)[0].array) + 100).astype(dtype))
    volume = np.asarray(image.array)
    theirs = PercentileNormalizer(2, 99.8)
    expected = theirs.before(volume, "ZYX")
    norm = measure(image.frame(), image.frame(), survey(image.frame()), "percentile", 2.0, 99.8)
    np.testing.assert_allclose(norm(volume.astype(np.float32)), expected, atol=1e-5)
    mean, scale = theirs.after(expected, np.ones_like(expected), "ZYX")
    np.testing.assert_allclose(norm.invert(expected), mean, rtol=1e-5)
    assert norm.scale == pytest.approx(float(scale.flat[0]), rel=1e-6)


@pytest.mark.parametrize("patch", [16, 24])
def test_foreground_is_that_of_csbdeep(patch: int) -> None:
    """Patches may start exactly where their middle lies in CSBDeep's mask, of the grid that they are drawn from."""
    image, target = pair(0)
    plane = [replace(stack, array=np.asarray(stack.array)[:1]) for stack in (image, target)]
    sources = [Source(plane[0], 0, 0, np.zeros(1), plane[1])]
    config = settled(f"train.patch={patch}")
    fit = denoise.fit(sources, config)
    bank = denoise.prepare(sources, fit, config, seed=0, round=0)
    mask = no_background_patches()([np.asarray(plane[1].array)[0]], (patch, patch))
    every = denoise.prepare(sources, fit, settled(f"train.patch={patch}", "task.foreground=0"), seed=0, round=0)
    middle = (patch + bank.jitter) // 2
    expected = [row for row in every.corners.tolist() if mask[row[1] + middle, row[2] + middle]]
    assert bank.corners.tolist() == expected
    assert 0 < len(expected) < len(every.corners)


def test_patches_are_drawn_around_what_is_bright() -> None:
    image, target = pair(0)
    dark = np.array(target.array)
    dark[:, :, 36:] = 1000
    sources = [Source(image, 0, 0, np.arange(6.0), stack_of(dark))]
    columns = {}
    for share in (0.0, 0.4):
        config = settled(f"task.foreground={share}")
        fit = denoise.fit(sources, config)
        bank = denoise.prepare(sources, fit, config, seed=0, round=0)
        columns[share] = bank.corners[:, 2].numpy() + fit.patch // 2
    assert columns[0.0].max() > 50
    # A patch of 24 px with its middle 6 px beside the bright half still has some of it within a quarter of a patch.
    assert columns[0.4].max() <= 36 + 6 + 3
    assert len(columns[0.4]) > 100


def trained(*settings: str, folder: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Model:
    pairs = [pair(seed) for seed in seeds]
    config = settled("train.learning_rate=5e-3", "net.features=8", *settings)
    folder.mkdir(exist_ok=True)
    model, _ = learn([one for one, _ in pairs], config, targets=[other for _, other in pairs], folder=folder)
    return model


def error(result: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the root mean square error after the best affine fit, as a share of the truth's range."""
    slope, level = np.polyfit(result.ravel().astype(float), truth.ravel().astype(float), 1)
    return float(np.sqrt(np.mean((slope * result + level - truth) ** 2)) / np.ptp(truth))


@pytest.mark.parametrize("planes", [2, 3, 5])
def test_thin_stacks_are_trained_on_in_space(planes: int, tmp_path: Path) -> None:
    """Slabs get as thin as the stacks, and are pooled as often as they can be; any other stack is restored with it."""
    thin = [replace(stack, array=np.asarray(stack.array)[:planes]) for stack in pair(0)]
    config = settled("train.steps=4", "net.depth=2", "net.dims=3", "net.context=4", "net.pool_z=2")
    model, _ = learn([thin[0]], config, targets=[thin[1]], folder=tmp_path)
    assert len(model.channels[0].fit["layers"]) == {2: 2, 3: 2, 5: 4}[planes]
    for stack in (thin[0], pair(1)[0]):
        assert np.isfinite(predict_stack([model], stack).array).all()


@pytest.mark.parametrize("kind", NORMS)
def test_what_was_not_seen_is_restored(kind: str, tmp_path: Path) -> None:
    model = trained("train.steps=200", f'task.norm="{kind}"', folder=tmp_path)
    image, target = pair(7)
    truth = np.asarray(target.array)
    restored = np.asarray(predict_stack([model], image).array)
    assert error(restored, truth) < 0.5 * error(np.asarray(image.array), truth)
    best = min(error(ndimage.gaussian_filter(np.asarray(image.array, float), (0, s, s)), truth) for s in (1, 1.5, 2, 3))
    assert error(restored, truth) < best
    stored = np.asarray(predict_stack([model], image, norm="stored").array)
    # In the target's own grey levels, so without any fit.
    assert abs(stored.mean() / truth.mean() - 1) < 0.1


def test_an_image_normalised_by_itself_may_have_any_unit(tmp_path: Path) -> None:
    model = trained("train.steps=4", folder=tmp_path)
    image = stack_of(np.asarray(pair(7)[0].array, np.float32))
    other = replace(image, array=np.asarray(image.array) * 3 + 50)
    one, scaled = (np.asarray(predict_stack([model], stack).array) for stack in (image, other))
    np.testing.assert_allclose(scaled, one * 3 + 50, atol=1e-3 * np.ptp(scaled))
    one, scaled = (np.asarray(predict_stack([model], stack, norm="stored").array) for stack in (image, other))
    assert np.abs(scaled - (one * 3 + 50)).max() > 0.1 * np.ptp(scaled)


def test_a_model_that_was_not_trained_so_has_one_norm_for_all(tmp_path: Path) -> None:
    model = trained("train.steps=4", "task.per_image=false", folder=tmp_path)
    image = pair(7)[0]
    one, other = (np.asarray(predict_stack([model], image, norm=norm).array) for norm in ("image", "stored"))
    np.testing.assert_array_equal(one, other)


def test_voxels_without_a_measurement_weigh_nothing() -> None:
    image, target = pair(0)
    holed = np.array(image.array) + 1
    holed[:, :10] = 0
    sources = [Source(stack_of(holed), 0, 0, np.arange(6.0), target)]
    config = settled()
    fit = denoise.fit(sources, config)
    bank = denoise.prepare(sources, fit, config, seed=0, round=0)
    weight = bank.images["weight"].view(6, 64, 72)
    assert (weight[:, :10] == 0).all()
    assert (weight[:, 10:] == 1).all()


def folders(tmp_path: Path, seeds: tuple[int, ...]) -> list[str]:
    """Write pairs, and return the options that name them."""
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
    for seed in seeds:
        for name, stack in zip(("low", "high"), pair(seed), strict=True):
            write_stack(tmp_path / name / f"cell{seed}.tif", stack)
    return ["--input", str(tmp_path / "low"), "--target", str(tmp_path / "high")]


def test_train_and_predict_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tiny = tmp_path / "m.safetensors", [word for setting in TINY for word in ("--set", setting)]
    given = folders(tmp_path, (0, 1))
    assert run(["train", "care", *given, "--out", str(model), *tiny]) == 0
    image = tmp_path / "new.tif"
    write_stack(image, pair(7)[0])
    capsys.readouterr()
    assert run(["predict", str(model), str(image), "--out", str(tmp_path / "out.ome.zarr"), "--dtype", "float32"]) == 0
    assert "every image is normalised by itself" in capsys.readouterr().out
    made = np.asarray(open_stack(tmp_path / "out.ome.zarr").array)
    expected = np.asarray(predict_stack([load_model(model)], open_stack(image)).array)
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.ptp(expected))
    assert run(["predict", str(model), str(image), "--out", str(tmp_path / "s.npy"), "--norm", "stored"]) == 0
    assert not np.allclose(np.load(tmp_path / "s.npy"), expected)


def test_wrong_uses_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = folders(tmp_path, (0,))
    out = ["--out", str(tmp_path / "m.safetensors")]
    for command, words in (
        (["train", "care", *given[:2], *out], "learns from pairs of images; give a target"),
        (["train", "contrast", *given, *out], "learns from the images alone"),
        (["train", "contrast", *given[:2], "--register", *out], "--register shifts targets"),
        (["enhance", given[1], "--recipe", "care", "--out", str(tmp_path / "e")], "`deepcontrast train care"),
        (
            ["degrade", f"{given[1]}/cell0.tif", "--recipe", "care", "--out", str(tmp_path / "d.tif")],
            "learns from pairs",
        ),
        (["compare", f"{given[1]}/cell0.tif", "--recipe", "care", "--out", str(tmp_path / "c")], "learns from pairs"),
        (["experiment", "ablation", "--recipe", "care", "--out", str(tmp_path / "x")], "learns from pairs"),
    ):
        assert run(command) == 2, command
        [line] = capsys.readouterr().err.splitlines()
        assert words in line


def test_the_numbers_come_back_from_the_model_file(tmp_path: Path) -> None:
    model = trained("train.steps=4", 'task.norm="percentile"', "task.low=1", folder=tmp_path)
    save_model(tmp_path / "m.safetensors", model)
    [channel] = load_model(tmp_path / "m.safetensors").channels
    fit = denoise.Fit.decode(channel.fit, channel.arrays)
    assert (fit.kind, fit.low, fit.high, fit.per_image) == ("percentile", 1.0, 99.8, True)
    values = [np.asarray(pair(seed)[1].array, float) for seed in (0, 1, 2)]
    assert fit.target.offset == pytest.approx(np.median([np.percentile(v, 1) for v in values]))


def test_pairs_are_trained_on_from_python() -> None:
    pairs = [pair(seed) for seed in (0, 1)]
    settings = {key: value for key, _, value in (setting.partition("=") for setting in TINY)}
    settings = {key: value if key == "train.precision" else int(value) for key, value in settings.items()}
    given, targets = [one for one, _ in pairs], [other for _, other in pairs]
    restorer = dc.train(given, "care", targets=targets, settings=settings)
    assert restorer.model.task == "denoise"
    assert restorer.predict(given[0]).shape == given[0].shape
    with pytest.raises(InputError, match="given 2 images and 1 targets"):
        dc.train(given, "care", targets=targets[0], settings=settings)


def test_norms_are_of_what_both_images_of_a_pair_show() -> None:
    image, target = pair(0)
    bordered = [np.array(one.array) + 1 for one in (image, target)]
    for one in bordered:
        one[:, :, :20] = 0
    norms = denoise.pair_norms(
        Source(stack_of(bordered[0]), 0, 0, np.arange(6.0), stack_of(bordered[1])), "mean_std", 2, 98, alike=False
    )
    for norm, one in zip(norms, bordered, strict=True):
        assert norm.offset == pytest.approx(one[:, :, 20:].mean())


@pytest.mark.parametrize("norm", ["image", "stored"])
def test_voxels_that_are_not_restored_are_in_the_grey_levels_of_the_result(norm: str, tmp_path: Path) -> None:
    model = trained("train.steps=4", folder=tmp_path)
    stitched = 5 + np.asarray(pair(7)[0].array)
    stitched[:, :, :20] = 3
    image = stack_of(stitched)
    result = np.asarray(predict_stack([model], image, norm=norm).array)
    [channel] = model.channels
    fit = denoise.Fit.decode(channel.fit, channel.arrays)
    expected = 3.0 if norm == "image" else fit.target.invert(fit.norm(3.0))
    np.testing.assert_allclose(result[stitched == 3], expected, rtol=1e-5)


def test_saturated_voxels_are_learned_from_and_restored(tmp_path: Path) -> None:
    """A single frame is saturated where noise is: what it stands for is in the target, and in the neighbours."""

    def clipped(stack: Stack) -> Stack:
        return replace(stack, array=np.minimum(15 * np.asarray(stack.array), 255).astype(np.uint8))

    pairs = [(clipped(one), other) for one, other in map(pair, (0, 1, 2))]
    config = settled("train.steps=200", "train.learning_rate=2e-3")
    model, _ = learn([one for one, _ in pairs], config, targets=[other for _, other in pairs], folder=tmp_path)
    image, target = clipped(pair(7)[0]), np.asarray(pair(7)[1].array)
    saturated = np.asarray(image.array) == 255
    assert saturated.sum() > 100
    result = np.asarray(predict_stack([model], image).array)
    assert error(result, target) < 0.6 * error(np.asarray(image.array, float), target)
    # As the truth has it, and no more alike than that.
    assert np.corrcoef(result[saturated], target[saturated])[0, 1] > 0.5
    save_model(tmp_path / "m.safetensors", model)
    write_stack(tmp_path / "image.tif", image)
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "image.tif"), "--dtype", "float32"]
    assert run([*command, "--out", str(tmp_path / "out.tif")]) == 0
    np.testing.assert_allclose(open_stack(tmp_path / "out.tif").array, result, atol=1e-3)


def test_models_of_different_norms_form_no_ensemble(tmp_path: Path) -> None:
    own, shared = (
        trained("train.steps=4", f"task.per_image={word}", folder=tmp_path / word) for word in ("true", "false")
    )
    image = pair(7)[0]
    with pytest.raises(InputError, match="only with --norm stored"):
        predict_stack([own, shared], image)
    one, other, both = (
        np.asarray(predict_stack(models, image, norm="stored").array) for models in ([own], [shared], [own, shared])
    )
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)


def test_time_points_and_channels_are_each_normalised_by_themselves(tmp_path: Path) -> None:
    def movie(which: int) -> Stack:
        volumes = [[np.asarray(pair(10 * t + c)[which].array) * (1 + t + 2 * c) for c in (0, 1)] for t in (0, 1)]
        return Stack(np.array(volumes), "TCZYX", Optics(surface="first"), source="movie")

    config = settled("train.steps=4")
    model, _ = learn([movie(0)], config, targets=[movie(1)], folder=tmp_path)
    save_model(tmp_path / "m.safetensors", model)
    write_stack(tmp_path / "movie.ome.zarr", movie(0))
    command = [
        "predict",
        str(tmp_path / "m.safetensors"),
        str(tmp_path / "movie.ome.zarr"),
        "--dtype",
        "float32",
        "--quiet",
    ]
    assert run([*command, "--out", str(tmp_path / "out.ome.zarr")]) == 0
    whole = np.asarray(predict_stack([model], movie(0)).array)
    np.testing.assert_allclose(open_stack(tmp_path / "out.ome.zarr").array, whole, atol=1e-4 * np.ptp(whole))
    alone = Stack(np.asarray(movie(0).array)[1, 1], "ZYX", Optics(surface="first"))
    one = Model(model.task, model.config, model.channels[1:], {})
    np.testing.assert_allclose(predict_stack([one], alone).array, whole[1, 1], atol=1e-4 * np.ptp(whole))


def test_interrupted_training_goes_on_to_the_same_file(tmp_path: Path) -> None:
    tiny = [word for setting in TINY for word in ("--set", setting)]
    given = folders(tmp_path, (0, 1))
    assert run(["train", "care", *given, "--out", str(tmp_path / "a.safetensors"), *tiny, "--quiet"]) == 0

    def stop(event: Event) -> None:
        if event.stage == "train" and event.done == 6:
            raise Cancelled

    order: dict[str, Any] = {"targets": [tmp_path / "high"], "reading": Reading(), "say": lambda line: None}
    with pytest.raises(Cancelled):
        train_images([tmp_path / "low"], tmp_path / "b.safetensors", settled(), progress=stop, **order)
    assert run(["train", "care", *given, "--out", str(tmp_path / "b.safetensors"), *tiny, "--quiet", "--resume"]) == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def train_ensemble(out: Path, members: int, workers: int, **options: Any) -> Path:
    """Train on the pairs of ``low`` and ``high`` beside a model file, with one thread, and return the file."""
    with threads(1):
        train_images(
            [out.parent / "low"], out, settled(), members=members, workers=workers, targets=[out.parent / "high"],
            reading=Reading(), say=lambda line: None, **options,
        )  # fmt: skip
    return out


def test_networks_trained_at_the_same_time_are_those_trained_one_after_the_other(tmp_path: Path) -> None:
    folders(tmp_path, (0, 1))
    together = train_ensemble(tmp_path / "b.safetensors", 2, 2)
    assert together.read_bytes() == train_ensemble(tmp_path / "a.safetensors", 2, 1).read_bytes()
    assert len(load_model(together).channels[0].members) == 2


@pytest.mark.slow
def test_networks_trained_at_the_same_time_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    folders(tmp_path, (0, 1))
    told: list[float] = []

    def stop(event: Event) -> None:
        if event.stage == "train" and "networks" in event.values:
            told.append(event.done)
            if event.values["networks"] == "1/3":
                raise Cancelled

    with pytest.raises(Cancelled):
        train_ensemble(tmp_path / "b.safetensors", 3, 2, progress=stop)
    assert told[0] == 0
    assert 33 <= told[-1] < 100
    again = train_ensemble(tmp_path / "b.safetensors", 3, 2, resume=True)
    assert again.read_bytes() == train_ensemble(tmp_path / "a.safetensors", 3, 1).read_bytes()


def test_an_image_unlike_those_of_training_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optics = Optics(voxel_size=(1.0, 0.2, 0.2), surface="first")
    pairs = [[replace(stack, optics=optics) for stack in pair(seed)] for seed in (0, 1)]
    config = settled("train.steps=4")
    model, _ = learn([one for one, _ in pairs], config, targets=[other for _, other in pairs], folder=tmp_path)
    save_model(tmp_path / "m.safetensors", model)
    alike = replace(pair(7)[0], optics=optics)
    clean = np.asarray(pair(7)[1].array)
    coarse = replace(alike, optics=Optics(voxel_size=(1.0, 0.5, 0.5), surface="first"))
    noisy = replace(alike, array=np.random.default_rng(0).poisson(clean / 5000).astype(np.uint16))
    blank, bordered = (np.array(alike.array) + 1 for _ in range(2))
    blank[3], bordered[:, :, :30] = 0, 0
    for name, stack, words in (
        ("alike", alike, []),
        ("blank", replace(alike, array=blank), []),
        ("bordered", replace(alike, array=bordered), []),
        ("coarse", coarse, ["its pixel size in um is 0.5, 2.5 times the most"]),
        ("clean", replace(alike, array=clean), ["finest detail, as a share of its contrast, is", "of the least"]),
        ("noisy", noisy, ["finest detail, as a share of its contrast, is", "times the most"]),
    ):
        write_stack(tmp_path / f"{name}.ome.tif", stack)
        out = ["--out", str(tmp_path / f"{name}_out.tif")]
        assert run(["predict", str(tmp_path / "m.safetensors"), str(tmp_path / f"{name}.ome.tif"), *out]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
        assert len(told) == bool(words), told
        assert all(word in told[0] for word in words)

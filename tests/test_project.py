"""Surfaces in stacks: the network, what it is trained on, where its result lies, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.errors import InputError
from deepcontrast.flattened import flattened
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.predict_in_memory import predict_maps
from deepcontrast.learning import lessons
from deepcontrast.model import Channel, Model, load_model, save_model
from deepcontrast.nets.projection import projection
from deepcontrast.recipe import load_recipe
from deepcontrast.scale import shard_sizes
from deepcontrast.stack import Optics, Stack
from deepcontrast.tasks import project
from deepcontrast.training import initialise

from .conftest import TINY

SETTINGS = (*TINY, "task.surface_depth=2", "task.surface_features=4")


def sheet(planes: int = 9, side: tuple[int, int] = (64, 80), seed: int = 0) -> tuple[Stack, Stack, np.ndarray]:
    """Return a noisy stack with a tilted textured sheet in it, the sheet as a plane, and its height."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal(side), 2)
    texture = 100 * (1 + texture / np.abs(texture).max())
    height = np.linspace(2, planes - 3, side[1])[None, :] + np.zeros(side)
    z = np.arange(planes)[:, None, None]
    raw = rng.poisson(20 + texture * np.exp(-((z - height) ** 2))).astype(np.float32)
    optics = Optics(voxel_size=(0.8, 0.2, 0.2))
    return Stack(raw, "ZYX", optics, source="sheet"), Stack(texture.astype(np.float32), "YX", source="truth"), height


def untrained(*settings: str, channels: int = 1) -> Model:
    image, truth, _ = sheet()
    if channels > 1:
        image, truth = (
            replace(one, array=np.stack([one.array] * channels), axes="C" + one.axes) for one in (image, truth)
        )
    config = load_recipe("project", (*SETTINGS, *settings))
    image, truth = project.paired(image, truth, config)
    found = []
    for c, (_, fit) in enumerate(lessons([image.with_optics(surface="first")], config, targets=[truth])):
        net = project.build(fit, config)
        initialise(net, torch.Generator().manual_seed(c))
        found.append(Channel(str(c), *fit.encode(), (net.state_dict(),)))
    return Model("project", config, tuple(found), {})


# The network.


def test_the_network_has_as_many_weights_as_csbdeeps() -> None:
    for probabilistic, expected in ((False, 1_379_802), (True, 1_379_835)):
        net = projection(probabilistic=probabilistic)
        assert sum(weight.numel() for weight in net.parameters()) == expected


def test_its_tiles_overlap_as_csbdeeps_do() -> None:
    # NUMBERS: (0, 94, 94) at U-Net depth 3, in blocks of 16: as many blocks as ours.
    net = projection()
    assert net.step == 16
    assert -(-net.halo // 16) == -(-94 // 16)


def seeded_net(**form: Any) -> torch.nn.Module:
    net = projection(**{"depth": 1, "features": 4, "surface_depth": 2, "surface_features": 4, **form})
    initialise(net, torch.Generator().manual_seed(0))
    return net.eval()


@pytest.mark.parametrize("planes", [2, 3, 17])
def test_weights_of_a_column_sum_to_one_whatever_its_length(planes: int) -> None:
    net = seeded_net()
    x = torch.randn(2, 1, planes, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        weights = net.surface(x)
        assert net(x).shape == (2, 1, 32, 48)
    assert weights.shape == x.shape
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 1, 32, 48))
    assert weights.min() >= 0


def test_the_network_looks_no_farther_than_it_says() -> None:
    net = seeded_net(surface_depth=3)
    step, halo = net.step, net.halo
    side = 2 * halo // step * step + 5 * step
    x = torch.randn(1, 1, 4, step, side, generator=torch.Generator().manual_seed(1), requires_grad=True)
    at = side // 2 // step * step
    net(x)[..., at : at + step].abs().sum().backward()
    used = torch.nonzero(x.grad.abs().sum((0, 1, 2, 3))).flatten()
    assert at - halo <= int(used.min()) < at - halo + step
    assert int(used.max()) <= at + step - 1 + halo


def test_without_a_unet_it_is_the_weighted_sum_of_the_column() -> None:
    net = seeded_net()
    for weight in net.plane.parameters():
        weight.data.zero_()
    x = torch.rand(1, 1, 5, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(net(x), (x * net.surface(x)).sum(2))


# What it is trained on.


def test_a_stack_lies_on_its_target_as_its_maximum() -> None:
    image, truth, _ = sheet()
    config = load_recipe("project", SETTINGS)
    flat, same = project.paired(image, truth, config)
    assert flat.axes == same.axes == "YX"
    np.testing.assert_array_equal(np.asarray(flat.array), image.array.max(0))
    np.testing.assert_array_equal(np.asarray(flat.array[3:9, 5:7]), image.array.max(0)[3:9, 5:7])
    assert flat.optics.voxel_size == (None, 0.2, 0.2)


def test_where_targets_are_stacks_a_projection_makes_planes_of_them() -> None:
    image, truth, height = sheet()
    z = np.arange(9)[:, None, None]
    clean = replace(image, array=(truth.array * np.exp(-((z - height) ** 2))).astype(np.float32))
    _, made = project.paired(image, clean, load_recipe("project", (*SETTINGS, "task.truth=smooth_manifold")))
    assert made.axes == "YX"
    assert np.corrcoef(np.asarray(made.array).ravel(), truth.array.ravel())[0, 1] > 0.9
    with pytest.raises(InputError, match="maximum"):
        project.paired(image, clean, load_recipe("project", (*SETTINGS, "task.truth=maximun")))


def test_patches_are_columns_with_their_target() -> None:
    image, truth, _ = sheet()
    short = replace(image, array=image.array[:6])
    config = load_recipe("project", (*SETTINGS, "train.augment=false", "task.per_image=false"))
    pairs = [project.paired(one, truth, config) for one in (image, short)]
    [(sources, fit)] = lessons(
        [one.with_optics(surface="first") for one, _ in pairs], config, targets=[t for _, t in pairs]
    )
    assert fit.planes == 9
    bank = project.prepare(sources, fit, config, seed=0, round=0)
    x, y, weight = project.sample(bank.validation, bank.validation_depth, fit, torch.Generator(), config)
    assert x.shape[1:] == (1, 9, fit.patch, fit.patch)
    assert y.shape[1:] == (1, fit.patch, fit.patch)
    assert weight is None
    places = [(stack, row, column) for stack, row, column in fit.held_out]
    assert len(places) == len(x) == 2
    for (stack, row, column), columns, target in zip(places, x, y, strict=True):
        box = slice(row, row + fit.patch), slice(column, column + fit.patch)
        volume = (image, short)[stack].array[:, *box]
        np.testing.assert_allclose(fit.norm.invert(columns[0].numpy())[: len(volume)], volume, rtol=1e-4)
        np.testing.assert_allclose(fit.target.invert(target[0].numpy()), truth.array[box], rtol=1e-4)
        # A stack of fewer planes shows its last one again.
        assert stack == 0 or all(torch.equal(columns[0, z], columns[0, 5]) for z in (6, 7, 8))


def test_no_training_patch_touches_what_is_held_out() -> None:
    image, truth, _ = sheet()
    config = load_recipe("project", SETTINGS)
    flat, truth = project.paired(image, truth, config)
    marked = truth.array.copy()
    [(sources, fit)] = lessons([flat.with_optics(surface="first")], config, targets=[truth])
    [(_, row, column)] = fit.held_out
    marked[row : row + fit.patch, column : column + fit.patch] = 1e6
    sources = [replace(sources[0], target=replace(truth, array=marked))]
    bank = project.prepare(sources, replace(fit, per_image=False), config, seed=0, round=0)
    from deepcontrast.patches import draw

    images, _ = draw(bank, 200, fit.patch, torch.Generator().manual_seed(0), augment=True)
    assert images["columns"].max() < 1e3 < bank.validation["columns"].max()


# Where its result lies.


@pytest.mark.parametrize("loss", ["mae", "laplace"])
def test_tiled_equals_whole(loss: str) -> None:
    model = untrained(f"train.loss={loss}")
    stack, _, _ = sheet(planes=7, side=(64, 80), seed=3)
    uncertainty = loss == "laplace"
    whole = predict_maps([model], stack, uncertainty=uncertainty)
    small = model.config.model_copy(update={"predict": model.config.predict.model_copy(update={"tile_voxels": 2**14})})
    tiled = predict_maps([replace(model, config=small)], stack, uncertainty=uncertainty)
    assert {"mean", "height", "height_spread"} <= set(whole)
    assert ("scale" in whole) == uncertainty
    for name, one in whole.items():
        assert one.axes == "YX"
        assert one.shape == (64, 80)
        np.testing.assert_allclose(
            np.asarray(tiled[name].array), one.array, rtol=1e-4, atol=1e-4 * np.ptp(one.array) + 1e-5
        )


def test_height_and_spread_are_those_of_the_weights() -> None:
    model = untrained("task.surface_depth=1")
    fit = project.Fit.decode(model.channels[0].fit, {})
    net = project.build(fit, model.config)
    net.load_state_dict(dict(model.channels[0].members[0]))
    tile = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 100
    with torch.no_grad():
        found = project.restore(net, tile, fit, model.config)
        weights = net.surface(fit.norm(tile).permute(1, 0, 2, 3)[None])[0, 0].numpy().astype(np.float64)
    for y, x in np.ndindex(16, 16):
        column = weights[:, y, x]
        z = np.arange(6)
        near = np.abs(z - column.argmax()) <= 2
        height = np.average(z[near], weights=column[near])
        assert found["height"][0, y, x] == pytest.approx(height, rel=1e-4)
        spread = np.sqrt(np.average((z - height) ** 2, weights=column))
        assert found["height_spread"][0, y, x] == pytest.approx(spread, rel=1e-3)


def test_a_movie_goes_frame_by_frame_with_its_height_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.stack([np.stack([sheet(seed=seed)[0].array] * 2) for seed in range(3)]).astype(np.uint16)
    stack = Stack(frames, "TCZYX", Optics(voxel_size=(0.8, 0.2, 0.2)))
    model = untrained(channels=2)
    save_model(tmp_path / "m.safetensors", model)
    write_stack(tmp_path / "movie.ome.zarr", stack)
    monkeypatch.setattr(shard_sizes, "FINEST", (1, 32, 32))
    monkeypatch.setattr(shard_sizes, "SHARD", 2**11)
    out = tmp_path / "flat.ome.zarr"
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "movie.ome.zarr"), "--out", str(out)]
    assert run([*command, "--dtype", "float32"]) == 0
    expected = predict_maps([model], stack)
    for name, path in (("mean", out), ("height", tmp_path / "flat.height.ome.zarr")):
        found = open_stack(path)
        assert found.axes == "TCYX"
        np.testing.assert_allclose(np.asarray(found.array), expected[name].array, rtol=1e-4, atol=2e-3)


def test_training_finds_the_sheet(tmp_path: Path) -> None:
    for folder in ("low", "high"):
        (tmp_path / folder).mkdir()
    for seed in range(2):
        image, truth, _ = sheet(seed=seed)
        write_stack(tmp_path / "low" / f"{seed}.tif", image)
        write_stack(tmp_path / "high" / f"{seed}.tif", truth)
    test, truth, _ = sheet(seed=9)
    write_stack(tmp_path / "test.tif", test)
    settings = [f"--set={one}" for one in (*SETTINGS, "train.steps=150", "train.learning_rate=0.01")]
    command = ["train", "project", "--input", str(tmp_path / "low"), "--target", str(tmp_path / "high")]
    model, out = tmp_path / "m.safetensors", tmp_path / "flat.tif"
    assert run([*command, "--out", str(model), *settings]) == 0
    assert run(["predict", str(model), str(tmp_path / "test.tif"), "--out", str(out), "--dtype", "float32"]) == 0
    found = open_stack(out)
    assert found.axes == "YX"
    one, other = (
        np.corrcoef(np.asarray(image).ravel(), truth.array.ravel())[0, 1] for image in (found.array, test.array.max(0))
    )
    assert one > other
    height = np.asarray(open_stack(tmp_path / "flat.height.tif").array)
    assert 0 <= height.min() < height.max() <= 8


def test_grey_levels_are_those_of_targets_for_the_light_of_the_stack() -> None:
    image, _, _ = sheet()
    model = untrained()
    plain = dc.Restorer(model).predict(image).volume()
    brighter = replace(image, array=3 * image.array + 50)
    np.testing.assert_allclose(dc.Restorer(model).predict(brighter).volume(), 3 * plain + 50, rtol=1e-3)
    np.testing.assert_allclose(dc.Restorer(model).predict(image, norm="stored").volume(), plain, rtol=1e-3)


def test_registration_keeps_the_columns(tmp_path: Path) -> None:
    image, truth, _ = sheet()
    write_stack(tmp_path / "a.tif", image)
    write_stack(tmp_path / "b.tif", replace(truth, array=np.roll(truth.array, (3, -2), (0, 1))))
    command = [
        "train",
        "project",
        "--input",
        str(tmp_path / "a.tif"),
        "--target",
        str(tmp_path / "b.tif"),
        "--register",
    ]
    model = tmp_path / "m.safetensors"
    assert run([*command, "--register", "--out", str(model), *(f"--set={one}" for one in SETTINGS)]) == 0
    assert load_model(model).channels[0].fit["planes"] == 9


def test_planes_farther_apart_than_in_training_are_told_of(tmp_path: Path, capsys: Any) -> None:
    image, _, _ = sheet()
    save_model(tmp_path / "m.safetensors", untrained())
    write_stack(tmp_path / "coarse.tif", image.with_optics(voxel_size=(1.6, 0.2, 0.2)))
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "coarse.tif")]
    assert run([*command, "--out", str(tmp_path / "flat.tif")]) == 0
    assert "its planes are 1.6 um apart, those of training 0.8 um" in "".join(capsys.readouterr())


# What is refused.


def test_a_target_of_another_shape_is_refused_in_one_line(tmp_path: Path, capsys: Any) -> None:
    image, truth, _ = sheet()
    write_stack(tmp_path / "a.tif", image)
    write_stack(tmp_path / "b.tif", replace(truth, array=truth.array[:-4]))
    command = ["train", "project", "--input", str(tmp_path / "a.tif"), "--target", str(tmp_path / "b.tif")]
    assert run([*command, "--out", str(tmp_path / "m.safetensors")]) == 2
    said = capsys.readouterr().err.strip()
    assert "(60, 80)" in said
    assert "\n" not in said


def test_a_plane_and_a_second_pass_are_refused() -> None:
    image, truth, _ = sheet()
    model = untrained()
    with pytest.raises(InputError, match="one plane"):
        dc.train(truth, "project", targets=truth)
    with pytest.raises(InputError, match="one plane"):
        dc.Restorer(model).predict(truth)
    with pytest.raises(InputError, match="made once"):
        dc.Restorer(model).predict(image, iterations=2)
    with pytest.raises(InputError, match="one plane"):
        flattened(truth)

"""Isotropic stacks from anisotropic ones: what the network is shown, where its result lies, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.degrade.undersample import undersample
from deepcontrast.errors import InputError, InputNotFoundError
from deepcontrast.io import open_stack, read_attributes, write_stack
from deepcontrast.learning import lessons
from deepcontrast.metrics.isotropy import isotropy
from deepcontrast.model import Channel, Model, save_model
from deepcontrast.recipe import load_recipe
from deepcontrast.scale import shard_sizes
from deepcontrast.spectral_match import matching
from deepcontrast.stack import Optics, Stack
from deepcontrast.tasks import isotropic
from deepcontrast.training import initialise
from deepcontrast.views import Viewed, seen, seen_back

from .conftest import TINY


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.2, mode="wrap")
    return (200 + 100 * noise / noise.std()).astype(np.float32)


def anisotropic(factor: float = 4.3, planes: int = 8, side: tuple[int, int] = (56, 64), seed: int = 0) -> Stack:
    volume = texture((planes, *side), seed)
    return Stack(volume, "ZYX", Optics(voxel_size=(0.2 * factor, 0.2, 0.2)), source="coarse")


def untrained(stack: Stack, *settings: str) -> Model:
    """Return a model of random weights, fitted to a stack."""
    config = load_recipe("isotropic", (*TINY, *settings))
    channels = []
    members: tuple[Any, ...] = ()
    for c, (_, fit) in enumerate(lessons([stack.with_optics(surface="first")], config)):
        if not members or not config.task["joint"]:
            net = isotropic.build(fit, config)
            initialise(net, seeded(c))
            members = (net.state_dict(),)
        channels.append(Channel(str(c), *fit.encode(), members))
    return Model("isotropic", config, tuple(channels), {})


# What the network is shown.


def test_planes_at_every_pixel_without_blur_are_the_image() -> None:
    image = torch.from_numpy(texture((2, 24, 32)))
    made = undersample(image, Optics(), generator=seeded(), factor=1.0, phase=torch.zeros(2))
    torch.testing.assert_close(made, image, rtol=0, atol=1e-3)


@pytest.mark.parametrize("factor", [1.7, 4.3, 10.2])
def test_a_ramp_along_the_axis_stays_one_at_any_phase(factor: float) -> None:
    ramp = torch.arange(96.0).view(1, 96, 1).expand(8, 96, 5)
    made = undersample(ramp, Optics(), generator=seeded(), factor=factor)
    inside = slice(int(factor) + 3, 96 - int(factor) - 3)
    torch.testing.assert_close(made[:, inside], ramp[:, inside], rtol=0, atol=1e-3)


def test_blur_and_planes_are_those_of_an_independent_computation() -> None:
    image = texture((64, 12))
    kernel = np.exp(-(np.arange(-6, 7) ** 2) / 8)
    kernel /= kernel.sum()
    made = undersample(
        torch.from_numpy(image), Optics(), generator=seeded(), kernel=tuple((float(k),) for k in kernel),
        factor=4.0, phase=torch.tensor(2.0),
    ).numpy()  # fmt: skip
    blurred = ndimage.convolve1d(image, kernel, axis=0, mode="mirror")
    at = np.arange(2, 64, 4)
    expected = [np.interp(np.arange(64), at, column) for column in blurred[at].T]
    np.testing.assert_allclose(made[2:62], np.transpose(expected)[2:62], rtol=1e-4)


def test_planes_have_as_much_noise_as_the_stack() -> None:
    rng, gain, zero = np.random.default_rng(0), 2.0, 100.0
    flat = 100 + gain * rng.poisson(50, (64, 64, 64)).astype(np.float32)
    kernel = ((0.25,), (0.5,), (0.25,))
    made = undersample(
        torch.from_numpy(flat), Optics(gain=gain, offset=zero), generator=seeded(), kernel=kernel, factor=4.0,
        phase=torch.zeros(64),
    )  # fmt: skip
    planes = made[:, ::4].numpy()
    assert planes.var() == pytest.approx(gain**2 * 50, rel=0.05)
    assert planes.mean() == pytest.approx(200, rel=0.01)


def test_every_channel_of_a_patch_lies_on_the_same_planes() -> None:
    volumes = np.stack([texture((8, 64, 64))] * 2)
    stack = Stack(volumes, "CZYX", Optics(voxel_size=(1.0, 0.2, 0.2))).with_optics(surface="first")
    config = load_recipe("isotropic", (*TINY, "task.joint=true", "task.noise=false"))
    sources, fit = lessons([stack], config)[0]
    bank = isotropic.prepare(sources, fit, config, seed=0, round=0)
    x, y, _ = isotropic.sample(bank.validation, bank.validation_depth, fit, seeded(), config)
    assert x.shape == y.shape == (len(bank.validation_depth), 2, fit.patch, fit.patch)
    torch.testing.assert_close(x[:, 0], x[:, 1])
    torch.testing.assert_close(y[:, 0], y[:, 1])


# Where the result lies.


@pytest.mark.parametrize("view", list(itertools.permutations(range(3))))
def test_a_view_is_a_transposed_volume(view: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).random((2, 3, 4, 5))
    turned = Viewed(volume[0], view)
    assert turned.shape == volume[0].transpose(view).shape
    box = (slice(0, 2), slice(1, 3), slice(1, 2))
    np.testing.assert_array_equal(turned[box], volume[0].transpose(view)[box])
    assert seen_back(seen("zyx", view), view) == ("z", "y", "x")


class _Channels:
    """Two volumes, sliced together."""

    shape = (3, 4, 5)

    def __init__(self, volumes: np.ndarray) -> None:
        self.volumes = volumes

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.volumes[:, *key]


def test_a_view_of_several_channels_keeps_them_first() -> None:
    volumes = np.random.default_rng(0).random((2, 3, 4, 5))
    found = Viewed(_Channels(volumes), (2, 0, 1))[slice(0, 5), slice(0, 2), slice(1, 4)]
    np.testing.assert_array_equal(found, volumes.transpose(0, 3, 1, 2)[:, :, 0:2, 1:4])


def without_effect(model: Model) -> Model:
    """Return the model whose network adds nothing: what is left is interpolation."""
    channels = [
        replace(one, members=tuple({k: torch.zeros_like(v) for k, v in m.items()} for m in one.members))
        for one in model.channels
    ]
    return replace(model, channels=tuple(channels))


@pytest.mark.parametrize("factor", [4.3, 10.2])
@pytest.mark.parametrize("combine", ["arithmetic", "geometric"])
def test_a_network_that_adds_nothing_leaves_the_interpolated_stack(factor: float, combine: str) -> None:
    stack = anisotropic(factor)
    model = without_effect(untrained(stack, f"task.combine={combine}", "task.norm=percentile", "task.low=0"))
    found = dc.Restorer(model).predict(stack, norm="stored")
    planes = round(8 * factor)
    at = np.clip((np.arange(planes) - (planes - 1) / 2) / factor + 3.5, 0, 7)
    places = np.meshgrid(at, np.arange(56), np.arange(64), indexing="ij")
    expected = ndimage.map_coordinates(stack.volume(), places, order=1)
    np.testing.assert_allclose(found.volume(), expected, rtol=1e-4, atol=0.1)
    assert found.optics.voxel_size == pytest.approx((0.2, 0.2, 0.2))


def test_a_symmetric_stack_stays_symmetric() -> None:
    half = texture((4, 16, 16))
    volume = np.concatenate([half, half[::-1]])
    volume = np.concatenate([volume, volume[:, ::-1]], 1)
    volume = np.concatenate([volume, volume[:, :, ::-1]], 2)
    stack = Stack(volume, "ZYX", Optics(voxel_size=(0.8, 0.2, 0.2)))
    big = anisotropic(4.0)
    found = dc.Restorer(untrained(big, "predict.orientations=4")).predict(stack, norm="stored").volume()
    assert found.shape == (32, 32, 32)
    assert np.abs(found - ndimage.zoom(volume, (4, 1, 1), order=1)).max() > 1, "the network does something"
    for axis in range(3):
        np.testing.assert_allclose(found, np.flip(found, axis), atol=2e-3)


@pytest.mark.parametrize("factor", [4.3, 10.2])
def test_tiled_equals_whole(factor: float) -> None:
    stack = anisotropic(factor, planes=7)
    model = untrained(stack)
    whole = dc.Restorer(model).predict(stack).volume()
    small = model.config.model_copy(update={"predict": model.config.predict.model_copy(update={"tile_voxels": 1024})})
    tiled = dc.Restorer(replace(model, config=small)).predict(stack).volume()
    assert whole.shape == (round(7 * factor), 56, 64)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5 * np.ptp(whole))


def test_shards_equal_what_memory_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A two-channel movie from zarr to zarr, shard by shard, restored jointly."""
    frames = np.stack([texture((2, 6, 40, 56), seed) for seed in range(2)])
    stack = Stack(frames, "TCZYX", Optics(voxel_size=(1.0, 0.25, 0.25)), channels=("a", "b"))
    model = untrained(stack, "task.joint=true")
    save_model(tmp_path / "m.safetensors", model)
    write_stack(tmp_path / "movie.ome.zarr", stack)
    monkeypatch.setattr(shard_sizes, "FINEST", (16, 16, 32))
    monkeypatch.setattr(shard_sizes, "SHARD", 2**13)
    out = tmp_path / "out.ome.zarr"
    assert run(["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "movie.ome.zarr"), "--out", str(out)]) == 0
    found = open_stack(out)
    expected = dc.Restorer(model).predict(stack)
    assert found.shape == expected.shape == (2, 2, 24, 40, 56)
    np.testing.assert_allclose(np.asarray(found.array), expected.array, rtol=1e-5, atol=2e-3)
    assert found.optics.voxel_size == pytest.approx((0.25, 0.25, 0.25))


def test_the_geometric_mean_is_of_what_lies_above_the_norm() -> None:
    stack = anisotropic(4.0)
    settings = ("task.norm=percentile", "task.low=0", "task.high=100")
    views = []
    model = untrained(stack, *settings)
    for one in isotropic.VIEWS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(isotropic, "VIEWS", (one,))
            views.append(dc.Restorer(model).predict(stack, norm="stored").volume().astype(np.float64))
    zero = isotropic.Fit.decode(model.channels[0].fit, {}).norm.offset
    assert np.abs(views[0] - views[1]).max() > 1
    for combine, expected in (
        ("arithmetic", (views[0] + views[1]) / 2),
        ("geometric", zero + np.sqrt(np.maximum(views[0] - zero, 0) * np.maximum(views[1] - zero, 0))),
    ):
        config = model.config.model_copy(update={"task": {**model.config.task, "combine": combine}})
        found = dc.Restorer(replace(model, config=config)).predict(stack, norm="stored").volume()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.02)


def test_a_fit_is_kept_with_the_model() -> None:
    stack = Stack(texture((2, 8, 48, 64)), "CZYX", Optics(voxel_size=(1.0, 0.2, 0.2))).with_optics(surface="first")
    for _, fit in lessons([stack], load_recipe("isotropic", (*TINY, "task.joint=true"))):
        assert isotropic.Fit.decode(*fit.encode()) == fit


def test_training_lowers_the_error_and_says_where_the_planes_are(tmp_path: Path, capsys: Any) -> None:
    fine = texture((48, 48, 64))
    fine = ndimage.gaussian_filter1d(fine, 1.5, axis=0)[2::4]
    write_stack(tmp_path / "coarse.tif", Stack(fine, "ZYX", Optics(voxel_size=(0.8, 0.2, 0.2))))
    model, out = tmp_path / "m.safetensors", tmp_path / "out.tif"
    settings = [f"--set={one}" for one in (*TINY, "train.steps=40", "train.learning_rate=0.003")]
    assert run(["train", "isotropic", "--input", str(tmp_path / "coarse.tif"), "--out", str(model), *settings]) == 0
    said = "".join(capsys.readouterr())
    assert "planes are 4 pixels apart" in said
    assert "estimated from the spectra" in said
    assert run(["predict", str(model), str(tmp_path / "coarse.tif"), "--out", str(out)]) == 0
    assert open_stack(out).shape == (48, 48, 64)
    assert "surface" not in said
    assert json.loads(str(read_attributes(out)["origin_um"]))["z"] == pytest.approx(-0.3)
    assert run(["info", str(model)]) == 0
    assert "planes 4 pixels apart" in capsys.readouterr().out


# What is refused.


@pytest.mark.parametrize(
    ("voxel", "settings", "words"),
    [
        ((None, None, None), (), "how far apart"),
        ((0.1, 0.2, 0.2), (), "1 or more times"),
        ((1.0, 0.2, 0.2), ("task.psf=widefield",), "na, wavelength_nm, index"),
        ((1.0, 0.2, 0.2), ("task.psf=nowhere.tif",), "nowhere.tif"),
        ((1.0, 0.2, 0.2), ("train.loss=laplace",), "no uncertainty"),
        ((1.0, 0.2, 0.2), ("predict.orientations=8",), "quarter"),
        ((1.0, 0.2, 0.2), ("net.context=1",), "net.context = 0"),
        ((1.0, 0.2, 0.2), ("task.factor=3",), "say 5"),
    ],
)
def test_what_cannot_be_learned_is_refused(voxel: Any, settings: tuple[str, ...], words: str) -> None:
    stack = replace(anisotropic(), optics=Optics(voxel_size=voxel))
    settings = tuple(dict.fromkeys((*TINY, *settings)))
    with pytest.raises((InputError, InputNotFoundError), match=words):
        dc.train(stack, "isotropic", settings=_as_mapping(settings))


def _as_mapping(settings: tuple[str, ...]) -> dict[str, Any]:
    import tomllib

    found = {}
    for one in settings:
        key, _, value = one.partition("=")
        try:
            found[key] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


@pytest.mark.parametrize(
    ("psf", "words"),
    [("nan", "NaN"), ("coarse", "as fine or finer"), ("unknown", "psf_voxel"), ("flat", "no wider along the axis")],
)
def test_a_psf_that_does_not_suit_the_stack_is_refused_in_one_line(
    psf: str, words: str, tmp_path: Path, capsys: Any
) -> None:
    spot = ndimage.gaussian_filter(np.pad(np.ones((1, 1, 1)), 7), (3, 1, 1)).astype(np.float32)
    optics = Optics(voxel_size=(0.2, 0.2, 0.2))
    if psf == "nan":
        spot[0] = np.nan
    if psf == "flat":
        spot = spot.transpose(1, 0, 2)
    if psf == "coarse":
        optics = Optics(voxel_size=(0.5, 0.5, 0.5))
    if psf == "unknown":
        tifffile.imwrite(tmp_path / "psf.tif", spot, photometric="minisblack")
    else:
        write_stack(tmp_path / "psf.tif", Stack(spot, "ZYX", optics))
    write_stack(tmp_path / "coarse.tif", anisotropic())
    settings = [f"--set={one}" for one in TINY]
    command = ["train", "isotropic", "--input", str(tmp_path / "coarse.tif"), "--out", str(tmp_path / "m.safetensors")]
    assert run([*command, "--psf", str(tmp_path / "psf.tif"), *settings]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def test_a_single_plane_is_refused(tmp_path: Path) -> None:
    plane = replace(anisotropic(), array=texture((1, 56, 64)))
    with pytest.raises(InputError, match="one plane"):
        dc.train(plane, "isotropic", settings=_as_mapping(TINY))
    model = untrained(anisotropic())
    with pytest.raises(InputError, match="one plane"):
        dc.Restorer(model).predict(plane)


def test_enhance_says_what_isotropic_is_for() -> None:
    with pytest.raises(InputError, match="train isotropic"):
        dc.enhance(anisotropic(), "isotropic")


# What is set right after training.


def weak(seed: int = 0, sigma: float = 1.0) -> np.ndarray:
    return ndimage.gaussian_filter1d(texture((72, 80, 96), seed), sigma, axis=0)


def test_matched_spectra_are_isotropic() -> None:
    kernel = matching(weak())
    assert sum(kernel) == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-12)
    # Another texture that is blurred alike: its power along z is that of before the blur.
    made = ndimage.convolve1d(weak(1), kernel, axis=0, mode="mirror")
    band = (0.05, 0.2)
    [before], [after], [truth] = (
        isotropy(one, band=band, half_angle=20.0) for one in (weak(1), made, texture((72, 80, 96), 1))
    )
    assert before.value < 0.65
    assert after.value == pytest.approx(truth.value, rel=0.1)


def test_what_is_isotropic_is_left_alone_and_what_is_small_too() -> None:
    kernel = np.array(matching(texture((72, 80, 96))))
    frequencies = np.abs(np.fft.fft(np.fft.ifftshift(kernel)))
    np.testing.assert_allclose(frequencies[:6], 1, atol=0.1)
    assert matching(np.zeros((20, 80, 80), np.float32)) == (1.0,)


def test_no_amplitude_grows_without_limit() -> None:
    flat = ndimage.gaussian_filter1d(texture((72, 80, 96)), 6, axis=0)
    gain = np.abs(np.fft.fft(np.fft.ifftshift(np.array(matching(flat)))))
    assert gain.max() <= 3.1


def test_tiles_of_a_matched_model_equal_the_whole() -> None:
    stack = anisotropic(4.3, planes=12)
    model = untrained(stack, "task.match=full")
    kernel = matching(weak())
    channels = [replace(one, fit={**one.fit, "match": kernel}) for one in model.channels]
    whole = dc.Restorer(replace(model, channels=tuple(channels))).predict(stack).volume()
    small = model.config.model_copy(update={"predict": model.config.predict.model_copy(update={"tile_voxels": 2048})})
    tiled = dc.Restorer(replace(model, channels=tuple(channels), config=small)).predict(stack).volume()
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5 * np.ptp(whole))
    plain = dc.Restorer(model).predict(stack).volume()
    inside = slice(16, -16)
    expected = ndimage.convolve1d(plain, kernel, axis=0)[inside]
    np.testing.assert_allclose(whole[inside], expected, rtol=1e-4, atol=1e-4 * np.ptp(plain))


def test_a_matched_model_is_applied_in_reduced_precision_too() -> None:
    stack = anisotropic(4.0, planes=10)
    model = untrained(stack, "predict.precision=bfloat16")
    channels = tuple(replace(one, fit={**one.fit, "match": matching(weak())}) for one in model.channels)
    found = dc.Restorer(replace(model, channels=channels)).predict(stack).volume()
    exact = untrained(stack)
    exact = replace(exact, channels=channels)
    np.testing.assert_allclose(found, dc.Restorer(exact).predict(stack).volume(), atol=0.05 * np.ptp(found))


def test_stacks_of_other_brightness_are_shown_alike() -> None:
    stack = anisotropic(4.0)
    dim = replace(stack, array=0.1 * stack.array + 5)
    config = load_recipe("isotropic", (*TINY, "task.noise=false"))
    [(sources, fit)] = lessons([one.with_optics(surface="first") for one in (stack, dim)], config)
    bank = isotropic.prepare(sources, fit, config, seed=0, round=0)
    first, second = (bank.images["image0"][: stack.array.size], bank.images["image0"][stack.array.size :])
    torch.testing.assert_close(first, second, rtol=1e-3, atol=0.1)


def test_a_second_pass_and_other_planes_are_told_of(tmp_path: Path, capsys: Any) -> None:
    stack = anisotropic(4.0)
    model = untrained(stack)
    with pytest.raises(InputError, match="made once"):
        dc.Restorer(model).predict(stack, iterations=2)
    save_model(tmp_path / "m.safetensors", model)
    other = Stack(stack.array.astype(np.uint16), "ZYX", Optics(voxel_size=(2.0, 0.2, 0.2)))
    write_stack(tmp_path / "other.tif", other)
    out = tmp_path / "out.tif"
    assert run(["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "other.tif"), "--out", str(out)]) == 0
    assert "its planes are 10 pixels apart, those of training 4" in "".join(capsys.readouterr())
    assert open_stack(out).dtype == np.uint16


def test_sections_as_sharp_as_planes_are_told_of() -> None:
    # Structures that are flat along z: of a fine texture every fourth plane.
    stack = Stack(texture((160, 56, 64))[::4], "ZYX", Optics(voxel_size=(0.8, 0.2, 0.2)))
    said: list[str] = []
    config = load_recipe("isotropic", (*TINY, "task.noise=false"))
    lessons(
        [stack.with_optics(surface="first")], config,
        progress=lambda event: said.append(str(event.values.get("message", ""))),
    )  # fmt: skip
    assert any("shows what is not there" in line for line in said)


def test_bounds_of_matched_spectra_leave_no_halos() -> None:
    sections = torch.from_numpy(texture((2, 40, 24)))
    made = isotropic._convolved(sections, matching(weak()))
    found = isotropic._bounded(made, sections).numpy()
    low, high = (f(sections.numpy(), (1, 5, 1)) for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    np.testing.assert_allclose(found, np.clip(made.numpy(), low, high), rtol=1e-6)
    assert np.abs(found - made.numpy()).max() > 1


def test_tiles_of_a_bounded_model_equal_the_whole() -> None:
    stack = anisotropic(4.3, planes=12)
    model = untrained(stack)
    channels = tuple(replace(one, fit={**one.fit, "match": matching(weak())}) for one in model.channels)
    whole = dc.Restorer(replace(model, channels=channels)).predict(stack).volume()
    small = model.config.model_copy(update={"predict": model.config.predict.model_copy(update={"tile_voxels": 2048})})
    tiled = dc.Restorer(replace(model, channels=channels, config=small)).predict(stack).volume()
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5 * np.ptp(whole))

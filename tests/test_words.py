"""Axes, settings, depths, and the grey levels that are written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepcontrast.config import recipes
from deepcontrast.depth import depth_unit, depths, find_surface, structure_radius
from deepcontrast.errors import DeepContrastError, InputError, InputNotFoundError, OutputError
from deepcontrast.normalize import Norm
from deepcontrast.outputs import to_dtype
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import AXES, Optics, Stack, parse_axes


@given(st.text(alphabet="TCZYXQ", max_size=6), st.integers(0, 6))
def test_axes_are_accepted_only_in_order_and_number(axes: str, ndim: int) -> None:
    right = (
        len(axes) == ndim
        and len(set(axes)) == len(axes)
        and axes == "".join(a for a in AXES if a in axes)
        and axes.endswith("YX")
    )
    if right:
        assert parse_axes(axes, ndim) == axes
    else:
        with pytest.raises(InputError, match="accepted"):
            parse_axes(axes, ndim)


def test_volume_of_every_time_point_and_channel() -> None:
    array = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    stack = Stack(array, "TCZYX")
    np.testing.assert_array_equal(stack.volume(1, 2), array[1, 2])
    np.testing.assert_array_equal(Stack(array[0, 0, 0], "YX").volume(), array[0, 0, :1])
    assert Stack(array[0, 0], "ZYX").size("C") == 1


def test_settings_are_laid_over_the_recipe_and_flags_over_them() -> None:
    config = load_recipe("contrast", ["train.steps=7", "net.bias=true", "task.sigma=3.5"], train__seed=4)
    assert (config.train.steps, config.net.bias, config.task["sigma"], config.train.seed) == (7, True, 3.5, 4)
    assert load_recipe("contrast", ["train.seed=1"], train__seed=9).train.seed == 9
    assert load_recipe("contrast", [], train__seed=None).train.seed == 0


def test_settings_by_key_are_checked_like_those_by_text() -> None:
    assert load_recipe("contrast", {"train.steps": 7, "task.offset": 90.0}).train.steps == 7
    for key in ("net.depth.x", "train.step", "recipe"):
        with pytest.raises(InputError, match=f"unknown setting '{key}'"):
            load_recipe("contrast", {key: 1})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.step=5", "did you mean 'train.steps'"),
        ("train.steps=zero", "train.steps"),
        ("train.schedule=linear", "train.schedule"),
        ("task.alpha_deep=2", "alpha_deep"),
        ("train.steps", "key=value"),
        ("net.kernel=4", "net.kernel.*odd"),
        ("task.offset=nan", "task.offset.*finite"),
        ("train.learning_rate=inf", "train.learning_rate.*finite"),
        ("net.depth.x=1", "did you mean 'net.depth'"),
    ],
)
def test_wrong_settings_name_the_right_ones(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("contrast", [setting])


CARE = (
    "care",
    *(f"care-{name}" for name in ("hela", "ins1-granules", "ins1-tubules", "planaria", "retina", "tribolium")),
)


def test_a_recipe_file_is_checked_like_the_package_own(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "mine.toml").write_text("[train]\nsteps = 5\n")
    assert load_recipe(str(folder / "mine.toml")).recipe == "mine"
    (folder / "wrong.toml").write_text("[train]\nstps = 5\n")
    with pytest.raises(InputError, match=r"did you mean 'train.steps'"):
        load_recipe(str(folder / "wrong.toml"))
    (folder / "broken.toml").write_text("[train\n")
    with pytest.raises(InputError, match="not TOML"):
        load_recipe(str(folder / "broken.toml"))
    for text, name in (("task = 3", "task"), ("net = 5", "net"), ("train = [1]", "train")):
        (folder / "flat.toml").write_text(text)
        with pytest.raises(InputError, match=f"'{name}' must be a table"):
            load_recipe(str(folder / "flat.toml"))
    with pytest.raises(InputNotFoundError):
        load_recipe(str(folder / "missing.toml"))
    assert set(recipes()) == {
        "aberration",
        "best",
        "cardiomyocytes",
        "contrast",
        "contrast-paper",
        "fast",
        "granules",
        "hela",
        "ins1-granules",
        "ins1-tubules",
        "isotropic",
        "mitochondria",
        "project",
        "project-flywing",
        "semi-synthetic",
        "tubules",
        "upsampling",
        *CARE,
    }


def test_the_sizes_of_the_recipe_differ_in_network_and_training_only() -> None:
    one = load_recipe("contrast").model_dump()

    def differs(name: str) -> set[str]:
        other = load_recipe(name).model_dump()
        tables = ("net", "train", "task", "predict")
        return {f"{t}.{key}" for t in tables for key in one[t] if one[t][key] != other[t][key]}

    assert differs("fast") == {"train.steps", "predict.orientations"}
    assert differs("best") == {
        "net.context", "net.dims", "train.steps", "train.learning_rate", "predict.orientations",
    }  # fmt: skip


def test_errors_are_the_builtins_they_resemble() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(InputNotFoundError, FileNotFoundError)
    assert issubclass(OutputError, OSError)
    assert issubclass(InputError, DeepContrastError)


def test_norm_is_undone() -> None:
    norm = Norm(offset=100.0, scale=4.0)
    assert norm(108.0) == 2.0
    assert norm.invert(norm(37.0)) == 37.0


def test_depth_counts_from_the_surface() -> None:
    stack = Stack(np.zeros((4, 8, 8)), "ZYX", Optics(voxel_size=(0.5, None, None), surface="last", depth_um=2.0))
    assert depths(stack).tolist() == [3.5, 3.0, 2.5, 2.0]
    assert depths(stack.with_optics(surface="first")).tolist() == [2.0, 2.5, 3.0, 3.5]
    assert depth_unit(stack) == "um"
    assert depth_unit(stack.with_optics(voxel_size=(None, 1.0, 1.0))) == "planes"


@pytest.mark.parametrize("seed", range(4))
def test_the_surface_is_where_structure_has_contrast(seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure = np.maximum(ndimage.gaussian_filter(rng.normal(size=(30, 80, 80)), 2), 0) * 400
    fading = np.exp(-np.arange(30) / 10)[:, None, None]
    volume = rng.poisson(structure * fading + 40 * (1 - fading) + 5) + 100
    assert find_surface(volume)[0] == "first"
    surface, why = find_surface(volume[::-1])
    assert surface == "last"
    assert "structure contrast" in why


@pytest.mark.parametrize("radius", [3.0, 6.0, 10.0])
def test_structure_radius_is_that_of_blobs(radius: float) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :200]
    plane = rng.normal(0, 0.2, (200, 200))
    for cy, cx in rng.uniform(10, 190, (40, 2)):
        plane += np.hypot(y - cy, x - cx) < radius
    # A disc's autocorrelation falls to half at 0.8 of its radius.
    assert structure_radius(plane[None].astype(np.float32)) == pytest.approx(0.8 * radius, rel=0.25)


def test_what_fits_is_rounded_and_nothing_else() -> None:
    image = np.array([[0.4, 7.6, 254.9]], np.float32)
    written = to_dtype(image, np.dtype(np.uint8))
    assert np.asarray(written.array).tolist() == [[0, 8, 255]]
    assert written.array.dtype == np.uint8
    assert written.attributes == {}


def test_uint8_is_promoted_when_it_would_clip() -> None:
    image = np.linspace(0, 900, 1000, dtype=np.float32)[None]
    written = to_dtype(image, np.dtype(np.uint8))
    assert written.array.dtype == np.uint16
    assert written.attributes == {}
    assert "uint16" in written.note


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_negative_values_are_shifted_and_can_be_had_back(dtype: type) -> None:
    image = np.linspace(-300, 70_000, 5000, dtype=np.float32)[None]
    written = to_dtype(image, np.dtype(dtype))
    back = np.asarray(written.array) * written.attributes["intensity_scale"] + written.attributes["intensity_offset"]
    assert np.abs(back - image).max() <= written.attributes["intensity_scale"] / 2 + 0.01
    assert "metadata" in written.note


def test_few_clipped_voxels_are_clipped_and_said() -> None:
    image = np.full((1, 10_000), 50, np.float32)
    image[0, :5] = -20
    written = to_dtype(image, np.dtype(np.uint16))
    assert np.asarray(written.array).min() == 0
    assert "0.05% of the voxels were clipped" in written.note
    assert np.asarray(to_dtype(image, np.dtype(np.float32)).array).min() == -20


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TZYX", "CYX", "TCZYX"])
def test_a_frame_reads_what_the_volume_has(axes: str, rng: np.random.Generator) -> None:
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
    stack = Stack(rng.integers(0, 99, [sizes[a] for a in axes]), axes)
    t, c = stack.size("T") - 1, stack.size("C") - 1
    frame, volume = stack.frame(t, c), stack.volume(t, c)
    assert (frame.shape, frame.dtype, len(frame)) == (volume.shape, volume.dtype, len(volume))
    for key in (slice(None), 0, (slice(0, 1), slice(1, 3)), (0, slice(None), slice(2, 6)), (slice(0, 4), 2, 3)):
        np.testing.assert_array_equal(frame[key], volume[key])
    np.testing.assert_array_equal(np.asarray(frame), volume)

"""Tiles of stitched planes that differ in brightness: found, evened out, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.mosaic import Mosaic, find_mosaic, mosaic_of
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.nuclei import nuclei
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source
from deepcontrast.training import train
from deepcontrast.valid import survey

from .conftest import TINY

contrast: Any = registry.load("tasks", "contrast")
OFFSET = 100.0  # of the phantoms' camera
SHAPE = (24, 96, 128)
ROW, COLUMN = 40, 70


def stitched(volume: NDArray[Any], factors: tuple[tuple[float, float], tuple[float, float]]) -> NDArray[np.float32]:
    """Return a volume whose light is multiplied by a factor in each of four tiles."""
    light = volume.astype(np.float32) - OFFSET
    for y, row in zip((slice(ROW), slice(ROW, None)), factors, strict=True):
        for x, factor in zip((slice(COLUMN), slice(COLUMN, None)), row, strict=True):
            light[:, y, x] *= factor
    return light + OFFSET


def find(volume: NDArray[np.float32]) -> Mosaic | None:
    return find_mosaic([volume], [np.ones(volume.shape, bool)], OFFSET)


def source_of(volume: NDArray[Any]) -> Source:
    stack = Stack(volume, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first"), source="mosaic")
    return Source(stack, 0, 0, depths(stack))


def config_of(**task: Any) -> Config:
    config = load_recipe("contrast", TINY)
    return config.model_copy(update={"task": {**config.task, **task}})


@pytest.fixture(scope="module")
def bright() -> NDArray[np.uint16]:
    return tissue(shape=SHAPE, seed=2, light=200).raw


@pytest.fixture(scope="module")
def seamed(bright: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.round(stitched(bright, ((1.0, 1.3), (1.0, 1.3)))).astype(np.uint16)


@pytest.mark.parametrize("step", [1.2, 1.5])
def test_steps_between_tiles_are_found_with_their_factor(bright: NDArray[np.uint16], step: float) -> None:
    mosaic = find(stitched(bright, ((1.0, step), (1 / step, 1.0))))
    assert mosaic is not None
    assert (mosaic.rows, mosaic.columns) == ((ROW,), (COLUMN,))
    factors = np.array(mosaic.factors)
    np.testing.assert_allclose(factors / factors[0, 0], np.array([[1, step], [1 / step, 1]]), rtol=0.03)
    np.testing.assert_allclose(np.log(factors).sum(), 0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("light", "step"), [(25, 1.15), (200, 1.1)])
def test_small_steps_are_found_in_dim_and_bright_stacks(light: float, step: float) -> None:
    plain = tissue(shape=(48, 256, 256), seed=1, light=light).raw
    mosaic = find(stitched(plain, ((1.0, step), (1 / step, 1.0))))
    assert mosaic is not None
    assert (mosaic.rows, mosaic.columns) == ((ROW,), (COLUMN,))
    factors = np.array(mosaic.factors)
    np.testing.assert_allclose(factors / factors[0, 0], np.array([[1, step], [1 / step, 1]]), rtol=0.06)


def test_one_tile_that_differs_is_evened_out(bright: NDArray[np.uint16]) -> None:
    volume = stitched(bright, ((1.0, 1.0), (1.0, 1.4)))
    mosaic = find(volume)
    assert mosaic is not None
    assert (mosaic.rows, mosaic.columns) == ((ROW,), (COLUMN,))
    factors = np.array(mosaic.factors)
    np.testing.assert_allclose(factors / factors[0, 0], np.array([[1, 1], [1, 1.4]]), rtol=0.03)


@pytest.mark.parametrize("make", [tissue, nuclei])
@pytest.mark.parametrize("light", [8, 25, 200])
def test_a_stack_without_seams_has_none(make: Callable[..., Any], light: float) -> None:
    assert find(make(shape=(12, 64, 72), seed=3, light=light).raw.astype(np.float32)) is None


def test_steps_within_five_percent_are_left(bright: NDArray[np.uint16]) -> None:
    assert find(stitched(bright, ((1.0, 1.05), (0.96, 1.0)))) is None


@pytest.mark.parametrize("kind", ["edge through optics", "bright line", "step of a few planes", "added step"])
def test_what_is_no_step_of_the_light_is_left(bright: NDArray[np.uint16], kind: str) -> None:
    volume = bright.astype(np.float32)
    if kind == "edge through optics":
        light = np.where(np.arange(SHAPE[2]) < COLUMN, 1.0, 1.4)
        volume = (volume - OFFSET) * ndimage.gaussian_filter1d(light, 1.2).astype(np.float32) + OFFSET
    elif kind == "bright line":
        volume[:, ROW] = (volume[:, ROW] - OFFSET) * 1.3 + OFFSET
    elif kind == "step of a few planes":
        volume[:5] = stitched(volume[:5], ((1.0, 1.5), (1.0, 1.5)))
    else:
        volume[:, :, COLUMN:] += 3.0
    assert find(volume) is None


def test_an_offset_above_the_light_finds_no_seams(bright: NDArray[np.uint16]) -> None:
    volume = bright.astype(np.float32)
    assert find_mosaic([volume], [np.ones(volume.shape, bool)], float(volume.mean()) + 1) is None


def test_empty_corners_of_a_mosaic_do_not_hide_its_seams(bright: NDArray[np.uint16]) -> None:
    volume = stitched(bright, ((1.0, 1.3), (1.0, 1.3)))
    valid = np.ones(SHAPE, bool)
    valid[:, :24, :COLUMN] = False
    mosaic = find_mosaic([np.where(valid, volume, OFFSET)], [valid], OFFSET)
    assert mosaic is not None
    assert mosaic.columns == (COLUMN,)
    assert mosaic.factors[0][1] / mosaic.factors[0][0] == pytest.approx(1.3, rel=0.03)


@given(
    st.tuples(st.integers(0, 20), st.integers(1, 20)),
    st.tuples(st.integers(0, 20), st.integers(1, 20)),
)
def test_evening_a_window_is_the_window_of_the_whole_evened(y: tuple[int, int], x: tuple[int, int]) -> None:
    mosaic = Mosaic((40, 40), 10.0, (5, 17), (8,), ((1.0, 1.2), (0.8, 0.9), (1.1, 1.3)))
    image = np.random.default_rng(0).uniform(10, 200, (2, 40, 40)).astype(np.float32)
    window = slice(y[0], y[0] + y[1]), slice(x[0], x[0] + x[1])
    whole = mosaic.even(image, slice(0, 40), slice(0, 40))[:, *window]
    np.testing.assert_array_equal(mosaic.even(image[:, *window], *window), whole)
    own = mosaic.window(*window)
    np.testing.assert_array_equal(own.even(image[:, *window], slice(0, y[1]), slice(0, x[1])), whole)
    # And back: what a window does not show continues its outer tiles.
    back = own.window(slice(-y[0], 40 - y[0]), slice(-x[0], 40 - x[0]))
    np.testing.assert_array_equal(back.even(image, slice(0, 40), slice(0, 40))[:, *window], whole)


def test_only_an_image_that_has_the_steps_is_evened(bright: NDArray[np.uint16]) -> None:
    pairs = [((1.0, 1.3), (1.0, 1.3)), ((1.2, 1.0), (1.2, 1.0))]
    volumes = [stitched(bright, factors) for factors in pairs]
    known = [mosaic for volume in volumes if (mosaic := find(volume)) is not None]
    assert [mosaic_of(volume, known) for volume in volumes] == known
    assert mosaic_of(bright, known) is None
    evened = known[0].even(volumes[0], slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    assert mosaic_of(evened, known) is None
    assert mosaic_of(volumes[0][:, 1:], known) is None
    part = slice(8, 80), slice(30, 110)
    assert mosaic_of(volumes[0][:, *part], [one.window(*part) for one in known]) == known[0].window(*part)


def test_clean_evens_the_tiles_and_says_so(bright: NDArray[np.uint16], seamed: NDArray[np.uint16]) -> None:
    source = source_of(seamed)
    fit = contrast.fit([source], config_of())
    [mosaic] = fit.mosaics
    assert (mosaic.rows, mosaic.columns) == ((), (COLUMN,))
    [note] = [note for note in fit.camera.notes if "tiles" in note]
    assert f"x {COLUMN}" in note
    even = contrast.clean(seamed, fit)
    assert _step(even, fit) == pytest.approx(_step(bright.astype(np.float32), fit), rel=0.03)
    lazy = contrast.cleaned(source.frame, fit, survey(source.frame))
    np.testing.assert_array_equal(lazy[:], even)
    np.testing.assert_array_equal(lazy[3:5, 10:50, 60:90], even[3:5, 10:50, 60:90])
    window = slice(20, 90), slice(40, 120)
    np.testing.assert_array_equal(
        contrast.clean(seamed[:, *window], contrast.windowed(fit, seamed.shape[1:], *window)), even[:, *window]
    )
    again = contrast.Fit.decode(*fit.encode())
    assert again.mosaics == fit.mosaics
    assert not contrast.fit([source], config_of(even_mosaic=False)).mosaics


def test_stacks_of_one_training_keep_their_own_seams(bright: NDArray[np.uint16], seamed: NDArray[np.uint16]) -> None:
    other = tissue(shape=(12, 80, 72), seed=1, light=200).raw
    fit = contrast.fit([source_of(volume) for volume in (bright, seamed, other)], config_of(remove_pattern=False))
    assert len(fit.mosaics) == 1
    np.testing.assert_array_equal(contrast.clean(bright, fit), bright)
    np.testing.assert_array_equal(contrast.clean(other, fit), other)
    assert _step(contrast.clean(seamed, fit), fit) < 1.1 < _step(seamed.astype(np.float32), fit)


def test_without_a_seam_the_fit_is_the_same_with_and_without_looking(bright: NDArray[np.uint16]) -> None:
    fits = [contrast.fit([source_of(bright)], config_of(even_mosaic=look)) for look in (True, False)]
    assert fits[0].encode()[0] == fits[1].encode()[0]
    np.testing.assert_array_equal(*(contrast.clean(bright, fit) for fit in fits))


@pytest.mark.slow
def test_passes_do_not_make_an_edge_of_a_seam(bright: NDArray[np.uint16], seamed: NDArray[np.uint16]) -> None:
    source = source_of(seamed)
    config = load_recipe(
        "contrast", (*TINY, "train.steps=250", "train.validate_every=50", "train.learning_rate=0.01", "net.features=8")
    )
    fit = contrast.fit([source], config)

    def steps(fit: Any) -> list[float]:
        nets = load_nets(contrast, [train(contrast, [source], fit, config).best], fit, config)
        images = [contrast.clean(seamed, fit)]
        for _ in range(2):
            images.append(np.empty_like(images[0]))
            predict_pass(contrast, nets, images[-2], fit, config, out=images[-1])
        # The tissue itself has some step there.
        plain = _step(bright.astype(np.float32), fit)
        return [abs(np.log(_step(image, fit) / plain)) for image in images]

    raw = abs(np.log(_step(seamed.astype(np.float32), fit) / _step(bright.astype(np.float32), fit)))
    assert max(steps(fit)) < raw
    assert max(steps(replace(fit, mosaics=()))) > raw


def _step(volume: NDArray[np.float32], fit: Any) -> float:
    """Return how much brighter the columns behind the seam are than those before it."""
    light = volume[:, :, COLUMN - 2 : COLUMN + 2].mean(axis=(0, 1)) - fit.norm.offset
    return float(light[2:].mean() / light[:2].mean())

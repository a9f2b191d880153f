"""Offsets of rows and columns of single planes: found, taken away, and not seen where there are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.noise import estimate_camera, subtract_lines
from deepcontrast.noise.lines import estimate_lines
from deepcontrast.progress import silent
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth import Phantom
from deepcontrast.task import Source
from deepcontrast.tasks import contrast
from deepcontrast.valid import survey

PHANTOMS = ("tissue", "nuclei", "filaments", "spots")
Volume = NDArray[np.float32]


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    return {name: registry.load("synth", name)(shape=(16, 96, 128), seed=7, light=30) for name in PHANTOMS}


def striped(volume: NDArray[np.uint16], axis: int, deviation: float, seed: int = 0) -> tuple[Volume, Volume]:
    """Return a volume (Z, Y, X) whose planes are alike along an axis but for offsets, rounded, and these (Z, N)."""
    shape = [1 if n == axis else size for n, size in enumerate(volume.shape)]
    added = np.random.default_rng(seed).normal(0, deviation, shape)
    out = np.rint(volume + added).astype(np.float32)
    return out, (out - volume).mean(axis=axis)


@pytest.mark.parametrize("axis", [2, 1])
@pytest.mark.parametrize("name", PHANTOMS)
def test_offsets_are_measured_and_most_of_them_taken_away(phantoms: dict[str, Phantom], name: str, axis: int) -> None:
    volume, truth = striped(phantoms[name].raw, axis, 3.0)
    found = estimate_lines([volume])
    rows, columns = found.deviations
    assert (rows if axis == 2 else columns) == pytest.approx(3.0, rel=0.1)
    assert (columns if axis == 2 else rows) == 0
    assert "subtracted" in " ".join(found.notes)
    assert found.fixed is None
    left = (subtract_lines(volume.astype(np.float32), found.deviations) - phantoms[name].raw).mean(axis=axis)
    left -= left.mean(axis=1, keepdims=True)
    assert left.std() < 0.6 * truth.std()
    fine = left - gaussian_filter(left, (0, 2))  # broad ones cannot be told from structure
    assert fine.std() < 0.35 * truth.std()


@pytest.mark.parametrize("name", PHANTOMS)
def test_where_lines_have_no_offsets_none_are_found(phantoms: dict[str, Phantom], name: str) -> None:
    for volume in (phantoms[name].raw, phantoms[name].raw[:1], phantoms[name].raw[:, :40, :40]):
        assert estimate_lines([volume.astype(np.float32)]).deviations == (0, 0)


def test_straight_walls_along_a_row_are_not_taken_for_one_of_its_offsets() -> None:
    rng = np.random.default_rng(3)
    walls = np.zeros((96, 128))
    walls[20::13] = 1
    scene = 100 + 300 * gaussian_filter(walls, 1.0)
    volume = rng.poisson(np.repeat(scene[None], 12, 0)).astype(np.float32)
    assert estimate_lines([volume]).deviations == (0, 0)


def test_little_is_taken_from_a_stack_that_has_none(phantoms: dict[str, Phantom]) -> None:
    raw = phantoms["tissue"].raw
    taken = raw - subtract_lines(raw.astype(np.float32), (3.0, 0.0))
    assert taken.std() < 0.2 * 3.0  # the noise of the means of rows


def test_flickering_light_is_left_alone_and_named(phantoms: dict[str, Phantom]) -> None:
    raw = phantoms["tissue"].raw.astype(np.float64)
    factor = 1 + 0.4 * np.random.default_rng(0).standard_normal((*raw.shape[:2], 1)).clip(-2, 2)
    volume = np.rint((raw - 100) * factor + 100).astype(np.float32)
    found = estimate_lines([volume])
    assert found.deviations == (0, 0)
    assert "flickers" in " ".join(found.notes)


def test_the_camera_is_that_of_the_same_stack_without_offsets(phantoms: dict[str, Phantom]) -> None:
    raw = phantoms["nuclei"].raw
    plain, _ = estimate_camera([raw])
    volume, _ = striped(raw, 2, 3.0)
    found, _ = estimate_camera([volume])
    assert found.poissonian == plain.poissonian is True
    assert found.lines[0] == pytest.approx(3.0, rel=0.1)
    assert found.gain == pytest.approx(plain.gain, rel=0.15)
    kept, _ = estimate_camera([volume], lines=[False])
    assert kept.lines == (0, 0)
    assert not kept.poissonian  # neighbours in a row are alike


@pytest.fixture(scope="module")
def config() -> Config:
    return load_recipe("contrast", ["net.depth=1", "net.features=4", "train.patch=24"])


def source(volume: NDArray[np.uint16]) -> Source:
    stack = Stack(volume, "ZYX", Optics(voxel_size=(0.5, 0.3, 0.3)), source="striped")
    return Source(stack, 0, 0, np.arange(len(volume), dtype=float))


@pytest.mark.parametrize("axis", [2, 1])
def test_a_slice_of_the_cleaned_stack_is_the_slice_of_the_whole(
    phantoms: dict[str, Phantom], config: Config, axis: int
) -> None:
    volume = striped(phantoms["tissue"].raw, axis, 3.0)[0].astype(np.uint16)
    fit = contrast.fit([source(volume)], config, progress=silent)
    assert max(fit.camera.lines) == pytest.approx(3.0, rel=0.1)
    table, arrays = fit.encode()
    assert contrast.Fit.decode(table, arrays).camera.lines == fit.camera.lines
    blank = volume.copy()
    blank[6] = 0
    for stack in (volume, blank):
        whole = contrast.clean(stack, fit)
        assert np.abs(whole - stack)[:6].std() > 1
        lazy = contrast.cleaned(stack, fit, survey(stack))
        for box in (np.s_[:], np.s_[3:9, 10:50, 20:90], np.s_[5], np.s_[2:4, 7, 11:12]):
            np.testing.assert_allclose(lazy[box], whole[box], atol=1e-3)


def test_the_scale_is_that_of_the_stack_without_stripes(phantoms: dict[str, Phantom], config: Config) -> None:
    raw = phantoms["tissue"].raw
    plain = contrast.fit([source(raw)], config, progress=silent)
    fit = contrast.fit([source(striped(raw + 300, 2, 40.0)[0].astype(np.uint16))], config, progress=silent)
    assert fit.camera.lines[0] == pytest.approx(40, rel=0.1)
    top = fit.norm.offset + fit.norm.scale - 300
    assert top == pytest.approx(plain.norm.offset + plain.norm.scale, abs=20)


def test_what_all_planes_share_is_a_pattern_also_of_a_stack_with_a_hole(
    phantoms: dict[str, Phantom], config: Config
) -> None:
    raw = phantoms["nuclei"].raw
    added = np.random.default_rng(1).normal(0, 4, raw.shape[2])
    volume = np.rint(raw + added).astype(np.uint16)
    fit = contrast.fit([source(volume)], config, progress=silent)
    assert fit.camera.lines == (0, 0)
    assert fit.camera.pattern_kind == "rows and columns"
    for stack in (volume, hollow(volume)):
        taken = (stack - contrast.clean(stack, fit))[0, 50:].mean(axis=0)
        assert np.corrcoef(taken, added)[0, 1] > 0.85


def test_a_fibre_along_a_row_of_one_plane_stays_and_draws_no_streak(phantoms: dict[str, Phantom]) -> None:
    volume, _ = striped(phantoms["tissue"].raw, 2, 3.0)
    fibre = np.zeros_like(volume)
    fibre[8, 48, 20:90] = 60
    fibre = gaussian_filter(fibre, (1.0, 0.6, 0.6))
    fibre *= 60 / fibre.max()
    before = subtract_lines(volume.astype(np.float32), (3.0, 0.0))
    change = subtract_lines(volume + fibre, (3.0, 0.0)) - fibre - before
    assert np.abs(change).max() < 15
    assert abs(change[8, 48].mean()) < 10


def test_fibres_along_rows_that_the_pixels_do_not_resolve_are_not_taken_for_offsets() -> None:
    rng = np.random.default_rng(5)
    fibres = np.zeros((16, 96, 128))
    for z, y in zip(*(rng.integers(0, n, 200) for n in (16, 96)), strict=True):
        fibres[z, y : y + 3] += rng.uniform(60, 200)
    volume = rng.poisson(50 + gaussian_filter(fibres, (1.0, 0.4, 0.4))).astype(np.float32)
    assert estimate_lines([volume]).deviations == (0, 0)


def test_planes_too_large_to_be_looked_at_whole_keep_their_stripes(
    phantoms: dict[str, Phantom], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = striped(phantoms["tissue"].raw, 2, 3.0)[0].astype(np.uint16)
    fit = contrast.fit([source(volume)], config, progress=silent)
    monkeypatch.setattr("deepcontrast.depth.SIDE", 64)
    np.testing.assert_array_equal(contrast.clean(volume, fit), volume.astype(np.float32))
    np.testing.assert_array_equal(contrast.cleaned(volume, fit, survey(volume))[:], volume.astype(np.float32))
    assert contrast.windowed(fit, (96, 128), slice(0, 48), slice(0, 48)).camera.lines == (0, 0)
    assert contrast.fit([source(volume)], config, progress=silent).camera.lines == (0, 0)


def test_tiles_of_a_hazy_mosaic_are_evened_out_about_the_level_without_light_and_keep_their_stripes(
    config: Config,
) -> None:
    rng = np.random.default_rng(6)
    haze = 150 + 100 * gaussian_filter(rng.random((16, 96, 128)), (1, 2, 2))
    light = haze * np.where(np.arange(128) < 64, 1.0, 1.4)
    volume, _ = striped(np.asarray(100 + 2 * rng.poisson(light), np.uint16), 2, 8.0)
    fit = contrast.fit([source(volume.astype(np.uint16))], config, progress=silent)
    assert fit.mosaics
    assert fit.camera.lines == (0, 0)
    cleaned = contrast.clean(volume.astype(np.uint16), fit)
    left, right = (cleaned[:, :, part].mean() - 100 for part in (np.s_[:64], np.s_[64:]))
    assert right / left == pytest.approx(1, abs=0.03)


def hollow(volume: NDArray[np.uint16]) -> NDArray[np.uint16]:
    out = volume.copy()
    out[4:8, :30, :40] = 0
    return out


def as_it_is(volume: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return volume


@pytest.mark.parametrize(
    ("spoil", "setting"), [(hollow, "task.remove_pattern=true"), (as_it_is, "task.remove_pattern=false")]
)
def test_lines_are_left_where_voxels_are_empty_or_patterns_are_to_stay(
    phantoms: dict[str, Phantom], spoil: Callable[[NDArray[np.uint16]], NDArray[np.uint16]], setting: str
) -> None:
    volume = spoil(striped(phantoms["tissue"].raw, 2, 3.0)[0].astype(np.uint16))
    config = load_recipe("contrast", ["net.depth=1", "net.features=4", "train.patch=24", setting])
    fit = contrast.fit([source(volume)], config, progress=silent)
    assert fit.camera.lines == (0, 0)


def test_a_stack_with_empty_voxels_keeps_its_lines_whatever_the_model_says(
    phantoms: dict[str, Phantom], config: Config
) -> None:
    volume = striped(phantoms["tissue"].raw, 2, 3.0)[0].astype(np.uint16)
    fit = contrast.fit([source(volume)], config, progress=silent)
    holed = hollow(volume)
    assert survey(holed).means is None
    for cleaned in (contrast.clean(holed, fit), contrast.cleaned(holed, fit, survey(holed))[:]):
        np.testing.assert_array_equal(cleaned[:4], holed[:4].astype(np.float32))


def test_the_survey_has_the_means_of_lines(phantoms: dict[str, Phantom]) -> None:
    raw = phantoms["spots"].raw
    means = survey(raw).means
    assert means is not None
    for axis, mean in zip((2, 1), means, strict=True):
        np.testing.assert_allclose(mean, raw.mean(axis=axis), rtol=1e-5)


def test_chance_is_not_taken_for_offsets(rng: np.random.Generator) -> None:
    for _ in range(60):
        assert estimate_lines([rng.normal(100, 5, (1, 40, 40)).astype(np.float32)]).deviations == (0, 0)


def test_offsets_that_nobody_sees_are_left_alone(rng: np.random.Generator) -> None:
    volume = rng.normal(100, 5, (16, 96, 256)) + rng.normal(0, 0.3, (16, 96, 1))
    assert estimate_lines([volume.astype(np.float32)]).deviations == (0, 0)
    volume += rng.normal(0, 1.0, (16, 96, 1))
    assert estimate_lines([volume.astype(np.float32)]).deviations[0] == pytest.approx(1.04, rel=0.15)


def test_a_stack_without_stripes_is_left_alone_by_the_model_of_one_that_has_them(
    phantoms: dict[str, Phantom], config: Config
) -> None:
    raw = phantoms["tissue"].raw
    fit = contrast.fit([source(striped(raw, 2, 3.0)[0].astype(np.uint16))], config, progress=silent)
    plain = phantoms["nuclei"].raw
    assert (plain - contrast.clean(plain, fit)).std() < 0.25 * 3.0

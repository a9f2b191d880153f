"""The fidelity map marks what was lost and what was added, and little else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.cli import run
from deepcontrast.fidelity_map import THRESHOLD, _noise, _scores, _spectra, fidelity_map, flagged, flagged_rows
from deepcontrast.io import open_stack, write_stack
from deepcontrast.stack import Optics, Stack

from .conftest import TINY

GAIN, INTERCEPT, LIGHT = 2.0, 100.0, 40.0
PLACES = [(y, x) for y in (20, 50, 80) for x in (20, 50, 80)]
Volume = NDArray[np.float32]


@pytest.fixture(scope="module")
def scene() -> tuple[Volume, Volume]:
    """Return the expected photons of smooth structures in haze (Z, Y, X), and of the structures alone."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(10, 100, 100)), (2, 2.5, 2.5))
    structure = LIGHT * np.maximum(field / field.std() - 0.5, 0)
    haze = np.stack([ndimage.gaussian_filter(plane, 12.0) for plane in structure])
    return (0.6 * structure + 0.8 * haze + 3).astype(np.float32), structure.astype(np.float32)


def recorded(photons: Volume, seed: int = 1) -> Volume:
    return (GAIN * np.random.default_rng(seed).poisson(photons) + INTERCEPT).astype(np.float32)


def blobs(photons: Volume, sigma: float, detectability: float) -> Volume:
    """Return Gaussian structures at PLACES in the middle plane, of a known matched-filter d'."""
    out = np.zeros_like(photons)
    y, x = np.ogrid[: photons.shape[1], : photons.shape[2]]
    for place in PLACES:
        shape = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * sigma**2))
        out[5] += detectability / np.sqrt((shape**2 / photons[5]).sum()) * shape
    return out


def found(raw: Volume, result: Volume, *, gain: float = GAIN, intercept: float = INTERCEPT) -> Volume:
    return fidelity_map(raw, result, np.arange(float(len(raw))), gain=gain, intercept=intercept, offset=intercept)


def seen_at(flags: NDArray[np.bool_]) -> float:
    return float(np.mean([flags[5, y - 3 : y + 4, x - 3 : x + 4].any() for y, x in PLACES]))


@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_lost_structures_are_flagged_where_they_were(scene: tuple[Volume, Volume], sigma: float) -> None:
    photons, structure = scene
    raw = recorded(photons + blobs(photons, sigma, 10.0))
    result = structure * GAIN + INTERCEPT
    flags = flagged(found(raw, result))
    assert seen_at(flags > 0) >= 8 / 9
    assert (np.delete(flags, 5, axis=0) != 0).mean() < 0.01


@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_added_structures_are_flagged_where_they_are(scene: tuple[Volume, Volume], sigma: float) -> None:
    photons, structure = scene
    # The haze-free result shows a structure that the raw, where it is dimmed to 0.6, would show with d' = 10.
    result = (structure + blobs(photons, sigma, 10.0) / 0.6) * GAIN + INTERCEPT
    flags = flagged(found(recorded(photons), result))
    assert seen_at(flags < 0) >= 8 / 9
    assert (np.delete(flags, 5, axis=0) != 0).mean() < 0.01


def test_another_recording_of_the_same_scene_is_not_flagged(scene: tuple[Volume, Volume]) -> None:
    flags = flagged(found(recorded(scene[0], 1), recorded(scene[0], 2)))
    assert (flags != 0).mean() < 0.02


def test_brightness_offset_and_a_monotone_change_of_grey_values_lose_nothing(scene: tuple[Volume, Volume]) -> None:
    photons, structure = scene
    raw = recorded(photons)
    for result in (structure * 7, structure**1.5):
        assert (flagged(found(raw, result.astype(np.float32) + INTERCEPT)) != 0).mean() < 0.01


def test_detectability_is_what_the_score_measures(scene: tuple[Volume, Volume]) -> None:
    """Without structure to explain, the score of a lost spot is its d' times the match of the nearest filter."""
    photons = np.full((10, 100, 100), 5000.0, np.float32)  # so many that the spots add no noise
    nothing = np.full(photons.shape, INTERCEPT, np.float32)
    spots = blobs(photons, 1.7, 12.0)
    lost = found((photons + spots) * np.float32(GAIN) + np.float32(INTERCEPT), nothing)
    assert np.mean([lost[5, y, x] for y, x in PLACES]) == pytest.approx(12.0, rel=0.1)


def test_voxels_without_a_measurement_are_never_flagged(scene: tuple[Volume, Volume]) -> None:
    photons, _ = scene
    valid = np.ones(photons.shape, bool)
    valid[:, :50] = False
    empty = np.full(photons.shape, INTERCEPT, np.float32)
    depth = np.arange(10.0)
    raw = recorded(photons)
    flags = flagged(fidelity_map(raw, empty, depth, gain=GAIN, intercept=INTERCEPT, offset=INTERCEPT, valid=valid))
    assert not flags[~valid].any()
    assert (flags[valid] > 0).any()


def test_voxels_without_a_measurement_say_nothing_of_their_surroundings(scene: tuple[Volume, Volume]) -> None:
    photons, structure = scene
    raw, valid = recorded(photons), np.ones(photons.shape, bool)
    valid[5, 40:50, 40:50] = False
    raw[~valid] += 10 * GAIN
    at = {"gain": GAIN, "intercept": INTERCEPT, "offset": INTERCEPT}
    flags = flagged(fidelity_map(raw, structure * GAIN + INTERCEPT, np.arange(10.0), valid=valid, **at))
    around = ndimage.binary_dilation(~valid[5], iterations=6) & valid[5]
    assert (flags[5][around] != 0).mean() < 0.02


def test_contrast_turned_round_is_explained_by_nothing(scene: tuple[Volume, Volume]) -> None:
    photons, structure = scene
    raw, part = recorded(photons), np.s_[:, :50, :50]
    emptied, turned = structure.copy(), structure.copy()
    emptied[part], turned[part] = 0, 2 * structure[part].mean() - structure[part]
    gone, reversed_ = (
        (flagged(found(raw, (image * GAIN + INTERCEPT).astype(np.float32)))[:, 10:40, 10:40] != 0).mean()
        for image in (emptied, turned)
    )
    assert gone > 0.1
    assert reversed_ >= 0.9 * gone


def test_a_result_shifted_by_two_pixels_is_flagged_and_the_raw_itself_is_not(scene: tuple[Volume, Volume]) -> None:
    raw = recorded(scene[0])
    assert not flagged(found(raw, raw)).any()
    assert (flagged(found(raw, np.roll(raw, 2, axis=2))) != 0).mean() > 0.02


@pytest.mark.parametrize("level", [0.0, -50.0, 300.0])
def test_a_result_without_structure_lost_it_all(scene: tuple[Volume, Volume], level: float) -> None:
    photons, structure = scene
    flags = flagged(found(recorded(photons), np.full_like(photons, level)))
    bright = structure > np.percentile(structure, 95)
    assert (flags[bright] > 0).mean() > 0.5


@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 1, 40), (9, 16, 16)])
def test_few_and_tiny_planes_have_a_map(shape: tuple[int, int, int]) -> None:
    raw = recorded(np.full(shape, 30.0, np.float32))
    assert np.isfinite(found(raw, raw + 1)).all()


def test_flagged_area_is_the_share_of_valid_voxels() -> None:
    score = np.zeros((2, 10, 10), np.float32)
    score[0, 0], score[0, 1, :5] = THRESHOLD + 1, -THRESHOLD - 1
    valid = np.zeros(score.shape, bool)
    valid[0, :5] = True
    rows = flagged_rows(score, method="m", k=None, t=0, c=0, depth_um=[None, None], valid=valid)
    assert [(row.metric, row.z, row.value) for row in rows] == [
        ("lost_area", 0, pytest.approx(10 / 50)),
        ("added_area", 0, pytest.approx(5 / 50)),
        ("lost_area", 1, None),
        ("added_area", 1, None),
    ]
    assert all(row.reason for row in rows if row.value is None)


def test_enhance_writes_the_map_that_its_measurements_tell_of(tiny_stack: Stack, tmp_path: Path) -> None:
    volume = tiny_stack.volume()
    write_stack(tmp_path / "a.ome.tif", Stack(np.stack([volume, volume[:, ::-1]]), "TZYX", Optics(surface="first")))
    settings = [part for setting in (*TINY, "train.steps=4") for part in ("--set", setting)]
    out = tmp_path / "out"
    assert run(["enhance", str(tmp_path / "a.ome.tif"), "--out", str(out), "--fidelity-map", *settings, "--quiet"]) == 0
    written = open_stack(out / "fidelity_map.ome.tif")
    assert (written.axes, written.dtype) == ("TZYX", np.float32)
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    for t in (0, 1):
        lost = [row["value"] for row in rows if row["metric"] == "lost_area" and row["t"] == t]
        assert lost == pytest.approx((written.volume(t) > THRESHOLD).mean(axis=(1, 2)))


@pytest.mark.parametrize("blur", [0.0, 0.5, 0.8])
def test_pure_noise_leaves_scores_of_one_at_every_place_also_where_neighbours_are_correlated(blur: float) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 40, 44))
    if blur:
        noise = ndimage.gaussian_filter(noise, (0, blur, blur), mode="wrap")
    lag = np.mean([np.mean(noise[:, 1:] * noise[:, :-1]), np.mean(noise[..., 1:] * noise[..., :-1])]) / noise.var()
    spectra = _spectra((40, 44), (float(lag), float(lag)))
    noise = (noise / noise.std()).astype(np.float32)
    level = np.full((40, 44), 1e6, np.float32)
    # At a million grey levels and a gain of 1e-6 the shot noise has a deviation of 1.
    one = _noise(level, 1e-6, 0.0)
    scores = np.stack([_scores(plane, one, spectra) for plane in noise])
    deviation = scores.std(axis=0)
    for place in (np.s_[:, 15:25, 15:25], np.s_[:, :1, 15:25], np.s_[:, :1, :1], np.s_[:, 39:, 43:]):
        np.testing.assert_allclose(deviation[place].mean(axis=(1, 2)), 1, atol=0.15 if blur else 0.12)


def test_in_a_bright_stack_a_small_difference_is_not_flagged_and_a_lost_structure_is(
    scene: tuple[Volume, Volume],
) -> None:
    photons = 400 * scene[0]
    raw = recorded(photons)
    # A tenth less contrast in every second structure is far above the noise of so much light.
    stripes = np.where(np.arange(100) // 10 % 2, 0.9, 1.0).astype(np.float32)
    result = scene[1] * stripes * GAIN + INTERCEPT
    depth = np.arange(10.0)
    camera = {"gain": GAIN, "intercept": INTERCEPT, "offset": INTERCEPT}
    assert (flagged(fidelity_map(raw, result, depth, **camera, share=0.0)) != 0).mean() > 0.2
    assert (flagged(fidelity_map(raw, result, depth, **camera)) != 0).mean() < 0.1
    gone = result.copy()
    gone[5, 40:60, 40:60] = INTERCEPT
    assert (flagged(fidelity_map(raw, gone, depth, **camera))[5, 40:60, 40:60] > 0).mean() > 0.3

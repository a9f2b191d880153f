"""The fidelity map marks what was lost and what was added, and little else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.fidelity_map import fidelity_map, flagged

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

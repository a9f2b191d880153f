"""What a user would pick instead: checked against closed forms and independent implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.exposure import equalize_adapthist

from deepcontrast.baselines.band_pass_2d import band_pass_2d
from deepcontrast.baselines.band_pass_3d import band_pass_3d
from deepcontrast.baselines.clahe_2d import clahe_2d
from deepcontrast.baselines.clahe_3d import clahe_3d

ALL = (band_pass_2d, band_pass_3d, clahe_2d, clahe_3d)
Baseline = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def texture(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).random(shape, np.float32)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return np.asarray(100 + 900 * (smooth - smooth.min()) / (smooth.max() - smooth.min()), np.float32)


@pytest.mark.parametrize("baseline", ALL)
def test_shape_and_type_are_kept_and_the_input_is_not_touched(baseline: Baseline) -> None:
    volume = texture((5, 33, 47))
    before = volume.copy()
    out = baseline(volume)
    assert out.shape == volume.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(volume, before)


@pytest.mark.parametrize("baseline", ALL)
def test_one_plane_and_a_constant_volume_are_no_special_case(baseline: Baseline) -> None:
    assert np.isfinite(baseline(texture((1, 20, 20)))).all()
    flat = baseline(np.full((3, 20, 20), 7.0, np.float32))
    assert np.ptp(flat) < 1e-4


@pytest.mark.parametrize("baseline", [band_pass_2d, band_pass_3d])
def test_band_pass_passes_a_wave_by_the_difference_of_two_gaussian_transfer_functions(
    baseline: Callable[..., NDArray[np.float32]],
) -> None:
    period, low, high = 16.0, 1.0, 5.0
    x = np.arange(256)
    wave = np.broadcast_to(np.cos(2 * np.pi * (x + 0.5) / period), (4, 32, 256)).astype(np.float32)
    frequency = 2 * np.pi / period
    gain = np.exp(-((low * frequency) ** 2) / 2) - np.exp(-((high * frequency) ** 2) / 2)
    np.testing.assert_allclose(baseline(50 + 3 * wave, low=low, high=high), 3 * gain * wave, atol=0.01)


def test_band_pass_2d_looks_at_one_plane_and_3d_at_its_neighbours() -> None:
    volume = np.zeros((9, 31, 31), np.float32)
    volume[4, 15, 15] = 1.0
    flat, deep = band_pass_2d(volume), band_pass_3d(volume)
    assert not flat[[3, 5]].any()
    assert deep[3, 15, 15] > 0
    np.testing.assert_array_equal(flat[4], band_pass_2d(volume[4:5])[0])
    # The peaks of a normalised Gaussian in two and in three dimensions.
    assert flat[4, 15, 15] == pytest.approx(1 / (2 * np.pi), rel=0.02)
    assert deep[4, 15, 15] == pytest.approx((2 * np.pi) ** -1.5, rel=0.02)


def test_clahe_2d_is_scikit_image_with_fijis_settings_in_the_units_of_the_plane() -> None:
    volume = texture((2, 150, 140))
    out = clahe_2d(volume)
    for plane, got in zip(volume, out, strict=True):
        bottom, span = plane.min(), np.ptp(plane)
        unit = equalize_adapthist((plane - bottom) / span, kernel_size=127, clip_limit=3 / 256, nbins=256)
        np.testing.assert_allclose(got, bottom + span * unit, rtol=1e-4)


def test_clahe_3d_equals_scikit_image_where_blocks_fit() -> None:
    volume = texture((16, 48, 32))
    unit = (volume - volume.min()) / np.ptp(volume)
    expected = equalize_adapthist(unit, kernel_size=16, clip_limit=3 / 256, nbins=256)
    got = (clahe_3d(volume, block=16) - volume.min()) / np.ptp(volume)
    assert np.abs(got - expected).max() < 0.03  # a few of 256 bins: scikit-image uses 253 of them
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.999


def test_clahe_3d_with_slope_one_is_the_identity_up_to_a_bin() -> None:
    volume = texture((8, 40, 40))
    got = clahe_3d(volume, block=20, slope=1.0)
    assert np.abs(got - volume).max() <= 2 * np.ptp(volume) / 256


def test_clahe_3d_has_no_step_between_blocks() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32), (12, 64, 64))
    out = clahe_3d(np.ascontiguousarray(ramp), block=16, bins=64)
    # Without interpolation each border falls from the top of one block to the bottom of the next.
    assert np.abs(np.diff(out, axis=2)).max() < 8


@pytest.mark.parametrize("baseline", [clahe_2d, clahe_3d])
def test_clahe_stretches_a_dim_corner(baseline: Callable[..., NDArray[np.float32]]) -> None:
    volume = texture((6, 64, 64))
    volume[:, :32, :32] = 100 + 0.1 * (volume[:, :32, :32] - 100)
    corner = np.s_[:, :16, :16]
    out = baseline(volume, block=32, slope=10.0)
    assert np.std(out[corner]) > 2 * np.std(volume[corner])

"""Zernike polynomials against their definition, and the spots of aberrated waves against theory and plain sums."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import roots_legendre

from deepcontrast.errors import InputError
from deepcontrast.psf import aberrated, orders, widefield, zernike

WAVE = 0.532
HIGH = {"na": 1.1, "wavelength_um": WAVE, "index": 1.33, "voxel_um": (0.2, 0.1, 0.1)}
LOW = {"na": 0.2, "wavelength_um": WAVE, "index": 1.0}


def test_indices_are_those_of_the_standard() -> None:
    rows = [(n, m) for n in range(7) for m in range(-n, n + 1, 2)]
    assert [orders(j) for j in range(len(rows))] == rows
    assert orders(12) == (4, 0)


def test_polynomials_are_orthonormal_over_the_disc() -> None:
    nodes, weights = roots_legendre(16)
    rho, turns = np.meshgrid((1 + nodes) / 2, 2 * np.pi * np.arange(32) / 32, indexing="ij")
    area = np.broadcast_to((weights * (1 + nodes) / 2)[:, None] / 32, rho.shape)
    values = np.stack([zernike(j, rho, turns) for j in range(36)])
    np.testing.assert_allclose(np.einsum("iab,jab,ab->ij", values, values, area), np.eye(36), atol=1e-10)


def test_polynomials_have_the_signs_and_angles_of_the_standard() -> None:
    rho, theta = np.array([0.0, 0.3, 0.7, 1.0]), np.array([0.1, 1.0, 2.5, -2.0])
    for j, expected in (
        (1, 2 * rho * np.sin(theta)),
        (2, 2 * rho * np.cos(theta)),
        (3, np.sqrt(6) * rho**2 * np.sin(2 * theta)),
        (8, np.sqrt(8) * (3 * rho**3 - 2 * rho) * np.cos(theta)),
        (12, np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1)),
    ):
        np.testing.assert_allclose(zernike(j, rho, theta), expected, atol=1e-12)


@pytest.mark.parametrize(("na", "index"), [(0.3, 1.0), (1.1, 1.33), (1.45, 1.515)])
def test_without_aberrations_the_spot_is_the_round_one(na: float, index: float) -> None:
    optics = {"na": na, "wavelength_um": WAVE, "index": index, "voxel_um": (0.2 / na**2, 0.08 / na, 0.1 / na)}
    round_one = widefield((9, 31, 25), **optics)
    for nothing in ({}, {0: 1.0}, {12: 0.0}):
        spot = aberrated((9, 31, 25), aberrations=nothing, **optics)
        np.testing.assert_allclose(spot, round_one, atol=2e-5 * round_one.max())


@pytest.mark.parametrize("aberrations", [{12: 1.0}, {3: 0.5, 5: -0.8, 7: 0.4}, {4: 1.5, 8: 0.7, 24: 0.3, 20: 0.5}])
def test_a_spot_is_the_plain_sum_over_a_fine_grid_of_the_pupil(aberrations: dict[int, float]) -> None:
    optics = {**HIGH, "voxel_um": (0.3, 0.004, 0.004)}
    # Every fortieth of 201 voxels, which are too small to average anything but along z.
    spot = aberrated((3, 201, 201), aberrations=aberrations, **optics)[:, ::40, ::40].astype(float)
    side = (np.arange(400) + 0.5) / 200 - 1
    p_y, p_x = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    inside = np.hypot(p_y, p_x) < 1
    p_y, p_x = p_y[inside], p_x[inside]
    cosine = np.sqrt(1 - (1.1 / 1.33) ** 2 * (p_y**2 + p_x**2))
    lead = sum(a * zernike(j, np.hypot(p_y, p_x), np.arctan2(p_y, p_x)) for j, a in aberrations.items())
    k, places = 2 * np.pi / WAVE, 0.004 * (np.arange(201)[::40] - 100)
    across = np.exp(-1j * k * 1.1 * np.outer(places, p_x))
    down = np.exp(-1j * k * 1.1 * np.outer(places, p_y))
    expected = np.zeros_like(spot)
    for plane, z in zip(expected, (-0.3, 0.0, 0.3), strict=True):
        for part in 0.3 * (np.arange(5) - 2) / 5:
            wave = np.exp(1j * (lead + k * 1.33 * (z + part) * cosine)) / cosine
            plane += np.abs((down * wave) @ across.T) ** 2
    np.testing.assert_allclose(
        spot / spot.sum(), expected / expected.sum(), atol=0.005 * expected.max() / expected.sum()
    )


def test_little_aberration_dims_the_peak_as_marechal_says() -> None:
    optics = {**LOW, "voxel_um": (1e-3, 0.4, 0.4)}
    sharp = aberrated((1, 121, 121), aberrations={}, **optics).max()
    for aberrations in ({12: 0.3}, {5: 0.3}, {3: 0.2, 13: 0.2}):
        variance = sum(a**2 for a in aberrations.values())
        ratio = aberrated((1, 121, 121), aberrations=aberrations, **optics).max() / sharp
        assert ratio == pytest.approx(np.exp(-variance), rel=0.01)


def test_positive_tilt_and_defocus_move_the_spot_to_higher_y_x_and_z() -> None:
    k = 2 * np.pi / WAVE
    optics = {**LOW, "voxel_um": (2.0, 0.2, 0.2)}
    moved = aberrated((1, 41, 41), aberrations={1: k * 0.2 * 0.6 / 2, 2: k * 0.2 * 1.0 / 2}, **optics)
    assert np.unravel_index(moved.argmax(), moved.shape) == (0, 20 + 3, 20 + 5)
    # 2 sqrt 3 rho^2 cancels the paraxial k z na^2 rho^2 / 2.
    refocused = aberrated((31, 1, 1), aberrations={4: k * 10 * 0.2**2 / (4 * np.sqrt(3))}, **optics)
    assert refocused.argmax() == 15 + 5


def mirrored(spot: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(spot[:, :, ::-1])


def test_coma_of_the_other_sign_is_the_mirror_image_and_not_the_same() -> None:
    left, right = (aberrated((3, 25, 25), aberrations={8: a}, **HIGH) for a in (-1.0, 1.0))
    np.testing.assert_allclose(mirrored(left), right, atol=1e-5 * right.max())
    assert np.abs(left - right).max() > 0.3 * right.max()


def test_aberrated_spots_are_not_negative_and_sum_to_one() -> None:
    spot = aberrated((9, 33, 31), aberrations={12: 1.0, 5: 0.5, 7: -0.5}, **HIGH)
    assert (spot.shape, spot.dtype) == ((9, 33, 31), np.float32)
    assert spot.min() >= 0
    assert spot.sum(dtype=float) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"aberrations": {-1: 0.1}}, "Zernike index -1; accepted: whole numbers"),
        ({"aberrations": {3000: 0.1}}, "Zernike index 3000"),
        ({"aberrations": {4.5: 0.1}}, "Zernike index 4.5"),
        ({"aberrations": {4: float("nan")}}, "nan radians of Zernike 4"),
        ({"na": 1.4}, "below the index"),
        ({"wavelength_um": 532.0}, "0.52 for 520 nm"),
        ({"shape": (4, 5, 5)}, "three odd sizes"),
    ],
)
def test_aberrations_that_cannot_be_are_refused_in_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        aberrated(**{"shape": (3, 5, 5), "aberrations": {}, **HIGH, **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)

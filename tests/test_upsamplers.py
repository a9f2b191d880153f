"""Planes between planes: every method puts them where the network's are, and deconvolution moves nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.errors import InputError
from deepcontrast.upsampled import count_of, places
from deepcontrast.upsamplers.cubic import cubic
from deepcontrast.upsamplers.linear import linear
from deepcontrast.upsamplers.richardson_lucy_fine import richardson_lucy_fine
from deepcontrast.upsamplers.richardson_lucy_planes import richardson_lucy_planes

NAMES = registry.names("upsamplers")
FACTORS = [1.0, 4.3, 5.0]


def applied(name: str, volume: np.ndarray, factor: float, **settings: Any) -> np.ndarray:
    blurred = {"sigma": 1.5} if name.startswith("richardson_lucy") else {}
    made = registry.load("upsamplers", name)(volume, factor=factor, **{**blurred, **settings})
    assert isinstance(made, np.ndarray)
    assert made.dtype == np.float32
    return made


def blurred_point(at: float, factor: float, sigma: float, planes: int = 12) -> np.ndarray:
    """Return planes of a point that lies at a place in planes, blurred along the axis by sigma pixels."""
    height = factor * (np.arange(planes) - at)
    line = np.exp(-(height**2) / (2 * sigma**2))
    return np.asarray(100 * np.broadcast_to(line[:, None, None], (planes, 3, 3)), np.float32)


def width_and_middle(line: np.ndarray) -> tuple[float, float]:
    at = np.arange(len(line))
    middle = (line * at).sum() / line.sum()
    return float(np.sqrt((line * (at - middle) ** 2).sum() / line.sum())), float(middle)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", FACTORS)
def test_a_ramp_stays_a_ramp_on_the_grid_of_the_network(name: str, factor: float) -> None:
    planes = 24
    ramp = np.broadcast_to(10 + np.arange(planes, dtype=np.float32)[:, None, None], (planes, 3, 4))
    made = applied(name, ramp, factor, **({"iterations": 2} if name.startswith("richardson_lucy") else {}))
    at = places(planes, factor, slice(0, count_of(planes, factor)))
    assert made.shape == (round(planes * factor), 3, 4)
    inside = (at > 8) & (at < planes - 9)
    np.testing.assert_allclose(made[inside, 1, 1], 10 + at[inside], atol=0.03)


@pytest.mark.parametrize("factor", FACTORS)
def test_cubic_is_the_spline_of_an_independent_computation(factor: float) -> None:
    volume = np.random.default_rng(0).random((7, 4, 5), np.float32)
    count = count_of(7, factor)
    at = np.meshgrid(places(7, factor, slice(0, count)), np.arange(4), np.arange(5), indexing="ij")
    expected = ndimage.map_coordinates(volume, at, order=3, mode="nearest")
    np.testing.assert_allclose(cubic(volume, factor=factor), expected, atol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_linear_is_what_numpy_interpolates(factor: float) -> None:
    column = np.random.default_rng(1).random(9).astype(np.float32)
    made = linear(np.broadcast_to(column[:, None, None], (9, 2, 2)), factor=factor)
    expected = np.interp(places(9, factor, slice(0, count_of(9, factor))), np.arange(9), column)
    np.testing.assert_allclose(made[:, 1, 0], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [4.3, 5.0])
@pytest.mark.parametrize("method", [richardson_lucy_fine, richardson_lucy_planes])
def test_deconvolution_sharpens_a_point_and_leaves_it_where_it_is(method: Any, factor: float) -> None:
    sigma, at = 1.2 * factor, 5.3
    blurred = blurred_point(at, factor, sigma)
    made = method(blurred, factor=factor, sigma=sigma, iterations=20)[:, 1, 1].astype(np.float64)
    width, middle = width_and_middle(made)
    # Of the network's grid, the place in planes of its n-th is that of `places`.
    expected = (at - 11 / 2) * factor + (len(made) - 1) / 2
    assert abs(middle - expected) < 0.1
    assert width < 0.6 * sigma


@pytest.mark.parametrize("method", [richardson_lucy_fine, richardson_lucy_planes])
def test_a_flat_stack_without_light_stays_at_its_offset(method: Any) -> None:
    made = method(np.full((6, 3, 4), 500, np.float32), factor=4.0, sigma=4.0, offset=500.0)
    np.testing.assert_allclose(made, 500, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("richardson_lucy")])
def test_without_blur_deconvolution_is_cubic_interpolation(name: str) -> None:
    volume = 10 + ndimage.gaussian_filter(np.random.default_rng(0).random((8, 6, 6)), 1).astype(np.float32)
    np.testing.assert_allclose(applied(name, volume, 3.0, sigma=0.0), cubic(volume, factor=3.0), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_upsampled_is_refused(name: str) -> None:
    for shape, factor, words in (((4, 3, 3), 0.9, "1 or more"), ((1, 3, 3), 2.0, "Z of 2"), ((4, 3), 2.0, "Z, Y, X")):
        with pytest.raises(InputError, match=words):
            applied(name, np.ones(shape, np.float32), factor)
    if name.startswith("richardson_lucy"):
        with pytest.raises(InputError, match="0 or more"):
            applied(name, np.ones((4, 3, 3), np.float32), 2.0, sigma=-1.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_is_accepted(name: str) -> None:
    volume = np.random.default_rng(0).random((4, 5, 6), np.float32)
    for choice in registry.module("upsamplers", name).CHOICES:
        assert np.isfinite(applied(name, volume, 2.0, **choice)).all()

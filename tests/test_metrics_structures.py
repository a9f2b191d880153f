"""Isotropy, profiles and spots against integrals, drawn structures and their invariances."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.metrics import Measurement
from deepcontrast.metrics.isotropy import isotropy
from deepcontrast.metrics.profile import profile
from deepcontrast.metrics.spots import spots

Array = NDArray[np.float64]


def values(rows: tuple[Measurement, ...]) -> dict[str, float | None]:
    return {row.metric: row.value for row in rows}


def white(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).normal(100, 10, shape)


def test_isotropy_of_white_noise_is_one() -> None:
    assert values(isotropy(white(0, (64, 64, 64))))["isotropy"] == pytest.approx(1, abs=0.02)
    assert values(isotropy(white(1, (256, 384))))["isotropy"] == pytest.approx(1, abs=0.03)


def expected_ratio(sigma_z: float, sigma_x: float, low: float, high: float, limit: float = math.inf) -> float:
    """Integrate the power of blurred white noise over the two sectors, along z up to the sampling limit."""
    edges = np.linspace(low, high, 1001), np.linspace(0, math.pi / 2, 1001)
    radius, angle = ((e[:-1] + e[1:]) / 2 for e in edges)
    kz, kx = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
    power = radius[:, None] * np.exp(-((2 * math.pi) ** 2) * ((sigma_z * kz) ** 2 + (sigma_x * kx) ** 2)) * (kz < limit)
    return float(power[:, :500].sum() / power[:, 500:].sum())


def test_isotropy_of_a_blurred_field_is_the_ratio_of_integrals() -> None:
    image = ndimage.gaussian_filter(white(2, (96, 128, 128)), (1.5, 0.7, 0.7), mode="wrap")
    expected = expected_ratio(1.5, 0.7, 2 / 96, 0.5)
    assert values(isotropy(image))["isotropy"] == pytest.approx(expected, rel=0.05)
    within = expected_ratio(1.5, 0.7, 0.05, 0.1)
    assert within > expected + 0.3
    assert values(isotropy(image, band=(0.05, 0.1)))["isotropy"] == pytest.approx(within, rel=0.05)


def test_isotropy_counts_what_the_planes_do_not_sample_as_missing() -> None:
    # White up to the limit of sampling along z, which is a quarter of that along x.
    coarse = isotropy(white(3, (40, 72, 72)), voxel=(4.0, 1.0, 1.0))[0].value
    assert coarse == pytest.approx(expected_ratio(0, 0, 2 / 72, 0.5, limit=1 / 8), rel=0.05)
    # Planes left out that held nothing of their own change nothing.
    fine = ndimage.gaussian_filter(white(4, (160, 72, 72)), (4.0, 1.0, 1.0), mode="wrap")
    assert isotropy(fine[::4], voxel=(4.0, 1.0, 1.0))[0].value == pytest.approx(isotropy(fine)[0].value, rel=0.03)


def test_isotropy_takes_any_unit_scale_and_offset() -> None:
    image = ndimage.gaussian_filter(white(4, (24, 40, 48)), (2, 1, 1))
    before = isotropy(image, voxel=(0.9, 0.3, 0.3))[0].value
    assert isotropy(image, voxel=(900.0, 300.0, 300.0))[0].value == pytest.approx(before)
    assert isotropy(1e-3 * image - 5, voxel=(0.9, 0.3, 0.3))[0].value == pytest.approx(before)
    assert isotropy(1e30 * image, voxel=(0.9, 0.3, 0.3))[0].value == pytest.approx(before)


def test_isotropy_is_undefined_without_contrast_or_room() -> None:
    assert "constant" in isotropy(np.full((16, 16, 16), 0.1))[0].reason
    assert "too small" in isotropy(white(0, (3, 40, 40)))[0].reason
    assert "finite" in isotropy(np.where(np.eye(16), np.nan, 1.0))[0].reason
    assert "no lateral energy" in isotropy(np.sin(np.arange(40.0))[:, None] * np.ones(40))[0].reason
    with pytest.raises(InputError, match=r"3 voxel sizes for 2 axes; accepted: one per axis"):
        isotropy(white(0, (16, 16)), voxel=(3.0, 1.0, 1.0))


def ridges(positions: list[float], heights: list[float], sigma: float, *, size: int = 120) -> Array:
    """Return a plane whose rows are sums of Gaussians."""
    x = np.arange(size)
    line = sum(h * np.exp(-((x - p) ** 2) / (2 * sigma**2)) for p, h in zip(positions, heights, strict=True))
    return np.asarray(np.ones((9, 1)) * line)


def test_profile_of_known_maxima() -> None:
    reference = ridges([20.0, 50.0, 80.0, 105.0], [100.0, 60.0, 90.0, 50.0], 3.0)
    # Moved by 0.4, doubled, narrower, on a background; the last is gone and one is invented.
    image = 30 + ridges([20.4, 50.4, 80.4, 35.0], [200.0, 120.0, 180.0, 90.0], 2.0)
    got = values(profile(image, reference))
    assert got["profile_maxima_kept"] == 0.75
    assert got["profile_maxima_extra"] == 0.25
    # A parabola through three points of a Gaussian is right to a few hundredths of a pixel.
    assert got["profile_shift"] == pytest.approx(0.4, abs=0.05)
    assert got["profile_height_ratio"] == pytest.approx(2, rel=0.03)
    assert got["profile_height_spread"] == pytest.approx(0, abs=0.03)
    assert got["profile_fwhm_ratio"] == pytest.approx(2 / 3, rel=0.03)


def test_profile_of_the_reference_itself() -> None:
    reference = ridges([20.0, 50.0, 80.0], [100.0, 60.0, 90.0], 3.0)
    same = {"profile_maxima_kept": 1, "profile_maxima_extra": 0, "profile_shift": 0}
    same |= {"profile_height_ratio": 1, "profile_height_spread": 0, "profile_fwhm_ratio": 1}
    assert values(profile(reference, reference)) == same
    uneven = values(profile(ridges([20.0, 50.0, 80.0], [100.0, 120.0, 90.0], 3.0), reference))
    # Ratios 1, 2 and 1: the quartiles are 1 and 1.5.
    assert uneven["profile_height_spread"] == pytest.approx(0.5, rel=0.01)


def test_profile_follows_the_line_it_is_given() -> None:
    reference = np.zeros((60, 60))
    reference[:, 20] = reference[:, 40] = reference[30, :] = 10.0
    image = np.zeros((60, 60))
    image[:, 20] = image[30, :] = 10.0
    along = profile(image, reference, start=(10, 5), end=(10, 55))
    assert values(along)["profile_maxima_kept"] == 0.5
    down = profile(image, reference, start=(5, 50), end=(55, 50))
    assert values(down)["profile_maxima_kept"] == 1.0
    broken = np.where(np.arange(60)[:, None] % 2 == 1, image, 0.0)
    assert values(profile(broken, image, start=(10, 5), end=(10, 55)))["profile_maxima_kept"] == 0.0
    averaged = profile(broken, image, start=(10, 5), end=(10, 55), linewidth=8)
    assert values(averaged)["profile_height_ratio"] == pytest.approx(0.5)


def test_profile_partners_are_one_to_one_and_near() -> None:
    reference = ridges([40.0, 48.0], [100.0, 100.0], 1.5)
    merged = ridges([44.0], [100.0], 1.5)
    assert values(profile(merged, reference))["profile_maxima_kept"] == 0.0
    got = values(profile(merged, reference, tolerance=4.5))
    assert got["profile_maxima_kept"] == 0.5
    assert got["profile_shift"] == pytest.approx(4.0, abs=0.05)
    # 43 is nearest to 46, yet only with 38 have both a partner.
    both = values(profile(ridges([43.0, 53.0], [9, 9], 1.0), ridges([38.0, 46.0], [9, 9], 1.0), tolerance=7.5))
    assert both["profile_maxima_kept"] == 1.0
    assert both["profile_shift"] == pytest.approx(6.0, abs=0.05)


def test_profile_without_maxima_says_so() -> None:
    reference, flat = ridges([40.0], [10.0], 2.0), np.full((9, 120), 3.0)
    assert all("reference has no maximum" in row.reason for row in profile(reference, flat))
    lost = profile(flat, reference)
    assert lost[0].value == 0.0
    assert all(row.value is None and row.reason for row in lost[1:])
    assert "finite" in profile(np.where(reference > 5, np.nan, 1.0), reference)[0].reason
    ripple = reference + 0.5 * np.sin(np.arange(120))
    assert values(profile(ripple, reference))["profile_maxima_extra"] == 0.0
    assert values(profile(ripple, reference, prominence=0.02))["profile_maxima_extra"] > 0.5  # type: ignore[operator]


def dots(places: NDArray[np.intp], heights: Array, shape: tuple[int, ...], sigma: float = 1.5) -> Array:
    """Return Gaussian spots drawn one by one."""
    image = np.zeros(shape)
    for place, height in zip(places, heights, strict=True):
        lines = (np.exp(-((np.arange(n) - p) ** 2) / (2 * sigma**2)) for n, p in zip(shape, place, strict=True))
        image += height * reduce(np.multiply.outer, lines)
    return image


@pytest.fixture(params=[2, 3])
def field(request: pytest.FixtureRequest) -> tuple[NDArray[np.intp], Array, tuple[int, ...]]:
    """Return 25 or 27 spots on a jittered grid, at least 14 px apart, their heights and the image's shape."""
    rng, axes = np.random.default_rng(0), request.param
    side, step = (5, 16) if axes == 2 else (3, 16)
    places = np.stack(np.meshgrid(*(np.arange(side),) * axes, indexing="ij"), axis=-1).reshape(-1, axes) * step + 8
    places = places + rng.integers(-1, 2, places.shape)
    return places, rng.uniform(50, 150, len(places)), (side * step,) * axes


def test_spots_of_known_brightness_and_losses(field: tuple[NDArray[np.intp], Array, tuple[int, ...]]) -> None:
    places, heights, shape = field
    reference = 20 + dots(places, heights, shape)
    got = values(spots(5 + dots(places[4:], 3 * heights[4:], shape), reference))
    assert got["spots_count"] == len(places)
    assert got["spots_lost"] == pytest.approx(4 / len(places))
    assert got["spots_ratio"] == pytest.approx(3, rel=1e-3)
    assert got["spots_ratio_spread"] == pytest.approx(0, abs=1e-3)
    same = values(spots(reference, reference))
    assert same == {"spots_count": len(places), "spots_lost": 0, "spots_ratio": 1, "spots_ratio_spread": 0}


def test_spot_ratios_scatter_as_the_brightness_does(field: tuple[NDArray[np.intp], Array, tuple[int, ...]]) -> None:
    places, heights, shape = field
    factors = np.random.default_rng(1).uniform(0.5, 1.5, len(heights))
    got = values(spots(dots(places, factors * heights, shape), dots(places, heights, shape)))
    low, median, high = np.percentile(factors, (25, 50, 75))
    assert got["spots_lost"] == 0
    assert got["spots_ratio"] == pytest.approx(median, rel=0.01)
    assert got["spots_ratio_spread"] == pytest.approx((high - low) / median, rel=0.02)


def test_spots_in_noise_are_found_and_noise_is_no_spot(field: tuple[NDArray[np.intp], Array, tuple[int, ...]]) -> None:
    places, heights, shape = field
    rng = np.random.default_rng(2)
    noisy = dots(places, 2 * heights, shape) + rng.normal(100, 5, shape)
    got = values(spots(noisy, dots(places, heights, shape)))
    assert got["spots_lost"] == 0
    assert got["spots_ratio"] == pytest.approx(2, rel=0.05)
    back = values(spots(dots(places, heights, shape), noisy))
    assert back["spots_count"] == len(places)
    # Nothing but noise: hardly a place has a maximum above 5 standard deviations.
    assert values(spots(rng.normal(100, 5, shape), noisy))["spots_lost"] > 0.9  # type: ignore[operator]


def test_spots_keep_to_the_valid_voxels_and_the_axes_widths() -> None:
    places = np.array([[8, 10, 10], [8, 10, 40], [8, 40, 10], [8, 40, 40]])
    image = dots(places, np.full(4, 100.0), (16, 50, 50))
    valid = np.ones(image.shape, bool)
    valid[:, :, 25:] = False
    spoiled = np.where(valid, image, np.nan)
    assert values(spots(spoiled, spoiled, valid=valid))["spots_count"] == 2
    thin = image[::3]
    got = values(spots(2 * thin, thin, sigma=(0.5, 1.5, 1.5)))
    assert got == {"spots_count": 4, "spots_lost": 0, "spots_ratio": 2, "spots_ratio_spread": 0}
    assert "finite" in spots(spoiled, image)[0].reason


def test_spots_of_nothing_say_so() -> None:
    image, flat = dots(np.array([[20, 20]]), np.array([10.0]), (40, 40)), np.full((40, 40), 0.1)
    count, *rest = spots(image, flat)
    assert count.value == 0
    assert all("no spot" in row.reason for row in rest)
    _, lost, ratio, spread = spots(flat, image)
    assert lost.value == 1.0
    assert ratio.value is None
    assert "all spots are lost" in spread.reason

"""Isotropy, Fourier shells, profiles and spots against integrals, drawn structures and their invariances."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.metrics import Measurement
from deepcontrast.metrics.fourier_shell import Shells, fourier_shell, fourier_shells
from deepcontrast.metrics.isotropy import isotropy, wedge_spectra
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


def test_wedges_of_a_blurred_field_fall_as_the_transfer_function() -> None:
    image = ndimage.gaussian_filter1d(white(4, (96, 96, 96)), 1.2, axis=0, mode="wrap")
    found = wedge_spectra(image, half_angle=5.0)
    assert not isinstance(found, str)
    assert found.frequency[-1] == pytest.approx(0.5)
    inside = (found.frequency > 0.05) & (found.frequency < 0.25)
    expected = np.exp(-((2 * np.pi * found.frequency * 1.2) ** 2))[inside]
    np.testing.assert_allclose((found.axial / found.lateral)[inside], expected, rtol=0.25, atol=0.01)
    np.testing.assert_allclose(found.lateral[inside], np.median(found.lateral[inside]), rtol=0.3)


def test_wedges_are_not_defined_beyond_what_the_planes_sample() -> None:
    found = wedge_spectra(white(5, (24, 48, 48)), voxel=(2.0, 1.0, 1.0))
    assert not isinstance(found, str)
    assert np.isnan(found.axial[found.frequency > 0.27]).all()
    assert np.isfinite(found.lateral).all()
    assert wedge_spectra(np.ones((8, 8, 8))) == "the image is constant"


def test_isotropy_counts_what_the_planes_do_not_sample_as_missing() -> None:
    # White up to the limit of sampling along z, which is a quarter of that along x.
    coarse = isotropy(white(3, (40, 72, 72)), voxel=(4.0, 1.0, 1.0))[0].value
    assert coarse == pytest.approx(expected_ratio(0, 0, 2 / 72, 0.5, limit=1 / 8), rel=0.05)
    # Planes left out that held nothing of their own change nothing.
    fine = ndimage.gaussian_filter(white(4, (160, 72, 72)), (4.0, 1.0, 1.0), mode="wrap")
    assert isotropy(fine[::4], voxel=(4.0, 1.0, 1.0))[0].value == pytest.approx(isotropy(fine)[0].value, rel=0.03)


def wedge_power(sigma_z: float, sigma_x: float, band: tuple[float, float], middle: float, half_angle: float) -> float:
    """Integrate the power of blurred white noise over a wedge about an angle from the z axis, radians."""
    radius = np.linspace(*band, 1001)[:, None]
    angle = np.linspace(middle - math.radians(half_angle), middle + math.radians(half_angle), 1001)
    exponent = (sigma_z * radius * np.cos(angle)) ** 2 + (sigma_x * radius * np.sin(angle)) ** 2
    return float((radius * np.exp(-((2 * math.pi) ** 2) * exponent)).mean())


@pytest.mark.parametrize("half_angle", [10.0, 20.0, 45.0])
def test_isotropy_without_the_noise_floor_is_that_of_the_field_without_noise(half_angle: float) -> None:
    clean = ndimage.gaussian_filter(white(5, (96, 160, 160)), (2.0, 1.3, 1.3), mode="wrap")
    # Hardly anything of the field lies beyond 0.4 cycles per pixel: 1e-5 of its power at 0.
    band, floor = (0.1, 0.36), 0.4
    noisy = clean + 0.5 * np.random.default_rng(6).standard_normal(clean.shape)
    axial, lateral = (wedge_power(2.0, 1.3, band, middle, half_angle) for middle in (0, math.pi / 2))
    settings = {"band": band, "half_angle": half_angle}
    drawn = isotropy(noisy, **settings)[0].value  # type: ignore[arg-type]
    assert drawn is not None
    assert drawn > axial / lateral + 0.1
    assert isotropy(noisy, floor=floor, **settings)[0].value == pytest.approx(axial / lateral, rel=0.1)  # type: ignore[arg-type]
    assert isotropy(clean, floor=floor, **settings)[0].value == pytest.approx(axial / lateral, rel=0.1)  # type: ignore[arg-type]


def test_the_noise_floor_is_not_subtracted_where_the_planes_sample_nothing() -> None:
    # Planes of 4 pixels that sample all there is of the field along z.
    clean = ndimage.gaussian_filter(white(7, (256, 96, 96)), (4.0, 1.3, 1.3), mode="wrap")[::4]
    noisy = clean + 0.3 * np.random.default_rng(8).standard_normal(clean.shape)
    given = {"voxel": (4.0, 1.0, 1.0), "band": (0.05, 0.3), "half_angle": 20.0}
    expected = isotropy(clean, **given)[0].value  # type: ignore[arg-type]
    assert isotropy(noisy, floor=0.4, **given)[0].value == pytest.approx(expected, rel=0.1)  # type: ignore[arg-type]


def test_isotropy_refuses_wedges_that_overlap_and_a_floor_beyond_what_is_sampled() -> None:
    with pytest.raises(InputError, match=r"^half angle 60; accepted: degrees above 0 and up to 45$"):
        isotropy(white(0, (32, 32)), half_angle=60)
    assert isotropy(white(0, (32, 32)), floor=0.5)[0] == Measurement(
        "isotropy", None, "no frequency is sampled beyond the floor's, 0.5"
    )
    # Noise alone: what is left of either wedge is near 0, and never below it.
    for seed in range(8):
        left = isotropy(white(seed, (32, 32, 32)), floor=0.4)[0]
        assert left.reason == "there is no lateral energy" if left.value is None else left.value >= 0


def shells_of(*given: object, **settings: object) -> Shells:
    shells = fourier_shells(*given, **settings)  # type: ignore[arg-type]
    assert isinstance(shells, Shells)
    return shells


def test_fourier_rings_equal_frequencies_summed_one_by_one() -> None:
    image, other = white(0, (8, 10)), white(1, (8, 10))
    rows, columns = np.arange(8), np.arange(10)
    window = np.outer(np.sin(np.pi * (rows + 1) / 9) ** 2, np.sin(np.pi * (columns + 1) / 11) ** 2)
    sums: dict[int, list[complex]] = {}
    for ky in range(-4, 4):
        for kx in range(-5, 5):
            wave = np.exp(-2j * np.pi * (ky * rows[:, None] / 8 + kx * columns / 10))
            f, g = (((v - v.mean()) * window * wave).sum() for v in (image, other))
            ring = round(math.hypot(ky / 8, kx / 10) * 8)
            if 1 <= ring <= 4:
                sums.setdefault(ring, [0, 0, 0, 0])
                parts = (f * g.conjugate(), abs(f) ** 2, abs(g) ** 2, 1)
                sums[ring] = [a + b for a, b in zip(sums[ring], parts, strict=True)]
    shells = shells_of(image, other)
    np.testing.assert_allclose(shells.frequency, [n / 8 for n in sorted(sums)])
    np.testing.assert_allclose(
        shells.correlation, [s[0].real / math.sqrt((s[1] * s[2]).real) for _, s in sorted(sums.items())]
    )
    assert shells.samples.tolist() == [s[3] for _, s in sorted(sums.items())]


def test_fourier_shells_of_an_object_in_noise_are_the_signal_s_share_of_the_power() -> None:
    sigma, noise, rng = 1.0, 1.0, np.random.default_rng(3)
    shape = (64, 64, 64)
    signal = ndimage.gaussian_filter(white(2, shape), sigma, mode="wrap")
    first, second = (signal + noise * rng.standard_normal(shape) for _ in range(2))

    def share(k: NDArray[np.float64]) -> Array:
        power = 100 * np.exp(-((2 * np.pi * sigma * k) ** 2))
        return np.asarray(power / (power + noise**2))

    shells = shells_of(first, second)
    assert len(shells.frequency) == 32
    # The power falls within a shell; from the third the window's mixing is small.
    np.testing.assert_allclose(shells.correlation[2:], share(shells.frequency)[2:], atol=0.06)
    grid = np.linspace(0, 0.5, 10001)
    crossing = grid[np.argmax(share(grid) < 1 / 7)]
    got = values(fourier_shell(first, second))
    assert got["fourier_shell_resolution"] == pytest.approx(1 / crossing, rel=0.03)
    assert got["fourier_shell_mean"] == pytest.approx(float(share(shells.frequency).mean()), abs=0.02)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_wedge_sees_the_power_within_its_cone_alone(axis: int) -> None:
    shape, wedge, curves, resolutions = (64, 64, 64), 25.0, [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        signal = ndimage.gaussian_filter(white(100 + seed, shape), (2.0, 1.1, 1.1), mode="wrap")
        first, second = (signal + rng.standard_normal(shape) for _ in range(2))
        shells = shells_of(first, second, axis=axis, wedge=wedge)
        curves.append(shells.correlation)
        resolutions.append(values(fourier_shell(first, second, axis=axis, wedge=wedge))["fourier_shell_resolution"])
    # About z the blur of z goes along the axis; about x it goes across, more or less at the turns of the cone.
    radius, turn = shells.frequency, np.linspace(0, np.pi / 2, 46)[:, None, None]
    angle = np.radians(np.linspace(0, wedge, 201))[:, None]
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    kz, kx = (along, across) if axis == 0 else (across * np.cos(turn), np.hypot(along, across * np.sin(turn)))
    power = 100 * np.exp(-((2 * np.pi) ** 2) * ((2.0 * kz) ** 2 + (1.1 * kx) ** 2)) * np.ones_like(turn)
    signal_power = (power.mean(axis=0) * np.sin(angle)).sum(axis=0) / np.sin(angle).sum()
    expected = signal_power / (signal_power + 1)
    # In the first shells there are few frequencies and the window mixes them.
    np.testing.assert_allclose(np.mean(curves, axis=0)[4:], expected[4:], atol=0.15)
    crossing = np.interp(-1 / 7, -expected, radius)
    assert np.median(np.array(resolutions, float)) == pytest.approx(1 / crossing, rel=0.1)


def test_fourier_shells_of_equal_opposite_and_unrelated_images() -> None:
    image = white(6, (24, 40, 36))
    assert values(fourier_shell(image, image))["fourier_shell_mean"] == pytest.approx(1)
    assert fourier_shell(image, image)[1].reason == "no shell is below 0.143"
    np.testing.assert_allclose(shells_of(image, -image).correlation, -1)
    assert fourier_shell(image, -image)[1].reason == "the first shell is below 0.143"
    shells = shells_of(image, white(7, image.shape))
    # Of unrelated images the correlation scatters by one over the root of the number of independent frequencies: each
    # and its negative are one, and neighbours share 2/3, next ones 1/6 under a Hann window: 35/18 per axis.
    assert np.abs(shells.correlation * np.sqrt(shells.samples / 2 / (35 / 18) ** 3)).max() < 4


def test_fourier_shells_take_any_unit_scale_and_offset() -> None:
    rng = np.random.default_rng(8)
    image = ndimage.gaussian_filter(white(8, (20, 48, 44)), 1.0)
    other = image + 0.5 * rng.standard_normal(image.shape)
    voxel = (0.6, 0.3, 0.3)
    before = shells_of(image, other, voxel=voxel, wedge=30.0)
    # Beyond the axial limit, half of the lateral one, the wedge reaches only as far as its edge.
    assert before.frequency.max() <= 1 / (2 * 0.6 * math.cos(math.radians(30))) + 1 / (20 * 0.6)
    for changed in (1e30 * image, 1e-3 * image - 5):
        np.testing.assert_allclose(shells_of(changed, other, voxel=voxel, wedge=30.0).correlation, before.correlation)
    wide = shells_of(image, other, voxel=tuple(1000 * v for v in voxel), wedge=30.0)
    np.testing.assert_allclose(wide.frequency, before.frequency / 1000)
    np.testing.assert_allclose(wide.correlation, before.correlation)


def test_fourier_shells_are_undefined_without_contrast_or_room_and_refuse_what_does_not_fit() -> None:
    image = white(9, (16, 16))
    assert "constant" in fourier_shell(image, np.ones((16, 16)))[0].reason
    assert "finite" in fourier_shell(np.where(np.eye(16), np.nan, 1.0), image)[0].reason
    assert "too small" in fourier_shell(image[:3], image[:3])[0].reason
    for other, settings, message in (
        (image[1:], {}, r"^images of shapes \(16, 16\) and \(15, 16\); accepted: one shape of 2 or 3 axes$"),
        (image, {"voxel": (1.0,) * 3}, "3 voxel sizes for 2 axes; accepted: one per axis"),
        (image, {"wedge": 0.0}, "wedge of 0.0 degrees about axis 0; accepted: above 0 to 90, about axes 0 to 1"),
        (image, {"wedge": 20.0, "axis": 2}, "about axis 2"),
    ):
        with pytest.raises(InputError, match=message):
            fourier_shell(image, other, **settings)  # type: ignore[arg-type]


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

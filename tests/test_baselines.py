"""What a user would pick instead: checked against closed forms and independent implementations."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage import restoration
from skimage.exposure import equalize_adapthist

from deepcontrast import registry
from deepcontrast.baselines import Scene
from deepcontrast.baselines._noise import noise_or_estimate
from deepcontrast.baselines.band_pass_2d import band_pass_2d
from deepcontrast.baselines.band_pass_3d import band_pass_3d
from deepcontrast.baselines.bilateral import bilateral
from deepcontrast.baselines.clahe_2d import clahe_2d
from deepcontrast.baselines.clahe_3d import clahe_3d
from deepcontrast.baselines.median import median
from deepcontrast.baselines.nlm import nlm
from deepcontrast.baselines.richardson_lucy import richardson_lucy, suggested
from deepcontrast.baselines.rolling_ball import rolling_ball
from deepcontrast.baselines.tv import tv
from deepcontrast.baselines.unsharp import unsharp
from deepcontrast.errors import InputError
from deepcontrast.stack import Optics

OWN_PACKAGE = ("bm3d", "bm4d")
# FCE-Net trains a network: its tests are its own.
NAMES = [name for name in registry.names("baselines") if name != "fce_net"]
SCENE = Scene(radius=2.0, anisotropy=2.0, noise=10.0, background=100.0, gain=2.0, optics=Optics())
Volume = NDArray[np.float32]


def texture(shape: tuple[int, int, int], seed: int = 0) -> Volume:
    noise = np.random.default_rng(seed).random(shape, np.float32)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return np.asarray(100 + 900 * (smooth - smooth.min()) / (smooth.max() - smooth.min()), np.float32)


def noisy(clean: Volume, noise: float, seed: int = 0) -> Volume:
    return np.asarray(clean + noise * np.random.default_rng(seed).standard_normal(clean.shape), np.float32)


@pytest.fixture
def _packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the packages that a user may have: a Gaussian of the width of the noise in the unit given."""
    for name in OWN_PACKAGE:
        package = ModuleType(name)
        setattr(package, name, lambda z, sigma_psd: ndimage.gaussian_filter(z, min(1.0, 10 * sigma_psd)))
        monkeypatch.setitem(sys.modules, name, package)


@pytest.mark.usefixtures("_packages")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_shape_is_kept_type_is_float32_and_the_input_is_not_touched(name: str, dtype: type) -> None:
    volume = texture((3, 21, 34)).astype(dtype)
    before = volume.copy()
    out = registry.load("baselines", name)(volume)
    assert (out.shape, out.dtype) == (volume.shape, np.float32)
    assert np.isfinite(out).all()
    assert not np.shares_memory(out, volume)
    np.testing.assert_array_equal(volume, before)


@pytest.mark.usefixtures("_packages")
@pytest.mark.parametrize("name", NAMES)
def test_one_plane_and_a_constant_volume_are_no_special_case(name: str) -> None:
    baseline = registry.load("baselines", name)
    assert np.isfinite(baseline(texture((1, 20, 20)))).all()
    for level in (0.0, 7.0, 60000.0):
        flat = baseline(np.full((3, 20, 20), level, np.float32))
        # Of what lies beyond the border, a deconvolution leaves out what sends hardly any light across it.
        assert np.ptp(flat) <= level * (0.01 if name == "richardson_lucy" else 1e-5)
        partly = texture((3, 20, 20)) + np.float32(level)
        partly[1] = 3.0
        assert np.isfinite(baseline(partly)).all()


@pytest.mark.usefixtures("_packages")
@pytest.mark.parametrize("name", NAMES)
def test_suggested_settings_and_every_choice_are_accepted_and_can_be_written_down(name: str) -> None:
    module, volume = registry.module("baselines", name), texture((2, 16, 17))
    settings = module.suggested(SCENE)
    assert 2 <= len(module.CHOICES) <= 8
    results = []
    for choice in ({}, *module.CHOICES):
        given = {**settings, **choice}
        assert given == {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(json.dumps(given)).items()}
        results.append(registry.load("baselines", name)(volume, **given))
        assert np.isfinite(results[-1]).all()
    assert len({r.tobytes() for r in results[1:]}) > 1


@pytest.mark.usefixtures("_packages")
@pytest.mark.parametrize("name", sorted({*NAMES} - {"richardson_lucy", "rolling_ball"}))
def test_result_does_not_depend_on_offset_or_unit(name: str) -> None:
    # A rolling ball is as high as wide in grey levels, and photons have a unit: theirs depends.
    settings = registry.module("baselines", name).suggested(SCENE)
    other = {**settings, **({"noise": 40 * SCENE.noise} if "noise" in settings else {})}
    baseline, volume = registry.load("baselines", name), texture((3, 20, 22))
    shift = 0.0 if name.startswith("band_pass") else 20000.0
    expected = 40 * baseline(volume, **settings) + shift
    np.testing.assert_allclose(baseline(40 * volume + np.float32(20000), **other), expected, atol=40 * 900 * 5e-3)


@pytest.mark.usefixtures("_packages")
@pytest.mark.parametrize("name", ["bilateral", "bm3d", "bm4d", "nlm", "tv"])
def test_noise_is_estimated_where_it_is_not_given(name: str) -> None:
    baseline = registry.load("baselines", name)
    volume = noisy(np.full((4, 48, 48), 500, np.float32), 10.0)
    assert noise_or_estimate(volume, None) == pytest.approx(10.0, rel=0.05)
    estimated = baseline(volume)
    np.testing.assert_allclose(estimated, baseline(volume, noise=10.0), atol=1.5)
    assert estimated.std() < 0.5 * volume.std()
    np.testing.assert_array_equal(baseline(volume, noise=0.0), volume)
    with pytest.raises(InputError, match="noise of -1"):
        baseline(volume, noise=-1.0)


@pytest.mark.parametrize("name", OWN_PACKAGE)
def test_a_package_that_is_not_installed_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"pip install {name}") as error:
        registry.load("baselines", name)(texture((1, 8, 8)))
    assert "\n" not in str(error.value)


def test_planes_of_bm3d_and_the_volume_of_bm4d_reach_their_packages_in_units_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[tuple[int, ...], float, float, float]] = []

    def denoise(z: NDArray[np.float64], sigma_psd: float) -> NDArray[np.float64]:
        seen.append((z.shape, float(z.min()), float(z.max()), sigma_psd))
        return z

    volume = texture((2, 12, 14))
    for name in OWN_PACKAGE:
        package = ModuleType(name)
        setattr(package, name, denoise)
        monkeypatch.setitem(sys.modules, name, package)
        out = registry.load("baselines", name)(volume, noise=9.0, strength=2.0)
        np.testing.assert_allclose(out, volume, atol=1e-3)
    spans = [np.ptp(volume[0]), np.ptp(volume[1]), np.ptp(volume)]
    assert [s[0] for s in seen] == [(12, 14), (12, 14), (2, 12, 14)]
    np.testing.assert_allclose([s[1:] for s in seen], [(0, 1, 18 / span) for span in spans], rtol=1e-5)


@pytest.mark.parametrize("baseline", [band_pass_2d, band_pass_3d])
def test_band_pass_passes_a_wave_by_the_difference_of_two_gaussian_transfer_functions(
    baseline: Callable[..., Volume],
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


def test_band_pass_3d_of_thick_planes_is_that_of_isotropic_voxels_at_every_third_plane() -> None:
    fine = np.zeros((31, 41, 41), np.float32)
    fine[15, 20, 20] = 1.0
    # A sum over a Gaussian's samples is its integral: one plane of three carries a third of the light each.
    isotropic = band_pass_3d(fine, low=3.0, high=6.0)[::3]
    thick = band_pass_3d(fine[::3], low=3.0, high=6.0, anisotropy=3.0)
    np.testing.assert_allclose(thick, 3 * isotropic, atol=0.03 * 3 * isotropic.max())
    with pytest.raises(InputError, match="anisotropy 0"):
        band_pass_3d(fine, anisotropy=0.0)


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
def test_clahe_stretches_a_dim_corner(baseline: Callable[..., Volume]) -> None:
    volume = texture((6, 64, 64))
    volume[:, :32, :32] = 100 + 0.1 * (volume[:, :32, :32] - 100)
    corner = np.s_[:, :16, :16]
    out = baseline(volume, block=32, slope=10.0)
    assert np.std(out[corner]) > 2 * np.std(volume[corner])


def test_rolling_ball_takes_a_smooth_background_and_keeps_a_spot() -> None:
    y, x = np.indices((80, 90), dtype=np.float32)
    slope = 1000 + 0.3 * y + 0.4 * x
    spot = 300 * np.exp(-((y - 40) ** 2 + (x - 45) ** 2) / (2 * 2.0**2))
    out = rolling_ball((slope + spot)[None], radius=15.0)[0]
    away = (np.hypot(y - 40, x - 45) > 12) & (y > 15) & (y < 65) & (x > 15) & (x < 75)
    assert np.ptp(slope[away]) > 30
    assert np.abs(out[away]).max() < 4
    # The ball's top rises a little into the spot: the 3 x 3 mean of its brim.
    assert out[40, 45] == pytest.approx(300, abs=15)


@pytest.mark.parametrize("radius", [4.0, 10.0])
def test_small_rolling_ball_is_the_surface_of_a_ball_below_the_grey_levels(radius: float) -> None:
    volume = texture((1, 60, 60))
    background = volume - rolling_ball(volume, radius=radius, smooth=False)
    reach = int(radius)
    dy, dx = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    ball = np.where(np.hypot(dy, dx) <= radius, np.sqrt(np.maximum(radius**2 - dy**2 - dx**2, 0)), -np.inf)
    for plane, got in zip(volume, background, strict=True):
        opened = ndimage.grey_opening(plane, footprint=np.isfinite(ball), structure=np.where(ball < 0, 0, ball))
        inner = np.s_[2 * reach : -2 * reach, 2 * reach : -2 * reach]
        np.testing.assert_allclose(got[inner], opened[inner], atol=1e-2)


def test_large_rolling_ball_at_low_resolution_stays_below_and_near_the_whole_one() -> None:
    volume = texture((1, 70, 70))
    quick = volume - rolling_ball(volume, radius=20.0, smooth=False)
    whole = -restoration.rolling_ball(-restoration.rolling_ball(volume[0], radius=20.0), radius=20.0)
    assert (quick <= volume).all()
    assert np.abs(quick[0] - whole).mean() < 0.05 * np.ptp(volume)


def test_rolling_ball_refuses_a_ball_smaller_than_a_pixel() -> None:
    with pytest.raises(InputError, match="accepted: 1 pixel or more"):
        rolling_ball(texture((1, 8, 8)), radius=0.5)


def test_unsharp_is_fijis_formula_for_its_default_weight() -> None:
    volume, weight = texture((2, 40, 40)), 0.6
    blurred = np.stack([ndimage.gaussian_filter(plane, 3.0, mode="reflect") for plane in volume])
    fiji = (volume - weight * blurred) / (1 - weight)
    np.testing.assert_allclose(unsharp(volume, radius=3.0, amount=1.5), fiji, rtol=1e-3, atol=0.5)


def test_median_removes_hot_pixels_and_leaves_a_straight_edge() -> None:
    clean = np.full((5, 20, 20), 100, np.float32)
    clean[:, :, 10:] = 400
    hot = clean.copy()
    hot[2, 5, 5] = hot[1, 14, 15] = 60000
    np.testing.assert_array_equal(median(hot), clean)
    np.testing.assert_array_equal(median(hot, radius=2, radius_z=0), clean)


def test_median_window_is_an_ellipsoid() -> None:
    column = np.zeros((5, 3, 3), np.float32)
    column[1:4, 1, 1] = 5.0
    # Three voxels of seven are no majority; of a window of three planes by one pixel they are.
    assert median(column, radius=1, radius_z=1)[2, 1, 1] == 0
    assert median(column, radius=0, radius_z=1)[2, 1, 1] == 5
    with pytest.raises(InputError, match="radius -1"):
        median(column, radius=-1)


@pytest.mark.parametrize(
    ("denoise", "settings"),
    [
        (tv, {"strength": 1.0}),
        (tv, {"strength": 1.0, "planes": True}),
        (bilateral, {"strength": 3.0}),
        (nlm, {}),
        (nlm, {"planes": False, "patch": 3, "distance": 3}),
    ],
)
def test_denoisers_halve_the_error_and_keep_the_position_of_an_edge(
    denoise: Callable[..., Volume], settings: dict[str, Any]
) -> None:
    clean = np.full((4, 40, 40), 200, np.float32)
    clean[:, :, 17:] = 300
    raw = noisy(clean, 10.0)
    out = denoise(raw, noise=10.0, **settings)
    assert np.abs(out - clean).mean() < 0.5 * np.abs(raw - clean).mean()
    steps = np.diff(out.mean(axis=(0, 1)))
    assert int(steps.argmax()) == 16
    assert steps[16] > 60
    assert np.sort(steps)[-2] < 30


@pytest.mark.parametrize("denoise", [tv, nlm])
def test_planes_by_themselves_do_not_see_their_neighbours(denoise: Callable[..., Volume]) -> None:
    volume = noisy(np.full((5, 20, 20), 300, np.float32), 10.0)
    alone = denoise(volume, noise=10.0, planes=True)
    np.testing.assert_allclose(alone[2], denoise(volume[2:3], noise=10.0)[0], atol=1e-3)
    space = denoise(volume, noise=10.0, planes=False)
    assert np.abs(space[2] - alone[2]).max() > 0.1
    assert space.std() < alone.std()


def gaussian_psf(sigma: float = 1.2, half: int = 5) -> NDArray[np.float64]:
    axes = np.indices((2 * half + 1,) * 3) - half
    psf = np.exp(-(axes**2).sum(axis=0) / (2 * sigma**2))
    return np.asarray(psf / psf.sum())


def beads(shape: tuple[int, int, int], places: list[tuple[int, int, int]], light: float = 20000.0) -> Volume:
    image = np.zeros(shape, np.float32)
    for place in places:
        image[place] = light
    return np.asarray(signal.fftconvolve(image, gaussian_psf(), mode="same").clip(0), np.float32)


def test_richardson_lucy_narrows_a_point_and_keeps_its_light_and_place() -> None:
    rng = np.random.default_rng(0)
    raw = np.asarray(12 + 2 * rng.poisson(beads((15, 31, 31), [(7, 12, 17)])), np.float32)
    out = richardson_lucy(raw, psf=gaussian_psf(), offset=10.0, background=2.0, iterations=60, tolerance=0.0)
    z, y, x = np.indices(raw.shape)
    near = (abs(z - 7) < 6) & (abs(y - 12) < 6) & (abs(x - 17) < 6)
    assert (out * near).sum(dtype=float) == pytest.approx(40000, rel=0.02)
    assert np.unravel_index(out.argmax(), out.shape) == (7, 12, 17)

    def spread(image: Volume) -> float:
        light = image * near
        return float(np.sqrt((light * ((y - 12) ** 2 + (x - 17) ** 2)).sum() / light.sum() / 2))

    assert spread(raw - 12) == pytest.approx(1.2, rel=0.1)
    assert spread(out) < 0.6


@pytest.mark.parametrize("iterations", [1, 10])
def test_richardson_lucy_without_background_conserves_light(iterations: int) -> None:
    raw = np.random.default_rng(5).poisson(beads((15, 31, 31), [(7, 12, 17), (6, 17, 11)])).astype(np.float32)
    out = richardson_lucy(raw, psf=gaussian_psf(), iterations=iterations, tolerance=0.0)
    assert out.sum(dtype=float) == pytest.approx(raw.sum(dtype=float), rel=0.02)


def test_richardson_lucy_does_not_wrap_around() -> None:
    volume = beads((15, 31, 31), [(0, 0, 0)])
    out = richardson_lucy(volume, psf=gaussian_psf(), iterations=30, tolerance=0.0)
    assert out[:3, :3, :3].sum() > 0.9 * out.sum()
    for opposite in (out[-5:], out[:, -5:], out[:, :, -5:]):
        assert opposite.max() < 1e-3 * out.max()


def test_richardson_lucy_draws_no_rim_around_a_bright_field() -> None:
    rng = np.random.default_rng(1)
    scene = 100 + 900 * ndimage.gaussian_filter(rng.random((31, 61, 61)), 2)
    raw = signal.fftconvolve(scene, gaussian_psf(), mode="same")[8:-8, 8:-8, 8:-8].astype(np.float32)
    truth = scene[8:-8, 8:-8, 8:-8]
    out = richardson_lucy(raw, psf=gaussian_psf(), iterations=40, tolerance=0.0)
    rim = np.ones(out.shape, bool)
    rim[2:-2, 2:-2, 2:-2] = False
    # Zeros beyond the field would make its corners eight times too dark before the first iteration.
    assert np.abs(out[rim].mean() / truth[rim].mean() - 1) < 0.05
    assert out[rim].std() < 0.1 * out[rim].mean()


def test_richardson_lucy_agrees_with_scikit_image_away_from_the_border() -> None:
    volume = beads((13, 27, 27), [(6, 12, 13), (6, 15, 15), (7, 13, 9)]) + np.float32(50)
    # Lopsided, so that correlation and convolution differ.
    psf = gaussian_psf(half=4) + 0.3 * np.roll(gaussian_psf(half=4), (0, 0, 3), axis=(0, 1, 2))
    psf /= psf.sum()
    ours = richardson_lucy(volume, psf=psf, iterations=25, tolerance=0.0)
    # Both start flat; scikit-image at another level, which the first iteration forgets.
    padded = np.pad(volume, 8, mode="edge").astype(np.float64)
    theirs = restoration.richardson_lucy(padded, psf, num_iter=25, clip=False)[8:-8, 8:-8, 8:-8]
    inner = np.s_[4:-4, 6:-6, 6:-6]
    np.testing.assert_allclose(ours[inner], theirs[inner], rtol=0.02, atol=2.0)


def test_i_divergence_never_rises() -> None:
    counts = np.random.default_rng(2).poisson(beads((11, 25, 25), [(5, 12, 12), (5, 9, 14)], 3000.0) + 10)
    y = counts.astype(np.float32)
    divergences = []
    for iterations in (1, 2, 3, 5, 8, 13, 21):
        x = richardson_lucy(y, psf=gaussian_psf(half=4), background=10.0, iterations=iterations, tolerance=0.0)
        model = signal.fftconvolve(x, gaussian_psf(half=4), mode="same")[3:-3, 4:-4, 4:-4] + 10.0
        data = y[3:-3, 4:-4, 4:-4].astype(float)
        divergences.append(float((data * np.log(np.maximum(data, 1e-9) / model) - data + model).sum()))
    assert np.all(np.diff(divergences) < 0)


def test_richardson_lucy_stops_at_the_first_iteration_whose_residual_is_as_small_as_the_noise() -> None:
    rng = np.random.default_rng(3)
    truth = beads((11, 29, 29), [(5, 12, 12), (5, 18, 18), (4, 16, 9)]) + 20.0
    # The rule is told more noise than there is, so that it ends soon.
    raw = np.asarray(60 + 2.0 * rng.poisson(truth / 2) + 5.0 * rng.standard_normal(truth.shape), np.float32)
    settings = {"psf": gaussian_psf(half=4), "offset": 60.0, "background": 20.0, "tolerance": 0.0}
    stopped = richardson_lucy(raw, gain=2.0, read_noise=10.0, **settings)
    ratios = []
    for iterations in range(1, 30):
        x = richardson_lucy(raw, iterations=iterations, **settings)
        light = signal.fftconvolve(x, gaussian_psf(half=4), mode="same") + 20
        ratios.append(float(np.mean((light + 60 - raw) ** 2) / (2 * light.mean() + 100)))
        if np.array_equal(x, stopped):
            break
    assert len(ratios) < 29
    assert min(ratios[:-1]) > 1 >= ratios[-1]


def test_richardson_lucy_stops_at_the_first_iteration_that_gains_little() -> None:
    volume = beads((9, 25, 25), [(4, 12, 12)]) + np.float32(20)
    settings = {"psf": gaussian_psf(half=4), "background": 20.0}
    results = [richardson_lucy(volume, iterations=n, tolerance=0.0, **settings) for n in range(1, 16)]
    models = [signal.fftconvolve(x, gaussian_psf(half=4), mode="same") + 20 for x in results]
    divergence = np.array([(volume * np.log(volume / m) - volume + m).sum(dtype=float) for m in models])
    gains = -np.diff(divergence) / divergence[1:]
    for tolerance in (0.3, 0.1):
        stop = 1 + int(np.argmax(gains < tolerance))
        np.testing.assert_array_equal(richardson_lucy(volume, tolerance=tolerance, **settings), results[stop])


def test_regularisation_takes_noise_and_leaves_edges() -> None:
    rng = np.random.default_rng(4)
    scene = np.full((12, 40, 40), 10.0)
    scene[3:9, 12:28, 12:28] = 60.0
    raw = rng.poisson(signal.fftconvolve(np.pad(scene, 6, mode="edge"), gaussian_psf(), mode="same")[6:-6, 6:-6, 6:-6])
    plain, smooth = (
        richardson_lucy(raw.astype(np.float32), psf=gaussian_psf(), regularisation=r, tolerance=0.0) for r in (0, 0.02)
    )
    inner = np.s_[5:7, 15:25, 15:25]
    assert smooth[inner].std() < 0.5 * plain[inner].std()
    assert smooth[inner].mean() == pytest.approx(60, rel=0.05)
    profile = smooth[5:7, 15:25].mean(axis=(0, 1))
    assert {int(np.diff(profile).argmax()), int(np.diff(profile).argmin())} == {11, 27}


def test_richardson_lucy_in_slabs_equals_the_whole() -> None:
    volume = beads((32, 24, 24), [(15, 12, 12), (16, 8, 15), (28, 12, 10)]) + np.float32(30)
    settings = {"psf": gaussian_psf(half=3), "iterations": 6, "tolerance": 0.0}
    whole, slabs = richardson_lucy(volume, **settings), richardson_lucy(volume, slab=9, **settings)
    np.testing.assert_allclose(slabs, whole, rtol=0.03, atol=1.0)


def test_richardson_lucy_of_one_plane_uses_the_focus_alone() -> None:
    plane = beads((1, 31, 31), [(0, 15, 15)])
    psf = gaussian_psf()
    by_plane = richardson_lucy(plane, psf=psf[5], iterations=10, tolerance=0.0)
    np.testing.assert_allclose(richardson_lucy(plane, psf=psf, iterations=10, tolerance=0.0), by_plane, atol=0.01)
    assert by_plane.sum(dtype=float) == pytest.approx(plane.sum(dtype=float), rel=0.01)


def test_richardson_lucy_lifts_a_negative_offset() -> None:
    volume = beads((9, 21, 21), [(4, 10, 10)])
    settings = {"psf": gaussian_psf(half=3), "iterations": 5, "tolerance": 0.0}
    shifted = richardson_lucy(volume - np.float32(50), offset=-50.0, **settings)
    np.testing.assert_allclose(shifted, richardson_lucy(volume, **settings), rtol=1e-3, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"iterations": 0}, "iterations of richardson_lucy is 0; accepted: 1 to inf"),
        ({"background": -1.0}, "background of richardson_lucy is -1.0"),
        ({"regularisation": 0.5}, "accepted: 0 to 0.1"),
        ({"slab": 0}, "slab of richardson_lucy is 0"),
        ({"psf": np.full((3, 3, 3), np.nan)}, "27 of 27 values of the PSF are NaN"),
        ({"na": 1.5, "index": 1.33}, "numerical aperture 1.5"),
    ],
)
def test_richardson_lucy_refuses_what_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        richardson_lucy(texture((3, 9, 9)), **wrong)


@pytest.mark.parametrize(
    ("optics", "expected"),
    [
        (Optics(), {"na": 1.3, "wavelength_um": 0.52, "index": 1.45, "voxel_um": (0.6, 0.3, 0.3)}),
        (
            Optics((1.0, 0.2, 0.2), numerical_aperture=0.8, wavelengths=(610.0, 520.0), refractive_index=1.33),
            {"na": 0.8, "wavelength_um": 0.61, "index": 1.33, "voxel_um": (1.0, 0.2, 0.2)},
        ),
        (Optics((None, 0.2, 0.2), numerical_aperture=1.4), {"na": 1.4, "index": 1.515, "voxel_um": (0.4, 0.2, 0.2)}),
        (Optics(numerical_aperture=0.75), {"index": 1.0}),
        (Optics(numerical_aperture=1.2, refractive_index=1.0), {"index": 1.33}),
    ],
)
def test_deconvolution_takes_what_the_optics_know_and_else_the_papers_microscope(
    optics: Optics, expected: dict[str, Any]
) -> None:
    settings = suggested(Scene(radius=2.0, anisotropy=2.0, noise=10.0, background=100.0, gain=2.0, optics=optics))
    assert {key: settings[key] for key in expected} == expected
    assert settings["excitation_um"] / settings["wavelength_um"] == pytest.approx(488 / 520)
    assert (settings["offset"], settings["gain"]) == (100.0, 2.0)

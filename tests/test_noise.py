"""The camera estimate against simulated cameras of known gain, offset, read noise and fixed pattern."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from deepcontrast.errors import InputError
from deepcontrast.noise import Camera, estimate_camera, remove_pattern, subtract_lines

SHAPE = (32, 128, 128)
Volume = NDArray[np.float32]


def smooth_field(rng: np.random.Generator, sigma: tuple[float, float, float], shape: tuple[int, ...]) -> Volume:
    field = gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap")
    return np.asarray(field / field.std(), np.float32)


def tissue(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE, size: float = 4.0, width: float = 1.2) -> Volume:
    """Membranes (of Gaussian width in px) and spots on haze, fading to 30 % with depth; brightest parts near 1."""
    cells = smooth_field(rng, (size / 2, size, size), shape)
    slope = np.sqrt(sum(g**2 for g in np.gradient(cells))) + 1e-6
    thin = np.exp(-((cells / slope) ** 2) / (2 * 0.5**2))
    points = (rng.random(shape) < 0.003).astype(np.float32)
    psf = np.sqrt(width**2 - 0.5**2)
    structure = gaussian_filter(thin, (psf, psf, psf)) * width + 8 * gaussian_filter(points, (1.5, width, width))
    scene = structure + 0.12 * np.exp(0.7 * smooth_field(rng, (8, 20, 20), shape))
    fading = np.exp(-1.2 * np.arange(shape[0]) / shape[0])[:, None, None]
    return np.asarray(fading * scene / np.percentile(scene, 95), np.float32)


def camera(
    rng: np.random.Generator, photons: Volume, gain: float, offset: float, read: float = 1.0, whole: bool = True
) -> Volume:
    """Grey levels of a camera; read noise in electrons."""
    grey = gain * (rng.poisson(photons) + read * rng.standard_normal(photons.shape)) + offset
    return np.asarray(np.clip(np.round(grey), 0, 65535) if whole else grey, np.float32)


def usable(found: Camera) -> bool:
    numbers = [found.gain, found.intercept, found.fixed_pattern, *found.whiteness, *found.means, *found.variances]
    return bool(np.all(np.isfinite(numbers))) and found.gain > 0 and len(found.means) <= 40


@pytest.fixture(scope="module")
def scenes() -> list[Volume]:
    return [tissue(np.random.default_rng(9100 + k)) for k in range(2)]


@pytest.mark.parametrize(
    ("gain", "photons", "offset", "read"),
    [
        (0.5, 400, 100, 1.5),
        (0.5, 2000, 400, 0.0),
        (2.0, 120, 100, 3.0),
        (10.0, 30, 200, 1.0),
        (40.0, 20, 300, 1.0),
        (40.0, 6, 500, 0.5),
    ],
)
def test_gain_within_a_tenth_and_intercept_within_five_levels_or_five_percent(
    scenes: list[Volume], gain: float, photons: float, offset: float, read: float
) -> None:
    for k, scene in enumerate(scenes):
        rng = np.random.default_rng(9200 + k)
        found, pattern = estimate_camera([camera(rng, scene * photons, gain, offset, read)])
        assert found.poissonian, found.notes
        assert found.gain == pytest.approx(gain, rel=0.1)
        assert found.intercept == pytest.approx(offset - read**2 * gain, abs=max(5, 0.05 * offset))
        assert max(map(abs, found.whiteness)) < 0.06
        assert pattern is None
        assert usable(found)


def test_low_counts_are_not_biased() -> None:
    """The mean error over seeds is far below the tolerance of one; a median of skewed counts would show here."""
    ratios = []
    for seed in range(9300, 9304):
        rng = np.random.default_rng(seed)
        photons = 2.5 * np.exp(0.7 * smooth_field(rng, (6, 15, 15), SHAPE))
        ratios.append(estimate_camera([camera(rng, photons, 40, 200, 0.5)], remove_pattern=False)[0].gain / 40)
    assert abs(np.mean(ratios) - 1) < 0.03


def test_sharp_bright_structure_does_not_pass_for_noise() -> None:
    rng = np.random.default_rng(9400)
    scene = tissue(rng, size=2.5, width=1.0) * 3000
    found, _ = estimate_camera([camera(rng, scene, 0.5, 200, 1.0)])
    assert found.gain == pytest.approx(0.5, rel=0.1)


def test_offset_and_read_noise_are_told_apart_only_with_a_signal_free_region(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9500)
    lit = scenes[0] * 200
    dark = lit.copy()
    dark[:, :48] = 0
    found, _ = estimate_camera([camera(rng, dark, 2.0, 150, 2.0)])
    assert found.offset == pytest.approx(150, abs=0.5)
    assert found.read_noise == pytest.approx(4.0, rel=0.1)
    assert found.background == found.offset
    found, _ = estimate_camera([camera(rng, lit, 2.0, 150, 2.0)])
    assert found.offset is None
    assert found.read_noise is None
    assert found.background == max(found.intercept, found.darkest or 0) < 150


def test_an_evenly_lit_region_is_not_taken_for_signal_free(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9510)
    photons = scenes[0] * 200 + 3
    photons[:, :48] = 3
    assert estimate_camera([camera(rng, photons, 2.0, 150, 0.5)])[0].offset is None


def test_a_pixel_pattern_is_recovered_and_removed(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9600)
    shape = (36, *SHAPE[1:])
    scene = tissue(rng, shape) * 200
    truth = rng.normal(0, 4, shape[1:]) + rng.normal(0, 3, shape[2])
    volume = camera(rng, scene, 1.0, 100) + np.round(truth).astype(np.float32)
    found, pattern = estimate_camera([volume])
    assert pattern is not None
    assert found.pattern_kind == "pixels"
    assert found.fixed_pattern > 0.1
    corrected = remove_pattern(subtract_lines(volume.astype(np.float32), found.lines), pattern)
    removed = (volume - corrected).mean(axis=0)
    assert np.corrcoef(removed.ravel(), truth.ravel())[0, 1] > 0.8
    assert (truth - removed).std() < 0.6 * truth.std()
    assert found.gain == pytest.approx(1.0, rel=0.1)
    after, _ = estimate_camera([corrected])
    assert after.fixed_pattern < 0.25 * found.fixed_pattern
    kept, _ = estimate_camera([volume], remove_pattern=False)
    assert kept.pattern_kind == "none"
    assert kept.gain == pytest.approx(1.0, rel=0.1)


def test_fixed_columns_are_found_in_few_planes_and_structure_stays(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9610)
    scene = scenes[0][:20] * 300
    truth = np.round(rng.normal(0, 4, SHAPE[2])).astype(np.float32)
    clean = camera(rng, scene, 1.0, 100)
    found, pattern = estimate_camera([clean + truth], lines=[False])
    assert pattern is not None
    assert found.pattern_kind == "rows and columns"
    fine = truth - gaussian_filter(truth, 2.0)  # broad stripes cannot be told from structure
    assert np.corrcoef(pattern.mean(0), fine)[0, 1] > 0.8
    assert pattern.std(0).max() < 0.1 * truth.std()
    change = remove_pattern(clean + truth, pattern) - clean
    assert change.std() < 0.6 * truth.std()


@pytest.mark.parametrize("planes", [10, 40])
def test_structure_that_goes_through_all_planes_is_not_taken_for_a_pattern(planes: int) -> None:
    """Straight walls along z, some along image columns, are the same in every plane; only a camera is white."""
    rng = np.random.default_rng(9620 + planes)
    plane = tissue(rng, (8, *SHAPE[1:]))[4]
    plane[:, 40:44] += gaussian_filter(np.eye(1, 4, 2)[0], 1.0).astype(np.float32) * 2
    plane = gaussian_filter(plane, 0.8)
    scene = np.repeat(plane[None], planes, 0) * 300
    found, pattern = estimate_camera([camera(rng, scene, 1.0, 100)])
    assert pattern is None, found.notes
    assert found.pattern_kind == "none"


def test_a_pattern_under_structure_that_stays_does_not_carry_the_structure_away() -> None:
    rng = np.random.default_rng(9630)
    plane = tissue(rng, (8, *SHAPE[1:]))[4]
    scene = np.repeat(plane[None], 40, 0) * 300
    clean = camera(rng, scene, 1.0, 100)
    truth = np.round(rng.normal(0, 4, SHAPE[1:])).astype(np.float32)
    _, pattern = estimate_camera([clean + truth])
    assert pattern is not None
    structure = gaussian_filter(scene[0], 1.0) - gaussian_filter(scene[0], 6.0)
    lost = np.sum(gaussian_filter(pattern, 1.0) * structure) / np.sum(structure**2)
    assert abs(lost) < 0.03


@pytest.mark.parametrize("how", ["smoothed", "half a pixel in x", "half a plane in z"])
def test_correlated_noise_is_called_not_white(scenes: list[Volume], how: str) -> None:
    rng = np.random.default_rng(9700)
    raw = camera(rng, scenes[0] * 200, 2.0, 100)
    if how == "smoothed":
        volume, axes = gaussian_filter(raw, (0, 0.6, 0.6)), (1, 2)
    elif how == "half a pixel in x":
        volume, axes = np.asarray((raw[..., 1:] + raw[..., :-1]) / 2), (2,)
    else:
        volume, axes = np.asarray((raw[1:] + raw[:-1]) / 2), (0,)
    found, _ = estimate_camera([volume])
    assert not found.poissonian
    assert (found.spread == 1) == (how == "half a plane in z")
    assert "not white" in " ".join(found.notes)
    for axis in range(3):
        assert (found.whiteness[axis] > 0.3) == (axis in axes)


def test_the_effective_gain_gives_the_noise_of_resampled_data_at_the_median(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9710)
    photons = 100 * np.exp(0.5 * smooth_field(rng, (6, 15, 15), SHAPE))
    raw = camera(rng, photons, 2.0, 100, 0.0)
    found, _ = estimate_camera([np.asarray((raw[..., 1:] + raw[..., :-1]) / 2)])
    median = float(np.median(raw))
    assert found.gain * (median - found.intercept) == pytest.approx(2.0 * (median - 100) / 2, rel=0.2)


@pytest.mark.parametrize("how", ["mean of 3 x 3", "half a pixel", "smoothed"])
def test_spread_photons_make_as_much_of_coarse_noise_as_before(how: str) -> None:
    rng = np.random.default_rng(9715)
    photons = 100 * np.exp(0.5 * smooth_field(rng, (6, 15, 15), SHAPE))
    raw = camera(rng, photons, 2.0, 100, 0.0)
    if how == "mean of 3 x 3":
        volume = uniform_filter(raw, (1, 3, 3))
    elif how == "half a pixel":
        volume = np.asarray((raw[..., 1:] + raw[..., :-1]) / 2)
    else:
        volume = gaussian_filter(raw, (0, 0.8, 0.8))
    found, _ = estimate_camera([volume])
    assert found.spread is not None
    assert not found.poissonian
    median = float(np.median(raw))
    # The intercept is the floor of the image: what is right at the median is the power of the noise.
    power = found.gain * found.spread * (median - found.intercept)
    assert power == pytest.approx(2.0 * (median - 100), rel=0.35)


@pytest.mark.parametrize("planes", [1, 2])
def test_of_one_or_two_planes_it_is_not_told_how_far_photons_were_spread(planes: int) -> None:
    rng = np.random.default_rng(9716)
    raw = camera(rng, 100 * np.exp(0.5 * smooth_field(rng, (6, 15, 15), SHAPE)), 2.0, 100, 0.0)
    assert estimate_camera([uniform_filter(raw, (0, 3, 3))[:planes]])[0].spread is None


def test_frame_average_has_the_gain_of_the_average_and_says_so(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9720)
    frames = [camera(rng, scenes[0] * 200, 2.0, 100, 1.0) for _ in range(4)]
    found, _ = estimate_camera([np.mean(frames, axis=0, dtype=np.float32)])
    assert found.gain == pytest.approx(0.5, rel=0.1)
    assert any("not whole numbers" in note for note in found.notes)


def test_rounding_that_hides_the_noise_is_not_poissonian(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9730)
    raw = camera(rng, scenes[0] * 20000, 0.5, 100)
    found, _ = estimate_camera([np.round(raw / raw.max() * 60)])
    assert not found.poissonian
    assert any("rounding" in note for note in found.notes)
    assert usable(found)


def test_rescaling_to_8_bits_is_said_and_saturation_left_out(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9740)
    raw = camera(rng, scenes[0] * 60, 4.0, 100)
    low, high = np.percentile(raw, (1, 98))
    scale = 255 / (high - low)
    found, _ = estimate_camera([np.round(np.clip((raw - low) * scale, 0, 255))])
    assert found.gain == pytest.approx(4.0 * scale, rel=0.1)
    text = " ".join(found.notes)
    assert "8 bits" in text
    assert "highest value 255" in text


def test_denoised_data_is_not_poissonian(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9750)
    raw = camera(rng, scenes[0] * 100, 2.0, 100)
    found, _ = estimate_camera([np.round(gaussian_filter(raw, 1.5))])
    assert not found.poissonian
    assert usable(found)


def test_noise_that_does_not_rise_with_the_mean_is_not_poissonian(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9760)
    volume = np.round(scenes[0] * 500 + rng.normal(100, 8, SHAPE)).astype(np.float32)
    found, _ = estimate_camera([volume])
    assert not found.poissonian
    assert found.gain * (float(np.median(volume)) - found.intercept) == pytest.approx(64, rel=0.2)


def test_what_the_user_gives_overrides(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9800)
    volume = camera(rng, scenes[0] * 200, 2.0, 100, 2.0)
    found, _ = estimate_camera([volume], gain=2.5, offset=103.0)
    assert found.gain == 2.5
    assert found.offset == found.background == 103.0
    assert found.read_noise is not None
    assert any("given by the user" in note for note in found.notes)
    found, _ = estimate_camera([volume], offset=100.0)
    assert found.read_noise == pytest.approx(4.0, rel=0.5)
    assert found.gain == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_an_offset_below_the_level_without_noise_is_not_believed(scenes: list[Volume], seed: int) -> None:
    volume = camera(np.random.default_rng(9805 + seed), scenes[0] * 50, 2.0, 100, 2.0)
    plain, _ = estimate_camera([volume])
    low, _ = estimate_camera([volume], offset=80.0)
    assert low.background == low.offset == low.intercept == plain.intercept
    assert low.read_noise is None
    assert any("The offset 80 was given by the user, but" in note for note in low.notes)
    # The offset itself, one that is lower by what may be chance, and any that is higher, is the user's to say.
    for offset in (100.0, plain.intercept - 1, 120.0):
        assert estimate_camera([volume], offset=offset)[0].background == offset


def test_what_is_subtracted_is_not_far_below_the_darkest_voxels() -> None:
    """So much read noise that the variance vanishes 40 grey levels below the offset, and haze everywhere."""
    rng = np.random.default_rng(9807)
    photons = 400 * np.exp(0.5 * smooth_field(rng, (6, 15, 15), SHAPE)) + 400
    volume = camera(rng, photons, 0.25, 200, 12.0)
    found, _ = estimate_camera([volume])
    assert found.poissonian
    assert found.intercept < 180
    assert 200 < found.background < volume.min() + 10
    assert "hardly any voxel is darker" in " ".join(found.notes)


@pytest.mark.parametrize("excess", [0.02, 0.05])
def test_the_right_offset_is_believed_where_other_noise_grows_with_the_light(
    scenes: list[Volume], excess: float
) -> None:
    """As the strength of a laser or speckle does: the intercept is then far above the offset."""
    rng = np.random.default_rng(9808)
    light = scenes[0] * 1000 * (1 + excess * rng.standard_normal(SHAPE)).clip(0)
    volume = camera(rng, np.asarray(light, np.float32), 2.0, 100)
    assert estimate_camera([volume])[0].intercept > 104
    assert estimate_camera([volume], offset=100.0)[0].background == 100


def test_a_low_offset_is_believed_where_the_noise_is_not_of_photons(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9809)
    volume = np.round(scenes[0] * 500 + rng.normal(100, 8, SHAPE)).astype(np.float32)
    assert estimate_camera([volume], offset=20.0)[0].background == 20


def test_invalid_voxels_count_for_nothing(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9810)
    volume = camera(rng, scenes[0] * 100, 2.0, 100)
    valid = np.ones(SHAPE, bool)
    valid[:, :40] = valid[:10, :, :50] = False
    plain, _ = estimate_camera([volume], valid=[valid], remove_pattern=False)
    spoiled = volume.copy()
    spoiled[~valid] = rng.choice(np.array([0, 40000, np.nan], np.float32), int((~valid).sum()))
    found, _ = estimate_camera([spoiled], valid=[valid], remove_pattern=False)
    assert found == plain
    assert found.gain == pytest.approx(2.0, rel=0.1)


def test_several_volumes_of_any_size_share_one_camera(scenes: list[Volume]) -> None:
    rng = np.random.default_rng(9820)
    volumes = [camera(rng, scenes[0] * 100, 2.0, 100), camera(rng, scenes[1][:20, :90, :70] * 30, 2.0, 100)]
    found, pattern = estimate_camera(volumes, valid=[None, np.ones(volumes[1].shape, bool)])
    assert found.gain == pytest.approx(2.0, rel=0.1)
    assert pattern is None
    assert any("differ in plane size" in note for note in found.notes)


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 48, 40), (3, 16, 16), (1, 3, 3), (12, 20, 20), (1, 1, 1)])
@pytest.mark.parametrize("kind", ["noise", "constant", "two levels", "ramp"])
def test_little_or_nothing_to_measure_gives_a_finite_camera(shape: tuple[int, int, int], kind: str) -> None:
    rng = np.random.default_rng(9830)
    volume = {
        "noise": rng.poisson(20, shape) + 100.0,
        "constant": np.full(shape, 7.0),
        "two levels": np.where(np.arange(np.prod(shape)).reshape(shape) % 2, 1.0, 0.0),
        "ramp": np.arange(np.prod(shape), dtype=float).reshape(shape),
    }[kind].astype(np.float32)
    found, _ = estimate_camera([volume])
    assert usable(found)
    assert not found.poissonian or kind == "noise"
    assert found.notes
    json.dumps(asdict(found), allow_nan=False)


def test_nothing_valid_gives_a_finite_camera() -> None:
    volume = np.full((4, 32, 32), np.nan, np.float32)
    found, pattern = estimate_camera([volume])
    assert usable(found)
    assert pattern is None


def test_wrong_input_is_refused_with_what_is_accepted() -> None:
    volume = np.ones((4, 32, 32), np.float32)
    for call in (
        lambda: estimate_camera([]),
        lambda: estimate_camera([volume[0]]),
        lambda: estimate_camera([volume], valid=[np.ones((4, 32, 31), bool)]),
        lambda: estimate_camera([volume], valid=[None, None]),
        lambda: estimate_camera([volume], gain=0.0),
        lambda: estimate_camera([volume], offset=float("nan")),
        lambda: remove_pattern(volume, np.ones((32, 31), np.float32)),
    ):
        with pytest.raises(InputError, match="accepted"):
            call()

"""The metrics against independent implementations, closed forms and their invariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from deepcontrast.metrics import Measurement
from deepcontrast.metrics.iou import iou
from deepcontrast.metrics.pci import pci
from deepcontrast.metrics.pearson import pearson
from deepcontrast.metrics.ssim import ssim
from deepcontrast.metrics.wci import wci

SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.floats(1e-3, 1e3)
OFFSETS = st.floats(-1e3, 1e3)


def plane(seed: int, shape: tuple[int, int] = (40, 33)) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, 10.0, shape) + rng.random(shape)


def values(rows: tuple[Measurement, ...]) -> dict[str, float | None]:
    return {row.metric: row.value for row in rows}


def haar_details(image: NDArray[np.float64], levels: int) -> list[list[float]]:
    """The definition written out: sums and differences of 2 x 2 blocks, halved at each level."""
    found = []
    for _ in range(levels):
        a, b = image[0::2, 0::2], image[0::2, 1::2]
        c, d = image[1::2, 0::2], image[1::2, 1::2]
        details = [(a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2]
        found.append([abs(float(v)) for band in details for v in band.ravel()])
        image = (a + b + c + d) / 2
    return found


def test_wci_equals_hand_written_haar() -> None:
    image = plane(1, (64, 48))
    levels = haar_details(image, 4)
    pooled = [v for level in levels for v in level]
    got = values(wci(image))
    assert got["wci"] == pytest.approx(math.log(np.percentile(pooled, 95) / np.percentile(pooled, 50)))
    for n, level in enumerate(levels, 1):
        expected = math.log(np.percentile(level, 95) / np.percentile(level, 50))
        assert got[f"wci_level_{n}"] == pytest.approx(expected)


def test_wci_equals_pywavelets_wavedec2() -> None:
    image = plane(2, (64, 96))
    bands = [np.abs(band).ravel() for level in pywt.wavedec2(image, "haar", level=4)[1:] for band in level]
    high, median = np.percentile(np.concatenate(bands), (95, 50))
    assert values(wci(image))["wci"] == pytest.approx(math.log(high / median))


def test_wci_of_a_step_and_noise_is_known() -> None:
    # One column in ten of all horizontal differences is 8, the others are 1, so P95 / P50 = 8.
    image = np.zeros((2, 40))
    image[:, 1::2] = 1.0
    image[:, 1:4:2] = 8.0
    rows = wci(image, levels=1)
    # Two of the three bands are 0: the median is 0, and that is said.
    assert rows[0].value is None
    assert "median" in rows[0].reason
    # A tilt fills them.
    tilted = image + 3.0 * np.arange(2)[:, None] + np.array([[0.5, -0.5] * 20, [-0.5, 0.5] * 20])
    expected = haar_details(tilted, 1)[0]
    assert values(wci(tilted, levels=1))["wci"] == pytest.approx(
        math.log(np.percentile(expected, 95) / np.percentile(expected, 50))
    )


def test_wci_ignores_an_odd_last_row_and_column() -> None:
    image = plane(3, (33, 65))
    other = image.copy()
    other[-1], other[:, -1] = 1e6, -1e6
    assert wci(image) == wci(other) == wci(image[:32, :64])


def test_wci_drops_every_coefficient_that_touches_an_invalid_voxel() -> None:
    image, valid = plane(4, (32, 32)), np.ones((32, 32), bool)
    valid[5, 20] = False
    other = image.copy()
    other[5, 20] = np.nan
    assert wci(image, valid=valid) == wci(other, valid=valid)
    kept = np.ones((16, 16), bool)
    kept[2, 10] = False
    level = np.array(haar_details(image, 1)[0]).reshape(3, 16, 16)[:, kept]
    expected = math.log(np.percentile(level, 95) / np.percentile(level, 50))
    assert values(wci(image, valid=valid))["wci_level_1"] == pytest.approx(expected)


def test_wci_uses_the_levels_that_fit() -> None:
    image = plane(5, (8, 50))
    got = wci(image)
    assert values(got)["wci"] == values(wci(image, levels=3))["wci"]
    assert got[4] == Measurement("wci_level_4", None, "the plane is smaller than 16 pixels")
    assert [row.metric for row in got] == ["wci", *(f"wci_level_{n}" for n in (1, 2, 3, 4))]


@settings(max_examples=30, deadline=None)
@given(SEEDS, SCALES, OFFSETS)
def test_wci_is_unchanged_by_scale_and_offset(seed: int, scale: float, offset: float) -> None:
    image = plane(seed)
    for before, after in zip(wci(image), wci(scale * image + offset), strict=True):
        assert before.value is not None
        assert after.value == pytest.approx(before.value, rel=1e-5, abs=1e-6)


def test_contrast_indices_rank_a_sharp_plane_above_its_haze() -> None:
    rng = np.random.default_rng(0)
    filaments = np.abs(ndimage.gaussian_filter(rng.standard_normal((128, 128)), 6)) < 0.003
    clear = ndimage.gaussian_filter(5.0 + 100.0 * filaments, 1)
    sharp = rng.poisson(clear)
    hazy = rng.poisson(0.3 * clear + 0.7 * ndimage.gaussian_filter(clear, 20))
    for metric in (wci, pci):
        high, low = metric(sharp)[0].value, metric(hazy)[0].value
        assert high is not None
        assert low is not None
        assert high > low + 0.2


def test_wci_of_poisson_integers_has_no_infinite_value() -> None:
    dim = np.random.default_rng(0).poisson(0.05, (64, 64))
    row = wci(dim)[1]
    assert row.value is None
    assert row.reason


def test_pci_of_known_percentiles() -> None:
    image = np.arange(1.0, 102.0).reshape(1, -1)
    assert values(pci(image))["pci"] == pytest.approx(math.log(96 / 51))
    valid = image <= 51
    assert values(pci(image, valid=valid))["pci"] == pytest.approx(math.log(48.5 / 26))


@settings(max_examples=30, deadline=None)
@given(SEEDS, SCALES)
def test_pci_is_unchanged_by_scale(seed: int, scale: float) -> None:
    image = plane(seed)
    assert pci(scale * image)[0].value == pytest.approx(pci(image)[0].value)


def test_pci_needs_a_positive_median() -> None:
    for image in (np.zeros((8, 8)), plane(0) - 1e3):
        row = pci(image)[0]
        assert row.value is None
        assert "not positive" in row.reason


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(0.05, 0.9))
def test_iou_equals_65_thresholds_tried_one_by_one(seed: int, share: float) -> None:
    image = plane(seed)
    mask = np.random.default_rng(seed + 1).random(image.shape) < share
    mask[0, 0] = True
    low, high = np.percentile(image, [2, 99.9])
    best = 0.0
    for n in range(65):
        found = image > low + n * (high - low) / 64
        best = max(best, (found & mask).sum() / (found | mask).sum())
    # The brute force may differ by rounding at a threshold that coincides with a voxel.
    assert values(iou(image, mask))["iou"] == pytest.approx(best, abs=2 / image.size)


def test_iou_of_perfect_and_hopeless_images() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:10] = True
    assert values(iou(mask.astype(float), mask))["iou"] == 1.0
    assert values(iou(-mask.astype(float), mask))["iou"] == 0.0
    assert values(iou(np.full((20, 20), 7.0), mask))["iou"] == 0.0
    assert iou(plane(0, (20, 20)), np.zeros((20, 20), bool))[0].value is None


def test_iou_ignores_invalid_voxels() -> None:
    image, mask = plane(6), plane(7) > 25
    valid = np.ones(image.shape, bool)
    valid[:10] = False
    spoiled = np.where(valid, image, np.nan)
    assert iou(spoiled, mask, valid=valid) == iou(image[10:], mask[10:])


@settings(max_examples=30, deadline=None)
@given(SEEDS, SCALES, OFFSETS)
def test_iou_is_unchanged_by_a_positive_affine_change(seed: int, scale: float, offset: float) -> None:
    image, mask = plane(seed), plane(seed + 1) > 25
    before, after = iou(image, mask)[0].value, iou(scale * image + offset, mask)[0].value
    assert after == pytest.approx(before, abs=4 / image.size)


def test_ssim_equals_scikit_image_on_the_normalised_pair() -> None:
    truth = plane(8)
    image = 3.0 * truth + np.random.default_rng(0).normal(0, 30, truth.shape) - 50
    low, high = np.percentile(truth, [0.1, 99.9])
    target = (truth - low) / (high - low)
    slope, shift = np.linalg.lstsq(np.stack([image.ravel(), np.ones(image.size)], axis=1), target.ravel(), rcond=None)[
        0
    ]
    mean, similarity = structural_similarity(slope * image + shift, target, data_range=1, full=True)
    region = truth > 30
    got = values(ssim(image, truth, region=region))
    assert got["ssim"] == pytest.approx(mean)
    assert got["ssim_foreground"] == pytest.approx(similarity[region].mean())


@settings(max_examples=20, deadline=None)
@given(SEEDS, SCALES, OFFSETS)
def test_ssim_is_unchanged_by_an_affine_change_of_either(seed: int, scale: float, offset: float) -> None:
    truth = plane(seed)
    image = truth + plane(seed + 1)
    before = ssim(image, truth)[0].value
    assert ssim(scale * image + offset, truth)[0].value == pytest.approx(before, rel=1e-5)
    assert ssim(image, scale * truth + offset)[0].value == pytest.approx(before, rel=1e-5)


def test_ssim_of_the_truth_itself_is_one() -> None:
    truth = plane(9)
    assert values(ssim(truth, truth)) == {"ssim": pytest.approx(1.0)}


def test_ssim_falls_with_noise() -> None:
    rng, truth = np.random.default_rng(0), plane(10)
    scores = [ssim(truth + rng.normal(0, s, truth.shape), truth)[0].value for s in (1, 5, 25, 125)]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


def test_ssim_is_undefined_without_structure_window_or_region() -> None:
    small, flat = plane(0, (5, 5)), np.ones((20, 20))
    assert "window" in ssim(small, small)[0].reason
    assert "constant" in ssim(plane(0, (20, 20)), flat)[0].reason
    rows = ssim(plane(0), plane(0), region=np.zeros((40, 33), bool))
    assert rows[0].value is not None
    assert rows[1].value is None
    # A constant image is a poor one, not an undefined one.
    assert 0 <= ssim(flat, plane(0, (20, 20)))[0].value < 0.1  # type: ignore[operator]


def test_pearson_equals_numpy() -> None:
    truth = plane(11)
    image, region = truth + plane(12), truth > 20
    got = values(pearson(image, truth, region=region))
    assert got["pearson"] == pytest.approx(np.corrcoef(image.ravel(), truth.ravel())[0, 1])
    assert got["pearson_foreground"] == pytest.approx(np.corrcoef(image[region], truth[region])[0, 1])


def test_pearson_of_lines_is_plus_and_minus_one_in_any_unit() -> None:
    line = np.linspace(0, 1, 12).reshape(3, 4)
    for scale, expected in ((2.0, 1.0), (-3.0, -1.0), (1e-160, 1.0), (1e160, 1.0)):
        assert values(pearson(scale * line, line))["pearson"] == pytest.approx(expected)
    assert pearson(np.ones((3, 4)), line)[0].value is None


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", [wci, pci, iou, ssim, pearson])
def test_a_value_that_is_not_finite_gives_a_reason_and_no_number(
    metric: Callable[..., tuple[Measurement, ...]], spoil: float
) -> None:
    image = plane(0)
    image[3, 3] = spoil
    more = {iou: (plane(1) > 20,), ssim: (plane(1),), pearson: (plane(1),)}.get(metric, ())  # type: ignore[call-overload]
    for row in metric(image, *more):
        assert row.value is None
        assert "finite" in row.reason


@pytest.mark.parametrize("image", [np.zeros((16, 16), np.uint8), np.eye(16, dtype=np.float32)])
def test_degenerate_planes_never_give_inf_or_nan(image: NDArray[np.float32]) -> None:
    mask = np.eye(16, dtype=bool)
    rows = [*wci(image), *pci(image), *iou(image, mask), *ssim(image, mask), *pearson(image, mask)]
    rows += [*wci(image, valid=~np.ones_like(mask)), *pci(image, valid=~np.ones_like(mask))]
    for row in rows:
        assert row.reason if row.value is None else math.isfinite(row.value)

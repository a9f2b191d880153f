"""The metrics against independent implementations, closed forms and their invariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import pywt
import torch
from csbdeep.utils import normalize_minmse
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn.functional import avg_pool2d, conv2d

from deepcontrast.metrics import Measurement
from deepcontrast.metrics.iou import iou
from deepcontrast.metrics.iou_stack import iou_stack
from deepcontrast.metrics.ms_ssim import ms_ssim
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.pci import pci
from deepcontrast.metrics.pearson import pearson
from deepcontrast.metrics.psnr import psnr
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
@given(SEEDS, st.floats(0.05, 0.9), st.booleans())
def test_iou_equals_every_threshold_tried_one_by_one(seed: int, share: float, counts: bool) -> None:
    image = plane(seed, (20, 17))
    if counts:
        image = (image / 8).astype(np.uint8)
    mask = np.random.default_rng(seed + 1).random(image.shape) < share
    mask[0, 0] = True
    tried = [((image >= t) & mask).sum() / ((image >= t) | mask).sum() for t in np.unique(image)]
    assert values(iou(image, mask))["iou"] == max(tried)
    assert values(iou_stack(image[None], mask[None])) == {"iou_stack": max(tried)}


def test_iou_of_perfect_and_hopeless_images() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:10] = True
    assert values(iou(mask.astype(float), mask))["iou"] == 1.0
    # Nothing beats taking all: a quarter of the plane is mask.
    assert values(iou(-mask.astype(float), mask))["iou"] == 0.25
    assert values(iou(np.full((20, 20), 7.0), mask))["iou"] == 0.25
    assert iou(plane(0, (20, 20)), np.zeros((20, 20), bool))[0].value is None


def test_one_threshold_for_a_fading_stack_is_worse_than_one_per_plane() -> None:
    mask = np.zeros((2, 4, 4), bool)
    mask[:, 1] = True
    stack = np.where(mask, 10.0, 6.0)
    stack[1] -= 6
    assert [iou(p, m)[0].value for p, m in zip(stack, mask, strict=True)] == [1.0, 1.0]
    # At 10: the bright plane's 4; at 6: its 16 voxels; at 4: 20; at 0: all. 8 of the 32 are mask.
    assert iou_stack(stack, mask)[0].value == max(4 / 8, 4 / 20, 8 / 20, 8 / 32)
    valid = np.zeros(mask.shape, bool)
    valid[1] = True
    assert iou_stack(stack, mask, valid=valid)[0].value == 1.0


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([np.exp, np.cbrt, lambda v: 3.0 * v - 50, lambda v: v**3]))
def test_iou_is_unchanged_by_every_increasing_change(seed: int, change: Callable[..., NDArray[np.float64]]) -> None:
    image = plane(seed, (3, 400)).reshape(3, 20, 20).round(1) / 20
    mask = plane(seed + 1, (3, 400)).reshape(3, 20, 20) > 25
    assert iou_stack(change(image), mask) == iou_stack(image, mask)
    assert iou(change(image[0]), mask[0]) == iou(image[0], mask[0])


def test_iou_ignores_invalid_voxels() -> None:
    image, mask = plane(6), plane(7) > 25
    valid = np.ones(image.shape, bool)
    valid[:10] = False
    spoiled = np.where(valid, image, np.nan)
    assert iou(spoiled, mask, valid=valid) == iou(image[10:], mask[10:])


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


def test_a_volume_has_one_fit_and_windows_in_space() -> None:
    rng = np.random.default_rng(1)
    truth = ndimage.gaussian_filter(rng.normal(0, 1, (9, 20, 24)), 1.5)
    image = 2 * truth + rng.normal(0, 0.1, truth.shape) + np.arange(9)[:, None, None] / 30
    low, high = np.percentile(truth, [0.1, 99.9])
    target = (truth - low) / (high - low)
    slope, shift = np.polyfit(image.ravel(), target.ravel(), 1)
    fitted = slope * image + shift
    assert nrmse(image, truth)[0].value == pytest.approx(np.sqrt(np.mean((fitted - target) ** 2)))
    assert ssim(image, truth)[0].value == pytest.approx(structural_similarity(fitted, target, data_range=1))


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


def test_nrmse_equals_csbdeep_and_numpy() -> None:
    # 1e-10 of csbdeep's denominator is all that the two differ in.
    truth, image = plane(20), 40.0 * plane(21) - 3 * plane(20)
    low, high = np.percentile(truth, [0.1, 99.9])
    target = (truth - low) / (high - low)
    squares = (normalize_minmse(image, target) - target) ** 2
    region = truth > 30
    got = values(nrmse(image, truth, region=region))
    assert got["nrmse"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-6)
    assert got["nrmse_foreground"] == pytest.approx(np.sqrt(squares[region].mean()), rel=1e-6)


def test_nrmse_of_a_known_error() -> None:
    # Half the plane is 0, half 1, so the percentiles are those; the error has variance e and no correlation with
    # the truth's variance t. The fit shrinks both, and leaves t e / (t + e).
    truth = np.repeat([[0.0], [1.0]], 20, axis=0) * np.ones(40)
    error = np.tile([0.25, -0.25], 20)
    image = 5 * (truth + error) + 7
    left = 0.25 * 0.0625 / (0.25 + 0.0625)
    assert values(nrmse(image, truth))["nrmse"] == pytest.approx(math.sqrt(left))
    assert values(psnr(image, truth))["psnr"] == pytest.approx(10 * math.log10(1 / left))
    # No image at all: the standard deviation of the truth.
    assert values(nrmse(np.full_like(truth, 0.1), truth))["nrmse"] == pytest.approx(0.5)


def test_psnr_equals_scikit_image_on_the_normalised_pair() -> None:
    truth = plane(22)
    image = truth + 30 * plane(23)
    low, high = np.percentile(truth, [0.1, 99.9])
    target = (truth - low) / (high - low)
    fit = np.polynomial.Polynomial.fit(image.ravel(), target.ravel(), 1)(image)
    region = truth > 30
    got = values(psnr(image, truth, region=region))
    assert got["psnr"] == pytest.approx(peak_signal_noise_ratio(target, fit, data_range=1))
    assert got["psnr_foreground"] == pytest.approx(peak_signal_noise_ratio(target[region], fit[region], data_range=1))


def test_psnr_of_the_truth_itself_has_no_bound() -> None:
    truth = plane(24)
    for image in (truth, -3e5 * truth + 17):
        rows = psnr(image, truth, region=truth > 30)
        assert [row.value for row in rows] == [None, None]
        assert "no bound" in rows[0].reason
        assert nrmse(image, truth)[0].value == pytest.approx(0, abs=1e-11)


def ms_ssim_by_torch(image: NDArray[np.float64], truth: NDArray[np.float64], exponents: list[float]) -> float:
    """Wang's equation 7 by plain convolution with the outer product of the window."""
    taps = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (torch.outer(taps, taps) / taps.sum() ** 2)[None, None]
    low, high = np.percentile(truth, [0.1, 99.9])
    fit = np.polynomial.Polynomial.fit(image.ravel(), truth.ravel(), 1)(image)
    x, y = (torch.from_numpy((v - low) / (high - low))[None, None] for v in (fit, truth))
    product = 1.0
    for n, exponent in enumerate(exponents):
        mean_x, mean_y, xx, yy, xy = (conv2d(v, window) for v in (x, y, x * x, y * y, x * y))
        structure = (2 * (xy - mean_x * mean_y) + 9e-4) / (xx + yy - mean_x**2 - mean_y**2 + 9e-4)
        if n == len(exponents) - 1:
            structure = structure * (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
        product *= max(0.0, structure.mean().item()) ** exponent
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return product


WANG = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


@pytest.mark.parametrize(("shape", "scales"), [((176, 191), 5), ((175, 300), 4), ((88, 90), 4), ((22, 30), 2)])
def test_ms_ssim_equals_wangs_equation(shape: tuple[int, int], scales: int) -> None:
    truth = ndimage.gaussian_filter(plane(25, shape), 1)
    image = 3.0 * truth + np.random.default_rng(0).normal(0, 30, shape) - 50
    exponents = WANG if scales == 5 else [w / sum(WANG[:scales]) for w in WANG[:scales]]
    name = "ms_ssim" if scales == 5 else f"ms_ssim_{scales}_scales"
    expected = ms_ssim_by_torch(image, truth, exponents)
    assert 0.1 < expected < 0.95
    assert values(ms_ssim(image, truth)) == {name: pytest.approx(expected, rel=1e-9)}


def test_ms_ssim_of_a_foreground_sees_the_foreground() -> None:
    truth = ndimage.gaussian_filter(plane(26, (128, 128)), 1)
    image = truth.copy()
    image[:, 64:] += np.random.default_rng(0).normal(0, 20, (128, 64))
    left, everywhere, corner = (np.zeros((128, 128), bool) for _ in range(3))
    left[:, :64], everywhere[:], corner[:4, :4] = True, True, True
    whole, clean = ms_ssim(image, truth, region=left)
    _, noisy = ms_ssim(image, truth, region=~left)
    assert None not in (noisy.value, whole.value, clean.value)
    assert noisy.value < whole.value < clean.value  # type: ignore[operator]
    assert [row.value for row in ms_ssim(image, truth, region=everywhere)] == [whole.value, pytest.approx(whole.value)]
    assert [row.metric for row in (whole, clean)] == ["ms_ssim_4_scales", "ms_ssim_4_scales_foreground"]
    assert "region is empty" in ms_ssim(image, truth, region=corner)[1].reason


def test_ms_ssim_of_truth_negative_and_small_planes() -> None:
    truth = plane(27, (40, 40))
    assert values(ms_ssim(truth, truth)) == {"ms_ssim_2_scales": pytest.approx(1.0)}
    assert "22 pixels" in ms_ssim(truth[:21], truth[:21])[0].reason
    # The fit turns a negative back; what is opposed where the rest agrees counts as 0, not as NaN.
    assert values(ms_ssim(-truth, truth)) == {"ms_ssim_2_scales": pytest.approx(1.0)}
    torn, region = truth.copy(), np.zeros(truth.shape, bool)
    torn[:14], region[:14] = 2 * truth.mean() - truth[:14], True
    assert values(ms_ssim(torn, truth, region=region))["ms_ssim_2_scales_foreground"] == 0.0


@settings(max_examples=20, deadline=None)
@given(SEEDS, SCALES, OFFSETS)
@pytest.mark.parametrize("metric", [nrmse, psnr, ms_ssim])
def test_scores_are_unchanged_by_an_affine_change_of_either(
    metric: Callable[..., tuple[Measurement, ...]], seed: int, scale: float, offset: float
) -> None:
    truth = plane(seed)
    image = truth + plane(seed + 1)
    before = metric(image, truth)[0].value
    assert metric(scale * image + offset, truth)[0].value == pytest.approx(before, rel=1e-5)
    assert metric(image, scale * truth + offset)[0].value == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", [wci, pci, iou, iou_stack, ssim, ms_ssim, nrmse, psnr, pearson])
def test_a_value_that_is_not_finite_gives_a_reason_and_no_number(
    metric: Callable[..., tuple[Measurement, ...]], spoil: float
) -> None:
    image = plane(0)
    image[3, 3] = spoil
    truth = dict.fromkeys((ssim, ms_ssim, nrmse, psnr, pearson), plane(1))
    more = {iou: plane(1) > 20, iou_stack: plane(1) > 20} | truth
    for row in metric(image, *([more[metric]] if metric in more else [])):
        assert row.value is None
        assert "finite" in row.reason


DEGENERATE = {
    "zero": np.zeros((24, 24), np.uint8),
    "one in a row": np.eye(24, dtype=np.float32),
    "one bright pixel": np.pad([[1e6]], ((5, 18), (5, 18))),
    "huge": np.eye(24, dtype=np.float32) * np.float32(3e38),
    "tiny": np.eye(24) * 1e-200,
    "constant that rounds": np.full((24, 24), 0.1),
}


@pytest.mark.parametrize("first", DEGENERATE)
@pytest.mark.parametrize("second", DEGENERATE)
def test_degenerate_planes_never_give_inf_or_nan(first: str, second: str) -> None:
    image, truth, mask = DEGENERATE[first], DEGENERATE[second], np.eye(24, dtype=bool)
    rows = [*wci(image), *pci(image), *iou(image, mask), *iou_stack(image, mask)]
    for metric in (ssim, ms_ssim, nrmse, psnr, pearson):
        for region in (mask, ~np.ones_like(mask)):
            rows += metric(image, truth, region=region)
    for metric in (wci, pci):
        rows += metric(image, valid=~np.ones_like(mask))
    for metric in (iou, iou_stack):
        rows += metric(image, mask, valid=~np.ones_like(mask))
    for row in rows:
        assert row.reason if row.value is None else math.isfinite(row.value)

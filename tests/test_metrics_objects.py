"""The scores of segmentations against cases counted by hand, another algorithm and their invariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from deepcontrast.errors import InputError
from deepcontrast.metrics import Measurement
from deepcontrast.metrics._matching import THRESHOLDS
from deepcontrast.metrics.error import error, error_curve, error_of_labels
from deepcontrast.metrics.jaccard import jaccard, jaccard_map
from deepcontrast.metrics.membrane_seg import DEPTHS, WIDTHS, cells, membrane_seg
from deepcontrast.metrics.seg import _reach, seg, seg_of_labels

SEEDS = st.integers(0, 2**32 - 1)
Labels = NDArray[np.int64]


def values(rows: tuple[Measurement, ...]) -> dict[str, float | None]:
    return {row.metric: row.value for row in rows}


def row_of(*runs: tuple[int, int]) -> Labels:
    """Return one row of pixels from (number, length)."""
    return np.concatenate([np.full(length, number) for number, length in runs])[None]


def segmentations(seed: int, shape: tuple[int, ...] = (40, 40)) -> tuple[Labels, Labels]:
    """Return a segmentation and a reference that resemble each other, numbered with gaps."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    other = smooth + 0.5 * ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    found, known = (ndimage.label(v > level * v.std())[0] for v, level in ((other, 0.8), (smooth, 0.7)))
    return found * 7, known * 3 + (known > 0)


def pairs_of(found: Labels, known: Labels) -> tuple[NDArray[np.float64], ...]:
    """Return shared voxels, and the sizes on either side, of every pair: objects one by one."""
    ours, theirs = ([image == n for n in np.unique(image) if n] for image in (found, known))
    shared = np.array([[(a & b).sum() for b in theirs] for a in ours], float)
    return shared, np.array([[a.sum()] for a in ours]), np.array([b.sum() for b in theirs])


def test_the_error_is_the_least_of_its_curve() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((30, 40), int)
    labels[5:12, 5:15], labels[15:25, 20:35] = 1, 2
    image = (labels > 0) + rng.normal(0, 0.2, labels.shape)
    curve = error_curve(image, labels)
    assert not isinstance(curve, str)
    thresholds, errors = curve
    np.testing.assert_allclose(thresholds[[0, -1]], np.percentile(image, (3, 99)))
    assert len(thresholds) == len(errors) == THRESHOLDS
    lowest, at = error(image, labels)
    assert (lowest.value, at.value) == (errors.min(), thresholds[errors.argmin()])
    assert error_curve(image, 0 * labels) == "the labels are empty"


def test_seg_error_and_jaccard_of_a_case_counted_by_hand() -> None:
    #                 exactly half    more than half   missed   nothing there   two in one
    known = row_of((1, 4), (0, 4), (2, 4), (0, 2), (3, 2), (0, 4), (4, 3), (5, 3))
    found = row_of((9, 2), (0, 6), (8, 3), (0, 5), (7, 3), (0, 1), (6, 6))
    # SEG: 1 has exactly half (0), 2 has 3 / 4, 3 nothing, 4 and 5 each 3 / 6 with the one that holds both.
    assert values(seg_of_labels(found, known)) == {"seg": pytest.approx((0.75 + 0.5 + 0.5) / 5)}
    # ERROR: only 2 and 8 hold more than half of each other: 3 of 4 and 4 of 5 are unmatched.
    assert values(error_of_labels(found, known)) == {"error": pytest.approx((3 + 4) / 5)}
    assert values(jaccard(found, known)) == {"jaccard": pytest.approx((0.5 + 0.75 + 0 + 0.5) / 4)}
    painted = jaccard_map(found, known)
    assert painted.dtype == np.float32
    assert {n: painted[found == n].tolist() for n in (9, 8, 7, 6, 0)} == {
        9: [0.5] * 2, 8: [0.75] * 3, 7: [0.0] * 3, 6: [0.5] * 6, 0: [0.0] * 12,
    }  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.booleans())
def test_scores_equal_an_assignment_of_objects_compared_one_by_one(seed: int, volume: bool) -> None:
    found, known = segmentations(seed, (8, 14, 14) if volume else (40, 40))
    if not found.any() or not known.any():
        return
    shared, ours, theirs = pairs_of(found, known)
    union = shared / (ours + theirs - shared)
    assert values(jaccard(found, known))["jaccard"] == pytest.approx(union.max(axis=1).mean())
    assert values(seg_of_labels(found, known))["seg"] == pytest.approx(
        np.where(shared / theirs > 0.5, union, 0).max(axis=0).mean()
    )
    # The largest set of mutual pairs, by an assignment that knows nothing of uniqueness.
    mutual = (shared / theirs > 0.5) & (shared / ours > 0.5)
    matched = mutual[linear_sum_assignment(mutual, maximize=True)].sum()
    unmatched = (len(ours) - matched) + (len(theirs) - matched)
    assert values(error_of_labels(found, known))["error"] == pytest.approx(unmatched / len(theirs))


def test_scores_of_perfect_and_empty_segmentations() -> None:
    _, known = segmentations(1)
    nothing = np.zeros_like(known)
    assert values(seg_of_labels(known, known)) == {"seg": 1.0}
    assert values(error_of_labels(known, known)) == {"error": 0.0}
    assert values(jaccard(known, known)) == {"jaccard": 1.0}
    assert values(seg_of_labels(nothing, known)) == {"seg": 0.0}
    assert values(error_of_labels(nothing, known)) == {"error": 1.0}
    assert jaccard(nothing, known)[0].value is None
    for score in (seg_of_labels, error_of_labels, jaccard):
        assert score(known, nothing) == (Measurement(score.__name__.split("_")[0], None, "the labels are empty"),)
    assert not jaccard_map(known, nothing).any()


def nuclei(seed: int, *, noise: float = 0.0) -> tuple[NDArray[np.float64], Labels]:
    """Return squares of 10 x 10 px and brightness 100 on 0, and their labels."""
    known = np.zeros((70, 70), np.int64)
    for n in range(16):
        y, x = 5 + 16 * (n // 4), 5 + 16 * (n % 4)
        known[y : y + 10, x : x + 10] = n + 1
    return 100.0 * (known > 0) + np.random.default_rng(seed).normal(0, noise, known.shape), known


def test_sweeps_equal_thresholds_tried_one_by_one() -> None:
    image, known = nuclei(0, noise=35)
    low, high = np.percentile(image, [3, 99])
    thresholds = np.linspace(low, high, THRESHOLDS)
    scores: dict[str, list[float | None]] = {"seg": [], "error": []}
    for t in thresholds:
        found = ndimage.label(image > t)[0]
        sizes = np.bincount(found.ravel())
        found[sizes[found] < 6] = 0
        scores["seg"].append(seg_of_labels(found, known)[0].value)
        scores["error"].append(error_of_labels(found, known)[0].value)
    got = values(seg(image, known, smallest=6)) | values(error(image, known, smallest=6))
    assert got["seg"] == max(scores["seg"]) > 0.3  # type: ignore[type-var, operator]
    assert got["seg_threshold"] == pytest.approx(thresholds[np.argmax(scores["seg"])])  # type: ignore[arg-type]
    assert got["error"] == min(scores["error"])  # type: ignore[type-var]
    assert got["error_threshold"] == pytest.approx(thresholds[np.argmin(scores["error"])])  # type: ignore[arg-type]


def test_breadth_is_the_range_of_thresholds_that_serve() -> None:
    # Two levels: squares are whole below 100; half of each is 150, so above 100 only that half is found.
    image, known = nuclei(0)
    for n in range(1, 17):
        rows, columns = ndimage.find_objects(known)[n - 1]
        image[rows.start : rows.start + 5, columns] = 150.0
    got = values(seg(image, known))
    assert got["seg"] == 1.0
    # The sweep runs from 0 to 150; SEG is 1 below 100 and, as half is not more than half, 0 from there: the
    # peak ends within the step from 98.4 (21 of 32) to 103.1, where the line between 1 and 0 crosses 0.9.
    assert got["seg_breadth"] == pytest.approx((21 + 0.1) / 32)
    wide = values(seg(np.minimum(image, 100.0), known))
    # At 100 itself nothing is above the threshold.
    assert wide["seg_breadth"] == pytest.approx((31 + 0.1) / 32)


def test_reach_goes_on_to_the_first_score_below_nine_tenths() -> None:
    assert _reach(np.array([1.0, 0.95, 0.85, 1.0])) == pytest.approx(1.5)
    assert _reach(np.array([0.5, 0.5, 0.45])) == 2.0
    assert _reach(np.array([0.5])) == 0.0


def test_a_broader_peak_is_seen_as_broader() -> None:
    (clear, known), (noisy, _) = nuclei(1, noise=15), nuclei(1, noise=35)
    good, poor = values(seg(clear, known)), values(seg(noisy, known))
    for name in ("seg", "seg_breadth"):
        assert good[name] > poor[name] + 0.1  # type: ignore[operator]


@settings(max_examples=5, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_sweeps_are_unchanged_by_a_positive_affine_change(seed: int, scale: float, offset: float) -> None:
    image, known = nuclei(seed, noise=25)
    for metric in (seg, error):
        before, after, doubled = (metric(v, known) for v in (image, scale * image + offset, 2 * image))
        # A threshold may round to the other side of one voxel; doubling rounds nothing.
        assert after[0].value == pytest.approx(before[0].value, abs=0.01)
        assert doubled == (before[0], before[1]._replace(value=2 * before[1].value), *before[2:])  # type: ignore[operator]


def test_specks_are_no_objects_unless_asked_for() -> None:
    image, known = nuclei(2)
    image[::70, ::9] = 100.0
    specks = int((image[0] > 0).sum())
    assert values(error(image, known))["error"] == 0.0
    assert values(error(image, known, smallest=1))["error"] == specks / 16


def test_sweeps_ignore_invalid_voxels() -> None:
    image, known = nuclei(3, noise=25)
    valid = np.ones(image.shape, bool)
    valid[:20] = False
    spoiled = np.where(valid, image, np.nan)
    for metric in (seg, error):
        assert metric(spoiled, known, valid=valid) == metric(image[20:], known[20:])
        assert metric(image, known, valid=~np.ones_like(valid))[0].value is None
        assert "finite" in metric(spoiled, known)[0].reason


def test_a_sweep_that_ends_below_the_objects_is_not_measured() -> None:
    image, known = np.zeros((100, 100)), np.zeros((100, 100), np.uint8)
    image[40:46, 40:52], known[40:46, 40:52] = 10.0, 1
    image += np.random.default_rng(0).normal(0, 0.1, image.shape)
    for metric in (seg, error):
        assert "fill 0.72 %" in metric(image, known)[0].reason
    assert values(seg(image, known, percentiles=(3, 99.9)))["seg"] == 1.0
    flat = np.full((100, 100), 3.0)
    assert "constant" in seg(flat, known)[0].reason


@pytest.mark.parametrize("score", [seg_of_labels, error_of_labels, jaccard, jaccard_map, seg, error, membrane_seg])
def test_what_are_no_labels_is_refused_in_one_line(score: Callable[..., object]) -> None:
    image, known = nuclei(0)
    first = image if score in (seg, error, membrane_seg) else known
    for wrong in (known > 0, image):
        with pytest.raises(InputError, match=r"^labels of type \w+; accepted: integers, .*$"):
            score(first, wrong)
    with pytest.raises(InputError, match=r"of shape .*; accepted: that of the"):
        score(first[1:], known)


def epithelium(seed: int, *, noise: float = 0.0) -> tuple[NDArray[np.float64], Labels]:
    """Return membranes of brightness 100, about 3 px wide, between cells of some 16 px, and the cells."""
    rng, n = np.random.default_rng(seed), 80
    middles = (np.indices((5, 5)).reshape(2, -1).T + 0.5) * 16 + rng.uniform(-4, 4, (25, 2))
    distance, nearest = cKDTree(middles).query(np.indices((n, n)).reshape(2, -1).T, k=2)
    between = (distance[:, 1] - distance[:, 0]).reshape(n, n) / 2
    image = 100 * np.exp(-(between**2) / (2 * 1.3**2)) + noise * rng.standard_normal((n, n))
    return image, nearest[:, 0].reshape(n, n).astype(np.int64) + 1


def test_cells_between_perfect_membranes_are_found_and_noise_costs_some() -> None:
    for seed in range(3):
        image, known = epithelium(seed)
        clear = values(membrane_seg(image, known))["membrane_seg"]
        scores = [values(membrane_seg(epithelium(seed, noise=n)[0], known))["membrane_seg"] for n in (40, 160)]
        assert clear > 0.9  # type: ignore[operator]
        assert clear > scores[0] > scores[1] + 0.1  # type: ignore[operator]


def test_the_score_of_membranes_is_the_best_of_all_settings_tried() -> None:
    image, known = epithelium(4, noise=60)
    scores = {
        (width, depth): seg_of_labels(cells(image, width=width, depth=depth), known)[0].value
        for width in WIDTHS
        for depth in DEPTHS
    }
    got = values(membrane_seg(image, known))
    assert got["membrane_seg"] == max(scores.values())  # type: ignore[type-var]
    assert scores[got["membrane_seg_width"], got["membrane_seg_depth"]] == got["membrane_seg"]  # type: ignore[index]
    assert got["membrane_seg"] > scores[1.0, 0.02] + 0.2  # type: ignore[operator]
    # Another unit is another name for the same image.
    assert membrane_seg(4 * image + 256, known)[0].value == pytest.approx(got["membrane_seg"], abs=0.02)


def test_lines_between_cells_are_one_pixel_of_no_cell() -> None:
    image, _ = epithelium(5)
    whole, parted = (cells(image, width=1.0, depth=0.1, lines=lines) for lines in (False, True))
    assert whole.min() == 1
    assert whole.max() == parted.max() == 25
    # Without them the cells no longer touch along faces.
    assert ndimage.label(parted)[1] == 25
    np.testing.assert_array_equal(whole[parted > 0], parted[parted > 0])
    # With the lines known as such, the segmentation of the image is the reference itself.
    assert membrane_seg(image, parted, widths=(1.0,), depths=(0.1,), lines=True)[0].value == 1.0


def test_a_shallow_basin_is_a_cell_only_where_the_depth_asked_for_is_less() -> None:
    # Two basins, 0 and 60 deep, part at a ridge of 100: the shallow one is 40 of 100 deep.
    image = np.repeat(np.interp(np.arange(41.0), [0, 10, 20, 30, 40], [100, 0, 100, 60, 100])[None], 20, axis=0)
    assert [cells(image, width=0.0, depth=depth).max() for depth in (0.05, 0.35, 0.45)] == [2, 2, 1]


def test_membranes_without_cells_or_contrast_are_not_scored() -> None:
    image, known = epithelium(0)
    assert "empty" in membrane_seg(image, 0 * known)[0].reason
    assert "constant" in membrane_seg(0 * image, known)[0].reason
    assert "finite" in membrane_seg(np.where(known == 1, np.nan, image), known)[0].reason
    with pytest.raises(InputError, match=r"^cells of width 1 and depth 0 in an image of 2 axes; accepted: .*plane"):
        cells(image, width=1, depth=0)
    with pytest.raises(InputError, match="of 3 axes"):
        membrane_seg(np.stack([image]), np.stack([known]))

"""The rules for k: what they reward, what they do not, and a blend without steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepcontrast.explain import copies, explained
from deepcontrast.select import (
    Brightness,
    Choice,
    bins,
    blend,
    by_mask,
    largest_that_explains,
    match_brightness,
    predicts_neighbours,
)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return structures (Z, Y, X) that change slowly along z, and a noisy recording of them."""
    rng = np.random.default_rng(3)
    clean = ndimage.gaussian_filter(rng.normal(size=(16, 96, 96)), (3, 2, 2))
    clean = np.maximum(clean / clean.std(), 0) * 40
    noisy = clean + 200 + rng.normal(0, 25, clean.shape)
    return clean.astype(np.float32), noisy.astype(np.float32)


def scores(scene: tuple[np.ndarray, np.ndarray], *results: np.ndarray) -> np.ndarray:
    depth = np.arange(16.0)
    return predicts_neighbours([scene[1], *results], depth, bins([depth])).mean(axis=0)


def test_keeping_the_noise_is_not_rewarded_and_losing_structure_is_punished(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    clean, noisy = scene
    lost = np.where(clean > 60, clean, 0).astype(np.float32)
    raw, kept, faithful, poor = scores(scene, noisy * 1.0, clean, lost)
    assert kept == pytest.approx(raw, abs=0.01)
    assert faithful > kept
    assert poor < faithful - 0.05


def test_the_score_does_not_see_brightness_or_offset(scene: tuple[np.ndarray, np.ndarray]) -> None:
    _, one, two = scores(scene, scene[0], scene[0] * 7 + 300)
    assert two == pytest.approx(one, abs=1e-4)


def test_the_largest_k_within_the_tolerance_is_taken() -> None:
    edges = np.linspace(0, 100, 4)
    table = np.array([[0.9, 0.9, 0.89, 0.8], [0.9, 0.7, 0.8, 0.79], [np.nan] * 4])
    choice = largest_that_explains([table], edges, tolerance=0.02)
    assert choice.best.tolist() == [2, 3, 3]
    assert largest_that_explains([np.full((3, 4), np.nan)], edges).best.tolist() == [1]


def test_the_rule_is_shared_by_stacks() -> None:
    edges = np.linspace(0, 10, 2)
    one, two = np.array([[1, 1.0, 0.99, 0.5]]), np.array([[1, 0.5, 0.9, 1.0]])
    assert largest_that_explains([one, two], edges).best.tolist() == [2]


@given(
    best=st.lists(st.integers(1, 6), min_size=1, max_size=10),
    planes=st.integers(50, 90),
    upside_down=st.booleans(),
)
def test_k_changes_over_at_least_five_planes(best: list[int], planes: int, upside_down: bool) -> None:
    depth = np.arange(planes, dtype=float)
    edges = np.linspace(0, planes - 1, len(best) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    choice = Choice(centres, np.zeros((len(best), 7)), np.array(best), "")
    k = choice.at(depth[::-1] if upside_down else depth)
    largest = max(abs(a - b) for a, b in zip(best, best[1:], strict=False)) if len(best) > 1 else 0
    assert np.abs(np.diff(k)).max() <= max(largest, 0) / 4.8 + 1e-9


def test_bins_hold_at_least_five_planes() -> None:
    for count in (2, 9, 19, 264):
        edges = bins([np.arange(float(count))])
        assert len(edges) == 2 or (count - 1) / (len(edges) - 1) >= 4.5


def test_blend_is_the_pass_at_whole_numbers_and_a_mixture_between() -> None:
    passes = [np.full((3, 4, 4), 100 + 10.0 * k, np.float32) for k in range(4)]
    flat = Brightness(np.array([0.0]), np.ones((1, 4)))
    out = np.empty((3, 4, 4), np.float32)
    blend(passes, np.array([1.0, 1.5, 3.0]), np.arange(3.0), flat, offset=100.0, out=out)
    np.testing.assert_allclose(out[:, 0, 0], [110, 115, 130])
    half = Brightness(np.array([0.0]), np.full((1, 4), 0.5))
    blend(passes, np.array([1.0, 1.5, 3.0]), np.arange(3.0), half, offset=100.0, out=out)
    np.testing.assert_allclose(out[:, 0, 0], [105, 107.5, 115])


def test_brightness_of_structures_is_brought_back_to_the_raws(scene: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = scene
    depth = np.arange(16.0)
    gain = np.linspace(2, 4, 16)[:, None, None]
    passes = [noisy, (clean * gain + 200).astype(np.float32), (clean * gain**2 + 200).astype(np.float32)]
    found = match_brightness([passes], [depth], bins([depth]), [None])
    for k in (1, 2):
        for z in (3, 8, 12):
            assert found.at(z, k) == pytest.approx(float(gain[z, 0, 0]) ** -k, rel=0.1)


def test_the_mask_chooses_by_iou() -> None:
    mask = np.zeros((2, 40, 40), bool)
    mask[:, 10:20, 10:20] = True
    raw = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    good = (mask + 0.05 * raw).astype(np.float32)
    choice = by_mask([raw, raw, good, raw], mask)
    assert choice.best.tolist() == [2]
    assert "IoU" in choice.why


def test_a_sharper_image_explains_its_own_blur() -> None:
    rng = np.random.default_rng(0)
    sharp = ndimage.gaussian_filter(rng.normal(size=(80, 80)), 1.5).astype(np.float32)
    blurred = ndimage.gaussian_filter(sharp, 2.0)
    target = copies(blurred)[0].ravel()
    assert explained(target, copies(sharp).reshape(4, -1)) > 0.999
    assert explained(target, copies(rng.normal(size=(80, 80)).astype(np.float32)).reshape(4, -1)) < 0.3

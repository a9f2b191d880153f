"""The rules for k: what they reward, what they do not, and a k without steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepcontrast import enhancing
from deepcontrast.depth import bins
from deepcontrast.explain import band, copies, explained
from deepcontrast.recipe import load_recipe
from deepcontrast.select import (
    Choice,
    by_mask,
    explained_share,
    falls_to,
    haze_gone,
    haze_left,
    structures_kept,
)
from deepcontrast.stack import Stack

from .conftest import TINY


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return structures (Z, Y, X) that change slowly along z, and a noisy recording of them."""
    rng = np.random.default_rng(3)
    clean = ndimage.gaussian_filter(rng.normal(size=(16, 96, 96)), (3, 2, 2))
    clean = np.maximum(clean / clean.std(), 0) * 40
    noisy = clean + 200 + rng.normal(0, 25, clean.shape)
    return clean.astype(np.float32), noisy.astype(np.float32)


def kept(scene: tuple[np.ndarray, np.ndarray], *results: np.ndarray) -> np.ndarray:
    depth = np.arange(16.0)
    return structures_kept([scene[1], *results], depth, bins([depth])).mean(axis=0)


def test_keeping_the_noise_is_not_rewarded_and_losing_structure_is_punished(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    clean, noisy = scene
    lost = np.where(clean > 60, clean, 0).astype(np.float32)
    raw, noise_kept, faithful, poor = kept(scene, noisy * 1.0, clean, lost)
    assert noise_kept == pytest.approx(raw, abs=0.01)
    assert faithful > noise_kept
    assert poor < faithful - 0.05


def test_brightness_and_offset_are_not_seen(scene: tuple[np.ndarray, np.ndarray]) -> None:
    _, one, two = kept(scene, scene[0], scene[0] * 7 + 300)
    assert two == pytest.approx(one, abs=1e-4)


def recordings(seed: int, light: float = 30.0) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return structures (Y, X) and three independent recordings A, B, C of them."""
    rng = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 2)
    clean = light * (1 + np.tanh(clean / clean.std()))
    return clean.astype(np.float32), tuple(rng.poisson(clean).astype(np.float32) for _ in range(3))


def share(result: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    return explained_share(band(one).ravel(), band(other).ravel(), copies(result).reshape(4, -1))


def test_the_share_explained_is_free_of_noise() -> None:
    clean, (_, b, c) = recordings(0)
    assert share(clean, b, c) == pytest.approx(1, abs=0.01)
    assert share(clean[::-1].copy(), b, c) == pytest.approx(0, abs=0.05)


def test_the_share_explained_is_that_of_the_structures() -> None:
    """Of structures in two halves of a plane, a result that has one half explains its share of the power."""
    clean, _ = recordings(1)
    parts = [clean.copy(), clean.copy()]
    parts[0][:, 80:], parts[1][:, :80] = clean.mean(), clean.mean()
    power = [float((band(p) ** 2).sum()) for p in parts]
    rng = np.random.default_rng(5)
    b, c = (rng.poisson(clean).astype(np.float32) for _ in range(2))
    assert share(parts[0], b, c) == pytest.approx(power[0] / sum(power), abs=0.06)


def test_memorising_the_recordings_one_is_judged_by_is_not_rewarded(scene: tuple[np.ndarray, np.ndarray]) -> None:
    """A network that knows the neighbouring planes by heart where it was trained, and nowhere else."""
    noisy = scene[1]
    depth = np.arange(16.0)
    honest = ndimage.gaussian_filter(noisy, (0, 1.5, 1.5))
    memorised = (np.roll(noisy, 1, axis=0) + np.roll(noisy, -1, axis=0)) / 2
    held_out = np.zeros(noisy.shape[1:], bool)
    held_out[16:80, 16:80] = True
    cheat = np.where(held_out, honest, memorised).astype(np.float32)

    def found(region: np.ndarray | None) -> np.ndarray:
        return structures_kept([noisy, honest, cheat], depth, bins([depth]), region=region).mean(axis=0)

    _, fair, cheating = found(held_out)
    assert cheating == pytest.approx(fair, abs=0.03)
    # Judged where it was trained, it would be rewarded: the region is what keeps the rule honest.
    _, fair, cheating = found(None)
    assert cheating > fair + 0.05


def test_planes_that_a_network_is_given_do_not_judge_it() -> None:
    """The noise of planes that went into a result is rewarded; planes beyond them know nothing of it."""
    clean, _ = recordings(2, light=1.0)
    noisy = np.random.default_rng(3).poisson(np.broadcast_to(clean, (24, *clean.shape))).astype(np.float32)
    given = ndimage.uniform_filter1d(noisy, 5, axis=0, mode="mirror")
    depth = np.arange(24.0)

    def found(apart: int) -> float:
        kept = structures_kept([noisy, given], depth, bins([depth]), apart=apart)[:, 1]
        return float(kept[np.isfinite(kept)].mean())

    # All planes show the same structures: only whose noise is in the result makes a difference.
    assert found(3) == pytest.approx(found(4), abs=0.01)
    assert found(2) > found(3) + 0.05


def test_where_nothing_is_shared_it_is_not_decidable() -> None:
    rng = np.random.default_rng(0)
    b, c, f = (rng.normal(size=(100, 100)).astype(np.float32) for _ in range(3))
    assert np.isnan(share(f, b, c))
    noise = rng.normal(100, 5, (12, 64, 64)).astype(np.float32)
    depth = np.arange(12.0)
    edges = bins([depth])
    tables = structures_kept([noise, noise], depth, edges), haze_left([noise, noise], depth, edges, offset=0.0)
    choice = haze_gone([tables[1]], [tables[0]], edges, limit=0.02)
    assert choice.best.tolist() == [1]
    assert "not decidable" in choice.why


def test_haze_left_is_the_background_over_the_structures() -> None:
    volume = np.full((8, 64, 64), 130.0, np.float32)
    volume[:, 20:40, 20:40] = 300.0
    depth = np.arange(8.0)
    hazy, clear = (haze_left([v], depth, bins([depth]), offset=100.0)[0, 0] for v in (volume, volume - 30))
    assert hazy == pytest.approx(30 / 200, rel=0.01)
    assert clear == pytest.approx(0, abs=0.01)


def test_k_is_where_the_haze_falls_to_the_limit() -> None:
    assert falls_to(np.array([0.4, 0.2, 0.1, 0.0]), 0.05) == pytest.approx(2.5)
    assert falls_to(np.array([0.4, 0.2, 0.1, 0.08]), 0.05) == 3
    assert falls_to(np.array([0.01, -0.1, -0.2]), 0.05) == 1


def test_structures_cap_what_the_haze_asks_for_and_bins_without_an_answer_take_the_nearest() -> None:
    edges = np.linspace(0, 100, 4)
    haze = np.array([[0.3, 0.2, 0.1, 0.0], [0.3, 0.2, 0.1, 0.0], [0.3, 0.2, 0.1, 0.0]])
    share_of = np.array([[0.9, 0.9, 0.88, 0.5], [0.9, 0.9, 0.88, 0.87], [np.nan] * 4])
    choice = haze_gone([haze], [share_of], edges, limit=0.02, loss=0.05)
    # First bin: 2.8 passes are asked for, 2 are allowed; the last takes what the middle one has.
    assert choice.best == pytest.approx([2, 2.8, 2.8])
    assert "within 5%" in choice.why


def test_the_rule_is_shared_by_stacks() -> None:
    edges = np.linspace(0, 10, 2)
    clear = np.array([[0.4, 0.3, 0.2, 0.1]])
    one, two = np.array([[1, 1.0, 0.95, 0.5]]), np.array([[1, 0.8, 0.85, 0.7]])
    assert haze_gone([clear, clear], [one, two], edges, limit=0.02, loss=0.05).best.tolist() == [2]


@given(
    best=st.lists(st.floats(1, 6), min_size=1, max_size=10),
    planes=st.integers(50, 90),
    upside_down=st.booleans(),
)
def test_k_changes_over_at_least_five_planes(best: list[float], planes: int, upside_down: bool) -> None:
    depth = np.arange(planes, dtype=float)
    edges = np.linspace(0, planes - 1, len(best) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    choice = Choice(centres, {}, np.array(best), "")
    k = choice.at(depth[::-1] if upside_down else depth)
    largest = max(abs(a - b) for a, b in zip(best, best[1:], strict=False)) if len(best) > 1 else 0
    assert np.abs(np.diff(k)).max() <= max(largest, 0) / 4.8 + 1e-9


def test_bins_hold_at_least_five_planes() -> None:
    for count in (2, 9, 19, 264):
        edges = bins([np.arange(float(count))])
        assert len(edges) == 2 or (count - 1) / (len(edges) - 1) >= 4.5


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


def test_passes_that_leave_no_light_do_not_hinder_the_choice() -> None:
    haze = np.array([[0.3, 0.2, 0.1, np.nan]])
    share_of = np.array([[0.9, 0.9, 0.88, 0.1]])
    assert haze_gone([haze], [share_of], np.array([0.0, 10.0]), limit=0.15, loss=0.05).best == pytest.approx([1.5])
    assert haze_gone([haze], [share_of], np.array([0.0, 10.0]), limit=0.02, loss=0.05).best == pytest.approx([2])


def test_an_offset_above_the_image_is_not_decidable(scene: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = scene
    depth, passes = np.arange(16.0), [noisy, clean + 200]
    edges = bins([depth])
    kept_share = structures_kept(passes, depth, edges)
    assert np.isfinite(kept_share).all()
    choice = haze_gone([haze_left(passes, depth, edges, offset=1e4)], [kept_share], edges, limit=0.02)
    assert choice.best.tolist() == [1]
    assert "not decidable" in choice.why


@pytest.mark.parametrize("planes", [2, 3, 9])
def test_few_planes_get_a_k(scene: tuple[np.ndarray, np.ndarray], planes: int) -> None:
    clean, noisy = (volume[:planes] for volume in scene)
    depth, passes = np.arange(float(planes)), [noisy, clean + 200, clean + 190]
    edges = bins([depth])
    choice = haze_gone(
        [haze_left(passes, depth, edges, offset=180.0)], [structures_kept(passes, depth, edges)], edges, limit=0.02
    )
    k = choice.at(depth)
    assert k.shape == (planes,)
    assert (k >= 1).all()
    assert ("not decidable" in choice.why) == (planes == 2)


def test_a_stack_is_judged_where_its_model_was_not_trained(
    tiny_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = []

    def seen(passes: Any, depth: Any, edges: Any, valid: Any, region: Any, **options: Any) -> np.ndarray:
        regions.append(region)
        return structures_kept(passes, depth, edges, valid, region, **options)

    monkeypatch.setattr(enhancing, "structures_kept", seen)
    config = load_recipe("contrast", TINY)
    model = enhancing.enhance([tiny_stack], config, folder=tmp_path / "a", fingerprints=["one"]).model
    for name in ("one", "another"):
        enhancing.enhance([tiny_stack], config, model=model, folder=tmp_path / name, fingerprints=[name])
    trained, again, other = regions
    _, y, x = next(iter(model.channels[0].fit["held_out"]))
    patch = model.channels[0].fit["patch"]
    assert trained.sum() == patch**2
    assert trained[y : y + patch, x : x + patch].all()
    np.testing.assert_array_equal(again, trained)
    assert other is None

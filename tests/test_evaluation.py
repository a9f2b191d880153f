"""A result that invents or loses structures is told from one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from deepcontrast import registry
from deepcontrast.evaluation import Fidelity, contrast_rows, depth_means, fidelity, truth_rows
from deepcontrast.metrics import Measurement

GAIN, OFFSET = 2.0, 100.0
Scene = tuple[np.ndarray, np.ndarray]


def blobs(count: int, seed: int, columns: tuple[int, int] = (6, 74)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n) for n in (30, 80, 80)), indexing="ij")
    image = np.zeros((30, 80, 80))
    for centre in rng.uniform((3, 6, columns[0]), (27, 74, columns[1]), (count, 3)):
        distance = sum((a - c) ** 2 for a, c in zip((z, y, x), centre, strict=True))
        image += np.exp(-distance / (2 * 2.5**2))
    return image


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Return 40 blobs in photons, and their recording in grey levels."""
    truth = 60 * blobs(40, 1)
    raw = np.random.default_rng(2).poisson(truth + 10) * GAIN + OFFSET
    return truth, raw.astype(np.float32)


def judge(raw: np.ndarray, result: np.ndarray) -> list[Fidelity]:
    return fidelity(raw, result.astype(np.float32), np.arange(30.0), gain=GAIN, intercept=OFFSET)


def test_the_raw_and_the_truth_are_the_raws(scene: Scene) -> None:
    truth, raw = scene
    for result in (raw, truth * GAIN + OFFSET):
        parts = judge(raw, result)
        assert len(parts) == 5
        assert sum(p.unsupported for p in parts) == 0
        assert sum(p.components for p in parts) >= 5
        assert min(p.correlation for p in parts) > 0.8


def test_invented_structures_are_counted() -> None:
    """As many are invented on the right as are real on the left, equally bright: half have nothing in the raw."""
    truth, invented = 60 * blobs(25, 1, (6, 32)), 60 * blobs(25, 9, (48, 74))
    raw = (np.random.default_rng(2).poisson(truth + 10) * GAIN + OFFSET).astype(np.float32)
    parts = judge(raw, (truth + invented) * GAIN + OFFSET)
    share = sum(p.unsupported for p in parts) / sum(p.components for p in parts)
    assert share == pytest.approx(0.5, abs=0.2)


def test_haze_is_not_an_invented_structure(scene: Scene) -> None:
    truth, raw = scene
    haze = 400 * np.exp(-((np.arange(80) - 20) ** 2) / (2 * 30**2))
    assert sum(p.unsupported for p in judge(raw, truth * GAIN + OFFSET + haze)) == 0


def test_lost_structures_lower_the_correlation(scene: Scene) -> None:
    truth, raw = scene
    half = truth.copy()
    half[:, :, :40] = 0
    kept, lost = judge(raw, truth), judge(raw, half)
    assert all(a.correlation > b.correlation + 0.1 for a, b in zip(kept, lost, strict=True))


def test_fifths_run_from_shallow_to_deep(scene: Scene) -> None:
    raw = scene[1]
    parts = fidelity(raw, raw, np.arange(30.0)[::-1].copy(), gain=GAIN, intercept=OFFSET)
    assert [p.depth for p in parts] == sorted(p.depth for p in parts)


@pytest.mark.parametrize("name", registry.names("metrics"))
@pytest.mark.parametrize("kind", ["constant", "zero", "negative", "huge", "one bright pixel"])
def test_no_metric_is_ever_infinite(name: str, kind: str) -> None:
    plane = {
        "constant": np.full((40, 40), 7.0),
        "zero": np.zeros((40, 40)),
        "negative": np.random.default_rng(0).normal(-5, 1, (40, 40)),
        "huge": np.random.default_rng(0).normal(1e30, 1e29, (40, 40)),
        "one bright pixel": np.pad([[1e6]], ((5, 34), (5, 34))),
    }[kind].astype(np.float32)
    other = np.random.default_rng(1).uniform(size=(40, 40)).astype(np.float32)
    second = {"iou": (other > 0.5,), "ssim": (other,), "pearson": (other,)}.get(name, ())
    measured = registry.load("metrics", name)(plane, *second)
    assert measured
    assert all(isinstance(m, Measurement) for m in measured)
    for m in measured:
        assert np.isfinite(m.value) if m.value is not None else m.reason


def test_clipping_lifts_nothing_but_the_background() -> None:
    truth = np.zeros((1, 64, 64), np.float32)
    truth[0, 20:30, 20:44] = 100
    noisy = truth + np.random.default_rng(0).normal(0, 20, truth.shape).astype(np.float32)
    rows = truth_rows(noisy, truth, truth > 0, method="m", k=1, depth_um=[0.0])
    means = {k: v[0] for k, v in depth_means(rows, 1, count=1).items()}
    assert means["ssim_clipped"] > means["ssim"]
    assert means["iou_clipped"] == pytest.approx(means["iou"], abs=0.05)


def test_rows_say_where_they_belong() -> None:
    volume = np.random.default_rng(0).normal(100, 5, (3, 32, 32)).astype(np.float32)
    rows = contrast_rows(volume, method="raw", k=0, t=2, c=1, depth_um=[0.0, 0.5, 1.0])
    assert {(r.t, r.c, r.z, r.depth_um) for r in rows} == {(2, 1, 0, 0.0), (2, 1, 1, 0.5), (2, 1, 2, 1.0)}

"""A result that invents or loses structures is told from one that does not."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from scipy import ndimage

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
    objects = ndimage.label(ndimage.gaussian_filter(other, 2) > 0.5)[0]
    given = {
        "image": plane,
        "truth": other,
        "reference": other,
        "mask": other > 0.5,
        "labels": objects,
        "segmentation": (plane > plane.mean()).astype(int),
    }
    metric = registry.load("metrics", name)
    parameters = inspect.signature(metric).parameters
    arguments = [given[n] for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    if name == "iou_stack":
        arguments = [np.stack([a, a[::-1]]) for a in arguments]
    measured = metric(*arguments)
    if "region" in parameters:
        measured += metric(*arguments, region=other > 0.9)
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


def test_what_was_not_measured_does_not_count_against_the_truth() -> None:
    """Whatever stands in the invalid voxels, the scores are those of the valid ones."""
    rng = np.random.default_rng(3)
    truth = np.maximum(rng.normal(0, 1, (1, 48, 64)), 0).astype(np.float32)
    image = truth + rng.normal(0, 0.5, truth.shape).astype(np.float32)
    mask, valid = truth > 1, np.ones(truth.shape, bool)
    valid[0, :, 50:] = False
    valid[0, 20, 10] = False

    def scored(values: float) -> dict[str, float | None]:
        damaged = np.where(valid, image, np.float32(values))
        rows = truth_rows(damaged, truth, mask, method="m", k=None, depth_um=[None], valid=valid)
        return {row.metric: row.value for row in rows}

    scores = scored(0)
    assert scores == scored(1e4)
    assert scores["pearson"] == pytest.approx(np.corrcoef(image[valid], truth[valid])[0, 1], rel=1e-5)
    assert scores["iou"] == registry.load("metrics", "iou")(image[0], mask[0], valid=valid[0])[0].value
    assert scores["iou_stack"] == registry.load("metrics", "iou_stack")(image, mask, valid=valid)[0].value
    # The fit and its error, by hand: slope and level of least squares over the valid voxels.
    slope, level = np.polyfit(image[valid].astype(float), truth[valid].astype(float), 1)
    span = float(np.diff(np.percentile(truth[valid], (0.1, 99.9)))[0])
    error = np.sqrt(np.mean((slope * image[valid] + level - truth[valid]) ** 2)) / span
    assert scores["nrmse"] == pytest.approx(error, rel=1e-4)
    without = truth_rows(image, truth, mask, method="m", k=None, depth_um=[None])
    assert scores["ssim"] == pytest.approx(next(r.value for r in without if r.metric == "ssim"), abs=0.03)
    assert scores["ms_ssim_foreground"] is None
    nothing = truth_rows(image, truth, mask, method="m", k=None, depth_um=[None], valid=np.zeros_like(valid))
    assert {row.value for row in nothing} == {None}
    assert all(row.reason for row in nothing)


def test_ssim_of_the_windows_that_were_measured() -> None:
    """With a quarter of the plane missing, SSIM is that of the rest cut out by itself, but for the percentiles."""
    rng = np.random.default_rng(4)
    truth = rng.uniform(size=(1, 64, 80)).astype(np.float32)
    image = truth + rng.normal(0, 0.2, truth.shape).astype(np.float32)
    valid = np.ones(truth.shape, bool)
    valid[:, :, 60:] = False
    whole = truth_rows(image, truth, None, method="m", k=None, depth_um=[None], valid=valid, metrics=("ssim",))
    alone = truth_rows(image[:, :, :60], truth[:, :, :60], None, method="m", k=None, depth_um=[None], metrics=("ssim",))
    assert whole[0].value == pytest.approx(alone[0].value, abs=2e-3)


def test_objects_are_scored_once_for_the_volume() -> None:
    labels = np.zeros((3, 40, 40), np.int64)
    labels[:, 5:15, 5:15], labels[:, 22:34, 20:36] = 1, 2
    rows = truth_rows(
        (labels > 0).astype(np.float32), None, None, method="m", k=None, depth_um=[None] * 3, labels=labels
    )
    scores = {row.metric: (row.z, row.value) for row in rows}
    assert scores["seg"] == (None, 1.0)
    assert scores["error"] == (None, 0.0)


def test_rows_say_where_they_belong() -> None:
    volume = np.random.default_rng(0).normal(100, 5, (3, 32, 32)).astype(np.float32)
    rows = contrast_rows(volume, method="raw", k=0, t=2, c=1, depth_um=[0.0, 0.5, 1.0])
    assert {(r.t, r.c, r.z, r.depth_um) for r in rows} == {(2, 1, 0, 0.0), (2, 1, 1, 0.5), (2, 1, 2, 1.0)}

"""Calibration of predicted distributions, and what a model file says of how far they can be trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from deepcontrast.calibration import BINS, covered, distances, reliability
from deepcontrast.cli import run
from deepcontrast.io import write_stack
from deepcontrast.jobs.info import describe
from deepcontrast.learning import learn
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.recalibration import Recalibration, best_factor, recalibrate
from deepcontrast.scale.members import merged
from deepcontrast.stack import Stack
from deepcontrast.trust import TILE, Trust, area_beyond

from .test_denoise import pair, settled
from .test_uncertainty import tensors


def sampled(widen: float = 1.0, count: int = 200_000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return means and scales (3, N) of an ensemble, and truths (N,) drawn from its mixture ``widen`` times as wide."""
    rng = np.random.default_rng(0)
    means, scales = rng.normal(0, 1, (3, count)), 10 ** rng.uniform(-1.5, 0.5, (3, count))
    member = rng.integers(0, 3, count), np.arange(count)
    truth = rng.laplace(means[member], widen * scales[member])
    means, scales, truth = tensors(means, scales, truth)
    return means, scales, truth


@pytest.mark.parametrize("distance", [0.01, 0.3, 2.0])
def test_the_diagram_is_that_of_a_plain_computation(distance: float) -> None:
    means, scales, truth = sampled(1.5, 3000)
    found = reliability(means, scales, truth, distance)
    centre = means.numpy().mean(0)
    inside = [stats.laplace.cdf(centre + side * distance, means, scales).mean(0) for side in (1, -1)]
    confidence, success = inside[0] - inside[1], np.abs(truth.numpy() - centre) <= distance
    error = 0.0
    for k in range(BINS):
        chosen = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        assert found.share[k] == pytest.approx(chosen.mean(), abs=2e-3)
        if chosen.sum() > 20:
            assert found.confidence[k] == pytest.approx(confidence[chosen].mean(), abs=1e-2)
            assert found.accuracy[k] == pytest.approx(success[chosen].mean(), abs=2e-2)
            error += chosen.mean() * abs(confidence[chosen].mean() - success[chosen].mean())
    assert found.error == pytest.approx(error, abs=5e-3)


def test_what_is_drawn_from_the_distributions_is_calibrated() -> None:
    means, scales, truth = sampled()
    for distance in distances(means, truth, [0.01]):
        assert reliability(means, scales, truth, distance).error < 0.005
    assert covered(means, scales, truth) == pytest.approx(0.9, abs=0.003)
    assert best_factor(means, scales, truth) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("widen", [0.5, 2.0])
def test_the_factor_that_a_wrong_scale_needs_is_found(widen: float) -> None:
    means, scales, truth = sampled(widen)
    assert max(reliability(means, scales, truth, d).error for d in distances(means, truth)) > 0.04
    factor = best_factor(means, scales, truth)
    assert factor == pytest.approx(widen, rel=0.05)
    assert max(reliability(means, factor * scales, truth, d).error for d in distances(means, truth)) < 0.02


@pytest.mark.parametrize("heavy", [False, True])
def test_the_shape_of_a_distribution_is_set_right(heavy: bool) -> None:
    means, scales, truth = sampled()
    means, scales = means[:1], scales[:1]
    # About as wide, but normal, or with far tails.
    rng = np.random.default_rng(1)
    spread = rng.standard_t(2, truth.numel()) if heavy else rng.normal(0, 1.25, truth.numel())
    truth = means[0] + scales[0] * torch.from_numpy(spread).float()
    half = len(truth) // 2
    right = recalibrate(means[:, :half], scales[:, :half], truth[:half])
    rest = means[:, half:], scales[:, half:], truth[half:]
    at = distances(*rest[::2], [0.01])
    wrong = Recalibration(right.factor)
    assert max(reliability(*rest, d, wrong).error for d in at) > 0.02
    assert max(reliability(*rest, d, right).error for d in at) < 0.01
    assert covered(*rest, right) == pytest.approx(0.9, abs=0.005)


def test_shares_and_probabilities_are_each_others_inverse_where_truths_are_equal_too() -> None:
    means, scales, truth = sampled(1.0, 2000)
    truth[:1500] = means[:, :1500].mean(0)
    right = recalibrate(means, scales, truth)
    assert (np.diff(right.levels) > 0).all()
    for probability in (0.0, 0.05, 0.3, 0.5, 0.95, 1.0):
        share = torch.tensor([right.share(probability)], dtype=torch.float64)
        assert float(right.probability(share)) == pytest.approx(probability, abs=1e-6)


def test_nothing_is_done_by_default() -> None:
    shares = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(Recalibration().probability(shares), shares)
    assert Recalibration().bounds == pytest.approx((0.05, 0.95))


def test_distances_are_multiples_of_the_median_error() -> None:
    means, truth = torch.tensor([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]]), torch.tensor([1.0, 5.0, 1.0])
    assert distances(means, truth, [0.01]) == pytest.approx([0.01, 1.0, 2.0, 4.0])


def test_area_is_counted_in_tiles_and_nothing_unknown_counts() -> None:
    image = np.zeros((2, 2 * TILE + 4, 3 * TILE), np.float32)
    image[0, :TILE, :TILE] = 1
    image[1, 2 * TILE :, TILE : 2 * TILE] = 1
    image[1, :TILE, 2 * TILE :] = np.nan
    image[0, TILE, TILE] = 0.5
    assert area_beyond(image, 0.1) == (TILE * TILE + 4 * TILE, image.size - TILE * TILE)
    assert area_beyond(image, 1.0) == (0, image.size - TILE * TILE)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Model:
    pairs = [pair(seed) for seed in (0, 1, 2)]
    config = settled("train.steps=200", "train.learning_rate=2e-3", "train.loss=laplace", "train.validation=0.2")
    folder = tmp_path_factory.mktemp("ensemble")
    model, _ = learn([p[0] for p in pairs], config, targets=[p[1] for p in pairs], members=3, folder=folder)
    return model


def test_the_model_file_says_how_far_to_trust_it(ensemble: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", ensemble)
    [channel] = load_model(tmp_path / "m.safetensors").channels
    assert channel.trust is not None
    found = Trust.decode(channel.trust)
    assert found.tiles == 18
    assert [one.members for one in found.before] == [1, 2, 3]
    assert found.after is not None
    assert found.after.members == 3
    assert channel.fit["widened"] == found.after.factor
    assert tuple(channel.fit["levels"]) == found.after.levels
    assert abs(found.after.inside - 0.9) < abs(found.before[-1].inside - 0.9) + 0.03
    assert 0 < found.too_much < 1
    assert Trust.decode(found.encode()) == found
    lines = "\n".join(describe(tmp_path / "m.safetensors"))
    assert f"scales are multiplied by {found.after.factor:.2f}" in lines


def test_the_report_draws_what_the_model_file_keeps(
    ensemble: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "m.safetensors", ensemble)
    command = ["report", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "page.html")]
    assert run(command) == 0
    page = (tmp_path / "page.html").read_text()
    for line in Trust.decode(ensemble.channels[0].trust or {}).describe():
        assert line.replace("'", "&#39;") in page
    assert page.count("data:image/png;base64,") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert run(command) == 2
    without = replace(ensemble, channels=(replace(ensemble.channels[0], trust=None),))
    save_model(tmp_path / "n.safetensors", without)
    assert run(["report", str(tmp_path / "n.safetensors"), "--out", str(tmp_path / "other.html")]) == 2
    assert "was not judged against a truth" in capsys.readouterr().err


def test_a_single_network_has_no_verdict_and_scales_as_trained_where_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, target = pair(0)
    config = settled("train.steps=4", "train.loss=laplace", "task.recalibrate=false")
    model, _ = learn([image], config, targets=[target], folder=tmp_path)
    assert model.channels[0].fit["widened"] == 1.0
    found = Trust.decode(model.channels[0].trust or {})
    assert (found.after, found.too_much) == (None, None)
    assert "a single network does not disagree" in found.describe()[-1]
    save_model(tmp_path / "m.safetensors", model)
    write_stack(tmp_path / "image.tif", image)
    command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "image.tif"), "--uncertainty"]
    assert run([*command, "--out", str(tmp_path / "out.tif")]) == 0
    assert "disagree" not in capsys.readouterr().out


def fainter(image: Stack) -> Stack:
    """Return an image of a seventh of the photons."""
    rng = np.random.default_rng(0)
    return replace(image, array=rng.binomial(np.asarray(image.array), 1 / 7).astype(np.uint16))


def test_the_verdict_tells_images_like_those_of_training_from_others(
    ensemble: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "m.safetensors", ensemble)
    write_stack(tmp_path / "alike.tif", pair(7)[0])
    write_stack(tmp_path / "other.tif", fainter(pair(7)[0]))
    shares = []
    for name in ("alike", "other"):
        command = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / f"{name}.tif"), "--uncertainty"]
        assert run([*command, "--out", str(tmp_path / f"{name}_out.tif")]) == 0
        [line] = [line for line in capsys.readouterr().out.splitlines() if "disagree more" in line]
        share = line.partition(": ")[2].split("%")[0]
        shares.append(0.0 if "nowhere" in share else float(share))
    # What is too much was learned from eighteen small patches.
    assert shares[0] < 60
    assert shares[1] > 90


def test_models_put_together_have_no_verdict(ensemble: Model) -> None:
    assert merged([ensemble]).channels[0].trust is not None
    assert merged([ensemble, replace(ensemble)]).channels[0].trust is None
    assert len(merged([ensemble, replace(ensemble)]).channels[0].members) == 6

"""The papers' experiments: each runs and writes its files, and says what its numbers say."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from deepcontrast import registry, training
from deepcontrast.cli import run
from deepcontrast.errors import InputError
from deepcontrast.experiments import Subject, _figures, _networks, pairs
from deepcontrast.experiments import bias_ablation as bias
from deepcontrast.experiments import cross_application as cross
from deepcontrast.experiments import double_degradation as double
from deepcontrast.experiments import training_amount as amount
from deepcontrast.experiments import wrong_normalisation as normalisation
from deepcontrast.experiments import wrong_pixel_size as pixel
from deepcontrast.experiments._networks import Network, learned, seeded, source_of
from deepcontrast.experiments._scores import compared, summarise, verdict
from deepcontrast.io import write_stack
from deepcontrast.jobs import experiment as job
from deepcontrast.normalize import Norm
from deepcontrast.patches import draw
from deepcontrast.progress import silent
from deepcontrast.recipe import load_recipe
from deepcontrast.report import canvas
from deepcontrast.stack import Stack
from deepcontrast.synth.tissue import tissue

from .conftest import TINY

FEW = (*TINY, "train.steps=4", "train.patch=16")
CONFIG = load_recipe("contrast", TINY)
FEWER = load_recipe("contrast", (*FEW, "predict.iterations=1"))
PAPERS = ("bias-ablation", "cross-application", "double-degradation", "training-amount", "wrong-normalisation")
PAPERS += ("wrong-pixel-size",)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def subject() -> Subject:
    made = tissue(shape=(6, 48, 64), seed=5)
    return Subject("tissue", Stack(made.raw, "ZYX", made.optics), made.truth, made.mask)


@pytest.fixture(scope="module")
def network(subject: Subject) -> Network:
    return learned(source_of(subject), CONFIG, device="cpu", progress=silent)


def raw_of(subject: Subject) -> np.ndarray:
    return subject.stack.volume().astype(np.float32)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a test of the plumbing need not wait for: most amounts, most sizes, the drawing of pixels."""
    monkeypatch.setattr(amount, "AMOUNTS", (16,))
    monkeypatch.setattr(pixel, "FACTORS", (1.0, 2.0))
    monkeypatch.setattr(pixel, "SIGMAS", (2.0,))
    monkeypatch.setattr(_figures, "png_bytes", lambda figure: PNG + bytes(len(figure.subfigs)))


def test_the_experiments_are_those_of_the_papers_a_search_and_one_of_ours() -> None:
    assert tuple(name.replace("_", "-") for name in registry.names("experiments")) == (
        "ablation",
        *PAPERS[:3],
        "search",
        *PAPERS[3:],
    )


@pytest.mark.parametrize("name", PAPERS)
def test_an_experiment_writes_table_numbers_figure_report_and_run(
    name: str, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "SHAPE", (6, 40, 56))
    settings = [part for setting in FEW for part in ("--set", setting)]
    assert run(["experiment", name, "--out", str(tmp_path / "e"), "--seeds", "3", *settings]) == 0
    said = capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert written == ["experiment.json", "figure.png", "report.md", "run.json", "table.csv"]
    found = json.loads((tmp_path / "e" / "experiment.json").read_text())
    with open(tmp_path / "e" / "table.csv", newline="") as file:
        columns, *rows = csv.reader(file)
    assert columns == found["columns"]
    assert len(rows) == len(found["rows"]) > 1
    assert {run_["seed"] for run_ in found["runs"]} == {3}
    report = (tmp_path / "e" / "report.md").read_text()
    for sentence in found["finding"]:
        assert sentence in report
        assert sentence in said
    assert (tmp_path / "e" / "figure.png").read_bytes().startswith(PNG)
    record = json.loads((tmp_path / "e" / "run.json").read_text())
    assert (record["state"], record["experiment"], record["seeds"]) == ("complete", name, [3])


def test_a_users_stacks_need_no_truth(quick: None, tiny_stack: Stack, tmp_path: Path) -> None:
    paths = [tmp_path / "liver.tif", tmp_path / "gut.tif"]
    for path in paths:
        write_stack(path, tiny_stack)
    config = job.settled_experiment("bias-ablation", "contrast", FEW, simulated=False)
    job.run_experiment("cross-application", tmp_path / "e", config, images=paths, say=lambda line: None)
    found = json.loads((tmp_path / "e" / "experiment.json").read_text())
    assert {run_["stack"] for run_ in found["runs"]} == {"liver", "gut"}
    assert "correlation" in found["columns"]
    assert "ssim" not in found["columns"]
    raw = [run_ for run_ in found["runs"] if run_["restored by"] == cross.RAW]
    assert [run_["correlation"] for run_ in raw] == pytest.approx([1.0, 1.0], abs=1e-3)
    with pytest.raises(InputError, match="cross-application needs two stacks; given 1: liver"):
        job.run_experiment("cross-application", tmp_path / "f", config, images=paths[:1], say=lambda line: None)
    assert not (tmp_path / "f").exists()


def test_an_unknown_experiment_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["experiment", "bias_ablatoin", "--out", str(tmp_path / "e")]) == 2
    assert "did you mean 'bias-ablation'?" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_simulated_tissue_takes_fewer_steps_unless_told_otherwise() -> None:
    steps = [
        job.settled_experiment(name, recipe, settings, simulated=simulated).train.steps
        for name, recipe, settings, simulated in (
            ("bias-ablation", "contrast", (), True),
            ("bias-ablation", "contrast", ("train.steps=7",), True),
            ("bias-ablation", "contrast", (), False),
            ("bias-ablation", "contrast-paper", (), True),
            ("ablation", "contrast", (), True),
        )
    ]
    own = load_recipe("contrast").train.steps
    assert steps == [500, 7, 1500, 90000, own]


def test_the_papers_experiments_are_about_the_published_pair() -> None:
    own, published = (
        job.settled_experiment("bias-ablation", "contrast", (), simulated=True),
        load_recipe("contrast-paper"),
    )
    for key in ("thin", "widths", "haze"):
        assert own.task[key] == published.task[key]
    assert (own.train.loss, own.net.context) == (published.train.loss, published.net.context)
    assert job.settled_experiment("bias-ablation", "contrast", ("task.thin=0.5",), simulated=True).task["thin"] == 0.5


def test_equal_seeds_give_equal_numbers(subject: Subject, quick: None) -> None:
    found = [double.double_degradation([subject], FEWER, seeds=(seed,)) for seed in (1, 1, 2)]
    assert found[0].runs == found[1].runs
    assert found[0].runs != found[2].runs


def test_the_figure_is_a_png_with_planes_scores_and_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "SHARPNESS", 0.5)
    shown: dict[str, Any] = {}
    png_bytes = canvas.png_bytes

    def look(figure: Any) -> bytes:
        *planes, scores = figure.get_axes()
        shown["planes"] = [axes.get_title(loc="left") for axes in planes]
        shown["lines"] = [container.lines[0].get_xydata().tolist() for container in scores.containers]
        shown["ticks"] = [label.get_text() for label in scores.get_xticklabels()]
        return png_bytes(figure)

    monkeypatch.setattr(_figures, "png_bytes", look)
    plane = np.arange(48, dtype=np.float32).reshape(6, 8)
    rows = [("a", 1, 0.5, 0.1), ("a", 2, None, None), ("b", 1, 0.6, None), ("b", 4, 0.7, None)]
    made = _figures.figure(
        [("deep", {"raw": plane, "result": plane})], ("kind", "k", "ssim", "ssim_sd"), rows,
        x="k", scores=("ssim",), series="kind",
    )  # fmt: skip
    assert made.startswith(PNG)
    assert shown == {
        "planes": ["raw", "result"],
        "lines": [[[0.0, 0.5]], [[0.0, 0.6], [2.0, 0.7]]],
        "ticks": ["1", "2", "4"],
    }


def identity(task: Any, sources: Any, fit: Any, config: Any, **_: Any) -> training.Trained:
    """Return weights of 0, with which a residual network gives back its input."""
    net = task.build(fit, config)
    weights = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    return training.Trained(weights, weights, {})


def test_without_degradation_model_b_gives_back_raw(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_networks, "train", identity)
    monkeypatch.setattr(_figures, "png_bytes", lambda figure: PNG)
    clear = load_recipe("contrast", (*TINY, "task.alpha_surface=1", "task.alpha_deep=1"))
    found = double.double_degradation([subject], clear, seeds=(0,))
    assert [run_["ssim"] for run_ in found.runs] == pytest.approx([1.0] * 18, abs=1e-5)
    assert [row[1:][::2] for row in found.rows] == [pytest.approx((1.0,) * 6, abs=1e-5)] * 5


def test_model_b_starts_from_the_degraded_stack(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With networks that change nothing, B's first result is d(x), whatever k."""
    monkeypatch.setattr(_networks, "train", identity)
    monkeypatch.setattr(_figures, "png_bytes", lambda figure: PNG)
    found = double.double_degradation([subject], CONFIG, seeds=(4,))
    task, source = registry.load("tasks", "contrast"), source_of(subject)
    fit = task.fit([source], seeded(CONFIG, 4))
    degraded = task.degrade(source, fit, CONFIG, torch.Generator().manual_seed(4)).astype(np.float64)
    raw = task.clean(source.volume(), fit, source.invalid).astype(np.float64)
    for run_ in found.runs:
        one, other = degraded[run_["z"]], raw[run_["z"]]
        low, high = np.percentile(other, (0.1, 99.9))
        expected = structural_similarity((one - low) / (high - low), (other - low) / (high - low), data_range=1.0)
        assert run_["ssim_no_fit"] == pytest.approx(expected, abs=1e-4)
    deep = [run_["z"] for run_ in found.runs if run_["depth"] == "Very Deep" and run_["k"] == 1]
    assert deep == [4, 5]


def test_too_few_planes_for_the_depth_bins_are_refused(subject: Subject) -> None:
    short = Subject("short", Stack(subject.stack.volume()[:4], "ZYX", subject.stack.optics))
    with pytest.raises(InputError, match="'short' has 4 planes"):
        double.double_degradation([short], CONFIG, seeds=(0,))


PAPER = np.array([[0.51, 0.70, 0.80], [0.52, 0.72, 0.82], [0.56, 0.77, 0.84], [0.60, 0.80, 0.83], [0.59, 0.79, 0.83]])


def test_the_papers_table_has_the_papers_shape_and_others_have_not() -> None:
    assert double.sentences(PAPER)[-1] == "The table has the paper's shape."
    assert "rises in 3 of 4 steps" in double.sentences(PAPER)[1]
    flat = PAPER.copy()
    flat[1, 2] = 0.5
    assert double.sentences(flat)[0].endswith("in 4 of five depth bins, not in Deep (0.720 at k = 2, 0.500 at k = 3).")
    for other in (flat, PAPER[::-1], PAPER[:, ::-1], np.full((5, 3), np.nan)):
        assert double.sentences(other)[-1] == "The table does not have the paper's shape."


def runs_of(column: str, **ssim: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return runs of as many seeds as there are values, for each setting of a column."""
    return [
        {"stack": "s", "seed": seed, column: name.replace("_", " "), "k": 3, "ssim": value}
        for name, values in ssim.items()
        for seed, value in enumerate(values)
    ]


def test_the_bias_finding_goes_with_the_numbers() -> None:
    for free, biased, said in (
        ((0.6, 0.7), (0.5, 0.6), "is better than"),
        ((0.5, 0.6), (0.6, 0.7), "is worse than"),
        ((0.6, 0.601), (0.6, 0.6), "is no different from"),
        ((0.6, 0.7), (0.5, 0.8), "is no different from"),
        ((0.6, 0.9), (0.5, 0.91), "is neither better nor worse than"),
    ):
        [sentence, _] = bias.sentences(runs_of("network", without_bias=free, with_bias=biased))
        assert said in sentence


def test_the_other_findings_go_with_the_numbers() -> None:
    good = runs_of("restored by", raw=(0.3,), own_network=(0.7,), other_network=(0.6,))
    poor = runs_of("restored by", raw=(0.3,), own_network=(0.7,), other_network=(0.2,))
    assert "better than raw" in cross.sentences(good)[1]
    assert "worse than raw" in cross.sentences(poor)[1]
    rising = [{"stack": "s", "seed": 0, "crops": n, "ssim": v} for n, v in ((16, 0.3), (64, 0.695), ("all", 0.7))]
    assert "from 64 on" in amount.sentences(rising)[0]
    rising[1]["ssim"] = 0.5
    assert "none within 0.01 of all" in amount.sentences(rising)[0]
    base = {"stack": "s", "seed": 0}
    same = [
        {**base, "normalisation": name, "change": change, "ssim": score}
        for name, change, score in ((normalisation.FITTED, 0.0, 0.7), ("scale x 4", 1e-7, 0.7), ("offset 0", 0.5, 0.4))
    ]
    scale, offset = normalisation.sentences(same)
    assert "stays the same" in scale
    assert "worse than" in offset
    sizes = [
        {**base, "result": which, "factor": factor, "ssim": score}
        for which, factor, score in (
            (pixel.RESTORED, 1.0, 0.7), (pixel.SCALED, 1.0, 0.4), (pixel.RESTORED, 2.0, 0.5), (pixel.SCALED, 2.0, 0.6),
        )
    ]  # fmt: skip
    said = " ".join(pixel.sentences(sizes))
    assert "Pixels as in training: restored is better than" in said
    assert "Pixels rescaled by 2: restored is worse than" in said
    assert "gains most, +0.300, at a factor of 1." in said


def test_runs_are_compared_pair_by_pair() -> None:
    runs = runs_of("network", a=(0.1, 0.5, 0.9), b=(0.2, 0.4))
    found = compared(runs, "ssim", {"network": "a"}, {"network": "b"})
    assert found is not None
    assert (found.one, found.other, found.higher, found.lower, found.count) == pytest.approx((0.3, 0.3, 1, 1, 2))
    assert compared(runs, "iou", {"network": "a"}, {"network": "b"}) is None
    assert verdict([]) == "neither better nor worse than"
    columns, rows = summarise(runs, ("network",))
    assert columns == ("network", "runs", "ssim", "ssim_sd")
    assert rows[0] == pytest.approx(("a", 3, 0.5, 0.4))


@pytest.mark.parametrize("wanted", [1, 16])
def test_the_limit_of_crops_is_the_number_of_places_drawn(subject: Subject, wanted: int) -> None:
    task, source = registry.load("tasks", "contrast"), source_of(subject)
    fit = task.fit([source], CONFIG)
    places = {}
    for limit in (wanted, 2 * wanted):
        limited = amount.Limited(task, limit)
        banks = [limited.prepare([source], fit, CONFIG, seed=7, round=round) for round in (0, 1)]
        assert torch.equal(banks[0].corners, banks[1].corners)
        raw, generator = banks[0].images["raw"], torch.Generator().manual_seed(0)
        # A picture of numbers: every crop names its place.
        bank = replace(banks[0], images={"raw": torch.arange(raw.numel(), dtype=torch.float64)})
        drawn = [draw(bank, 8, fit.patch, generator, augment=False)[0]["raw"] for _ in range(60)]
        places[limit] = {float(crop[0, 0, 0]) for batch in drawn for crop in batch}
        assert len(places[limit]) == limit
    assert places[wanted] < places[2 * wanted]
    assert limited.build is task.build


def test_a_network_without_bias_does_not_see_the_scale_but_the_offset(subject: Subject, network: Network) -> None:
    raw = raw_of(subject)
    results = {}
    for name, norm in normalisation.norms(raw, network.fit.norm).items():
        fit = replace(network.fit, norm=norm)
        results[name] = network.passes(raw, 2, fit=fit, progress=silent)[-1]
    right = results[normalisation.FITTED]
    for name in normalisation.SCALES:
        np.testing.assert_allclose(results[name], right, rtol=1e-4)
    for name in normalisation.OFFSETS[:2]:
        assert np.abs(results[name] - right).max() > 0.01 * right.std()


def test_the_wrong_norms_are_what_their_names_say() -> None:
    raw = np.arange(101, dtype=np.float32).reshape(1, 1, 101)
    found = normalisation.norms(raw, Norm(20.0, 8.0))
    assert list(found.values()) == [
        Norm(20.0, 8.0), Norm(20.0, 2.0), Norm(20.0, 32.0), Norm(0.0, 8.0), Norm(50.0, 8.0), Norm(1.0, 29.0),
    ]  # fmt: skip


def test_pixels_of_the_right_size_are_a_plain_application(subject: Subject, network: Network) -> None:
    raw = raw_of(subject)
    plain = network.passes(raw, 2, progress=silent)[-1]
    np.testing.assert_array_equal(pixel.at_scale(network, raw, 1.0, 2, silent), plain)
    assert pixel.at_scale(network, raw, 0.71, 1, silent).shape == raw.shape


def test_rescaling_keeps_a_ramp_and_the_mean() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (2, 30, 40)).copy()
    double_ = pixel.rescaled(ramp, 2.0)
    assert double_.shape == (2, 60, 80)
    inside = double_[0, 10, 4:-4]
    np.testing.assert_allclose(np.diff(inside), 0.5, atol=1e-5)
    half = pixel.rescaled(ramp, 0.5)
    assert half.shape == (2, 15, 20)
    assert half.mean() == pytest.approx(ramp.mean(), rel=1e-4)


def test_simulated_stacks_are_trained_on_with_their_own_seed(subject: Subject) -> None:
    made = [Subject("tissue", subject.stack, seed=seed) for seed in (0, 1)]
    assert [(s.seed, seed) for s, seed in pairs(made, (0, 1))] == [(0, 0), (1, 1)]
    assert [seed for _, seed in pairs([subject], (0, 1, 2))] == [0, 1, 2]


def test_every_experiment_says_what_it_needs_and_does() -> None:
    for name in registry.names("experiments"):
        module: ModuleType = registry.module("experiments", name)
        assert set(module.PHANTOMS) <= set(registry.names("synth"))
        assert "Source:" in (registry.load("experiments", name).__doc__ or "")
        assert callable(module.sentences)

"""The settings search: fair between patch sizes, kept as it goes, and no winner where there is none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepcontrast import training
from deepcontrast.cli import run
from deepcontrast.experiments import search as searching
from deepcontrast.experiments.search import default_grid, points_of, search, sentences
from deepcontrast.io import write_stack
from deepcontrast.learning import lessons
from deepcontrast.patches import retiled, unseen
from deepcontrast.recipe import load_recipe, recipe_text
from deepcontrast.stack import Stack

from .conftest import TINY

FEW = (*TINY, "train.steps=4", "train.validate_every=2")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of pixels, which a test of the plumbing need not wait for."""
    monkeypatch.setattr(searching, "png_bytes", lambda figure: PNG)


def command(folder: Path, *more: str) -> list[str]:
    settings = [part for setting in FEW for part in ("--set", setting)]
    return ["experiment", "search", "--out", str(folder), *settings, *more]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_writes_every_run_its_history_and_a_recipe_that_train_takes(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ("--try", "train.learning_rate=1e-3,1e-9", "--try", "train.patch=16,24")
    assert run(command(tmp_path / "s", "--input", str(tiny_file), *grid)) == 0
    said = capsys.readouterr().out
    runs = rows_of(tmp_path / "s" / "search.csv")
    assert [(r["train.learning_rate"], r["train.patch"]) for r in runs] == [
        ("0.001", "16"), ("0.001", "24"), ("1e-09", "16"), ("1e-09", "24"),
    ]  # fmt: skip
    # A rate of next to nothing does not learn.
    lowest = min(runs, key=lambda r: float(r["loss"]))
    assert lowest["train.learning_rate"] == "0.001"
    histories = rows_of(tmp_path / "s" / "histories.csv")
    assert [r["step"] for r in histories] == ["2.0", "4.0"] * 4
    assert float(histories[1]["val_loss"]) == float(runs[0]["final"])
    found = json.loads((tmp_path / "s" / "experiment.json").read_text())
    assert (len(found["rows"]), len(found["runs"])) == (4, 4)
    assert "One seed: whether this is chance, only more --seeds show; no winner is claimed." in said
    assert (tmp_path / "s" / "figure.png").read_bytes().startswith(PNG)
    best = load_recipe(str(tmp_path / "s" / "best.toml"))
    assert (best.train.learning_rate, best.train.patch) == (0.001, int(lowest["train.patch"]))
    model = str(tmp_path / "m.safetensors")
    given = ["train", str(tmp_path / "s" / "best.toml"), "--input", str(tiny_file), "--out", model]
    assert run(given) == 0


def test_pairs_are_searched_like_stacks(undrawn: None, tiny_stack: Stack, tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
        write_stack(tmp_path / name / "a.tif", tiny_stack)
    pair = ("--recipe", "care", "--input", str(tmp_path / "low"), "--target", str(tmp_path / "high"))
    losses = ("--try", "train.loss=mae,mse,laplace")
    assert run(command(tmp_path / "s", *pair, *losses)) == 0
    runs = rows_of(tmp_path / "s" / "search.csv")
    assert [r["train.loss"] for r in runs] == ["mae", "mse", "laplace"]
    # Losses of different kinds do not compare: the error does.
    found = json.loads((tmp_path / "s" / "experiment.json").read_text())
    assert found["finding"][0].startswith("Lowest mae on held-out patches")
    assert float(runs[0]["loss"]) == float(runs[0]["mae"])


def test_an_interrupted_search_goes_on_with_what_is_left(
    undrawn: None, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[tuple[int, int]] = []

    def broken(task: Any, sources: Any, fit: Any, config: Any, **more: Any) -> Any:
        seeds.append((config.train.patch, config.train.seed))
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return training.train(task, sources, fit, config, **more)

    monkeypatch.setattr(searching, "train", broken)
    given = command(tmp_path / "s", "--input", str(tiny_file), "--try", "train.patch=16,24", "--seeds", "3")
    assert run(given) == 130
    kept = (tmp_path / "s.partial" / "done" / "runs.jsonl").read_text().splitlines()
    assert len(kept) == 1
    assert run([*given, "--seeds", "3,4", "--resume"]) == 0
    assert seeds == [(16, 3), (24, 3), (16, 4), (24, 3), (24, 4)]
    runs = rows_of(tmp_path / "s" / "search.csv")
    assert [(r["train.patch"], r["seed"]) for r in runs] == [("16", "3"), ("16", "4"), ("24", "3"), ("24", "4")]
    assert float(runs[0]["loss"]) == json.loads(kept[0])["record"]["loss"]
    assert run([*given, "--seeds", "3,4", "--resume"]) == 0
    assert len(seeds) == 5


def test_networks_that_change_nothing_score_alike_whatever_their_patches(
    undrawn: None, tiny_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []

    def identity(task: Any, sources: Any, fit: Any, config: Any, **_: Any) -> training.Trained:
        fits.append(fit)
        weights = {name: torch.zeros_like(tensor) for name, tensor in task.build(fit, config).state_dict().items()}
        return training.Trained(weights, weights, {"loss": [1.0], "val_step": [1.0], "val_loss": [1.0]})

    monkeypatch.setattr(searching, "train", identity)
    config = load_recipe("contrast", FEW)
    placed = tiny_stack.with_optics(surface="first")
    found = search(
        lambda settled: lessons([placed], settled)[0], config,
        grid={"train.patch": [8, 16, 24]}, seeds=(0, 1), folder=tmp_path / "done",
    )  # fmt: skip
    assert len({run_["loss"] for run_ in found.finding.runs}) == 1
    assert [fit.patch for fit in fits[::2]] == [8, 16, 24]
    regions = [unseen(fit.held_out, fit.patch, (64, 72)) for fit in fits]
    assert all(np.array_equal(region, regions[-1]) for region in regions)
    assert regions[0].sum() == 24 * 24
    assert "no different from 2 of 2 others" in found.finding.sentences[1]


@pytest.mark.parametrize(("size", "patch"), [(64, 32), (64, 24), (24, 16), (16, 16)])
def test_smaller_held_out_squares_cover_the_same_pixels(size: int, patch: int) -> None:
    held_out = ((0, 8, 0), (1, 30, 40))
    for stack in (0, 1):
        covered = unseen(retiled(held_out, size, patch), patch, (100, 110), stack)
        assert np.array_equal(covered, unseen(held_out, size, (100, 110), stack))


def test_no_winner_is_claimed_within_the_spread_over_seeds() -> None:
    took: dict[str, list[float | None]] = {"a": [2.0, 2.0], "b": [1.0, 1.0], "c": [9.0, None]}
    near = sentences({"a": [1.0, 2.0], "b": [1.6, 1.7], "c": [5.0, 5.1]}, took, "loss")
    assert near[1:] == (
        "No winner: within the spread over 2 seeds it is no different from 1 of 2 others: b.",
        "Of these the quickest to train is b.",
    )
    far = sentences({"a": [1.0, 1.1], "b": [1.6, 1.7], "c": [5.0, 5.1]}, took, "loss")
    assert far[1:] == ("It is better than all others by more than the spread over 2 seeds (0.1).",)
    # What varies much itself is not beaten either.
    assert (
        "no different from 1 of 2 others: b." in sentences({"a": [1.0, 1.1], "b": [1, 9], "c": [5, 5]}, took, "mae")[1]
    )


def test_the_default_grid_is_small_and_around_the_recipe() -> None:
    config = load_recipe("contrast")
    points = points_of(config, default_grid(config))
    assert len(points) == 6
    assert config in [point.config for point in points]


def test_a_recipe_that_is_written_reads_as_the_same_settings(tmp_path: Path) -> None:
    for name in ("contrast", "care", "isotropic", "project", "upsampling"):
        config = load_recipe(name)
        path = tmp_path / f"{name}.toml"
        path.write_text(recipe_text(config, ("said",)))
        assert load_recipe(str(path)) == config


def test_what_cannot_be_tried_is_refused_in_one_line(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = ("--input", str(tiny_file))
    for more, message in (
        ((*image, "--try", "task.haze=0.1,0.2"), "'task.haze' cannot be tried; accepted: net.name"),
        ((*image, "--try", "train.seed=1,2"), "'train.seed' cannot be tried"),
        ((*image, "--try", "train.pach=16,24"), "did you mean 'train.patch'?"),
        ((*image, "--try", "train.patch"), "is not of the form key=value,value"),
        ((*image, "--try", "train.patch=4"), "setting 'train.patch' = 4"),
        ((*image, "--only", "oracle"), "--only is for ablation"),
        (("--recipe", "care"), "learns from pairs of images"),
        (("--recipe", "isotropic"), "learns from images; give some with --input"),
    ):
        assert run(command(tmp_path / "s", *more)) == 2
        assert message in capsys.readouterr().err
    assert run(["experiment", "ablation", "--out", str(tmp_path / "s"), "--try", "train.patch=16"]) == 2
    assert "--target and --try are for search, not for ablation" in capsys.readouterr().err
    assert not list(tmp_path.glob("s*"))


def test_a_recipe_that_draws_is_searched_without_images(
    tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ("--recipe", "tubules", "--set", "task.size=80", "--set", "task.images=2")
    assert run(command(tmp_path / "s", *drawn, "--try", "train.patch=16,24")) == 0
    runs = rows_of(tmp_path / "s" / "search.csv")
    assert [r["train.patch"] for r in runs] == ["16", "24"]
    best = load_recipe(str(tmp_path / "s" / "best.toml"))
    assert best.task["structure"] == "tubules"
    assert best.task["chain"] == load_recipe("tubules").task["chain"]

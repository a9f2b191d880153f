"""Every method is run and scored alike; what is slow is cut, what is tuned on the truth is marked."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.baselines import Scene, fce_net
from deepcontrast.baselines.median import median
from deepcontrast.cli import run
from deepcontrast.comparison import compare, cost, tuning
from deepcontrast.comparison.scoring import tile_ious
from deepcontrast.comparison.table import Column, lines, wins
from deepcontrast.comparison.tuning import apply
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.recipe import load_recipe
from deepcontrast.report.compare_data import CompareData, MethodResult
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue

from .conftest import TINY

SCENE = Scene(radius=2.0, anisotropy=1.0, noise=3.0, background=0.0, gain=1.0, optics=Optics())


@dataclass(frozen=True)
class Run:
    folder: Path
    data: CompareData
    said: str
    rows: list[dict[str, Any]]

    def of(self, label: str) -> Any:
        [found] = [m for m in self.data.methods if m.label == label]
        return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the command line on simulated tissue: the clock makes the methods slow, and one is not installed."""
    folder = tmp_path_factory.mktemp("compare")
    made = tissue(shape=(10, 64, 96), seed=5)
    for name, array in (("raw", made.raw), ("truth", made.truth), ("mask", made.mask.astype(np.uint8))):
        write_stack(folder / f"{name}.tif", Stack(array, "ZYX", Optics(voxel_size=(0.5, 0.3, 0.3))))
    shown: list[CompareData] = []

    def page(path: Path, data: CompareData, **_: object) -> None:
        shown.append(data)
        path.write_text("page")

    def absent(scene: Scene) -> dict[str, object]:
        raise InputError("the package is not installed")

    def slow(call: Callable[[], Any]) -> tuple[Any, cost.Cost]:
        result = call()
        return result, cost.Cost(result.size / 1e4 if getattr(result, "ndim", 0) == 3 else 1.0, 7.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepcontrast.jobs.compare.write_compare", page)
        patch.setattr("deepcontrast.baselines.unsharp.suggested", absent)
        patch.setattr(tuning, "measured", slow)
        arguments = [part for setting in TINY for part in ("--set", setting)]
        files = {name: str(folder / f"{name}.tif") for name in ("raw", "truth", "mask")}
        said: list[str] = []
        patch.setattr("deepcontrast.cli.listener.Listener.say", lambda _, line: said.append(line))
        # 10 x 64 x 64 voxels take 4.1 s, all of them 6.1 s.
        assert run(
            ["compare", files["raw"], "--truth", files["truth"], "--mask", files["mask"], "--out", str(folder / "out"),
             "--methods", "band_pass,median,unsharp", "--budget", "5", "--save-images", *arguments]
        ) == 0  # fmt: skip
    table = json.loads((folder / "out" / "metrics.json").read_text())
    return Run(folder, shown[0], "\n".join(said), table["rows"])


def test_all_that_is_promised_is_written(compared: Run) -> None:
    out = compared.folder / "out"
    names = ["compare.html", "images", "metrics.json", "run.json", "table.csv"]
    assert sorted(p.name for p in out.iterdir()) == names
    record = json.loads((out / "run.json").read_text())
    assert (record["verb"], record["state"]) == ("compare", "complete")
    assert set(record["input"]) == {"image", "truth", "mask"}
    assert record["skipped"] == ["unsharp is left out: the package is not installed"]
    assert [m["label"] for m in record["methods"]] == [m.label for m in compared.data.methods]
    table = json.loads((out / "metrics.json").read_text())
    assert set(table) == {"format_version", "rows", "chosen_iterations", "why"}
    assert set(table["rows"][0]) == {"method", "k", "t", "c", "z", "depth_um", "metric", "value", "reason"}
    assert len(list((out / "images").iterdir())) == len(compared.data.methods)
    saved = open_stack(out / "images" / "median.tif")
    np.testing.assert_array_equal(saved.volume(), compared.of("median").volume)


def test_every_method_stands_beside_the_raw_in_order(compared: Run) -> None:
    crop = ", middle 64 x 64 px"
    assert [m.label for m in compared.data.methods] == [
        "raw", "deepcontrast k=1", "deepcontrast k=2", "deepcontrast (auto k)",
        f"raw{crop}", f"deepcontrast (auto k){crop}",
        "band_pass_2d", "band_pass_2d (tuned on the truth)", "median", "median (tuned on the truth)",
    ]  # fmt: skip
    lines = compared.said.splitlines()
    assert all(any(line.startswith(m.label) for line in lines) for m in compared.data.methods)
    with open(compared.folder / "out" / "table.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [m.label for m in compared.data.methods]


def test_rows_carry_the_names_of_the_contract_and_say_what_was_tuned(compared: Run) -> None:
    assert {row["method"] for row in compared.rows} == {
        "raw", "deepcontrast", "raw (middle 64 x 64 px)", "deepcontrast (middle 64 x 64 px)",
        "band_pass", "band_pass (tuned on the truth)", "median", "median (tuned on the truth)",
    }  # fmt: skip
    assert {row["k"] for row in compared.rows if row["method"] == "deepcontrast"} == {1, 2, None}
    assert {row["reason"] for row in compared.rows if row["method"] == "median" and row["value"] is not None} == {
        "measured on the middle 64 x 64 px of every plane"
    }


def test_scores_are_those_of_the_metrics(compared: Run) -> None:
    """Of a plane of the raw, and of the crop of a slow method; mask and truth are cut with it."""
    raw, truth, mask = (open_stack(compared.folder / f"{n}.tif").volume() for n in ("raw", "truth", "mask"))
    for label in ("raw", "median"):
        result = compared.of(label)
        volume, t, m = np.asarray(result.volume[4]), truth[result.region][4], mask[result.region][4] > 0
        region = ndimage.binary_dilation(m, iterations=3)
        clipped = np.maximum(volume, np.median(volume))
        assert result.scores["iou"][4] == registry.load("metrics", "iou")(volume, m)[0].value
        ssim = registry.load("metrics", "ssim")
        assert result.scores["ssim_foreground"][4] == ssim(volume, t, region=region)[1].value
        assert result.scores["ssim_clipped"][4] == ssim(clipped, t)[0].value
        assert result.scores["nrmse"][4] == registry.load("metrics", "nrmse")(volume, t)[0].value
        stack = registry.load("metrics", "iou_stack")(np.asarray(result.volume), mask[result.region] > 0)
        assert result.stack_scores["iou_stack"] == stack[0].value
    np.testing.assert_array_equal(compared.of("raw").volume, raw)


def test_a_slow_method_is_cut_to_the_middle_and_raw_and_ours_with_it(compared: Run) -> None:
    crop = (slice(0, 10), slice(0, 64), slice(16, 80))
    for label in ("median", "raw, middle 64 x 64 px", "deepcontrast (auto k), middle 64 x 64 px"):
        assert compared.of(label).region == crop
    ours = compared.of("deepcontrast (auto k)").volume
    np.testing.assert_array_equal(compared.of("deepcontrast (auto k), middle 64 x 64 px").volume, ours[crop])
    assert compared.of("median").seconds == pytest.approx(10 * 64 * 64 / 1e4)
    assert compared.of("median").voxels_per_second == pytest.approx(1e4)
    assert "middle 64 x 64 px" in compared.of("median").parameters


def test_the_summary_counts_who_is_ahead(compared: Run) -> None:
    """Of the two baselines, each against ours on the same pixels."""
    ours = compared.of("deepcontrast (auto k), middle 64 x 64 px").scores["iou"].mean()
    theirs = [compared.of(label).scores["iou"].mean() for label in ("band_pass_2d", "median")]
    ahead = sum(value > ours for value in theirs)
    assert ahead
    assert f"IoU {ahead} (most" in compared.data.summary[0]
    assert f"{max(theirs):.3f} against {ours:.3f}" in compared.data.summary[0]


def test_tiles_of_every_method_are_judged_where_it_was_measured(compared: Run) -> None:
    """One tile of 64 px fits into a plane of 64 x 96, and it is all of a crop of 64 x 64."""
    tiles = compared.data.iou_tiles
    assert list(tiles) == [m.label for m in compared.data.methods]
    mask = open_stack(compared.folder / "mask.tif").volume() > 0
    for result in compared.data.methods:
        first = result.region[2].start or 0
        parts = [(v[:, :64], m[:, first : first + 64]) for v, m in zip(result.volume, mask, strict=True)]
        expected = [registry.load("metrics", "iou")(v, m)[0].value for v, m in parts if m.any()]
        np.testing.assert_array_equal(tiles[result.label], expected)


def test_tiles_without_a_measured_structure_have_no_iou() -> None:
    """Of two planes with structure one holds no measurement there; a third has no structure and no tile."""
    mask = np.zeros((3, 8, 8), bool)
    mask[:2, :4] = True
    valid = np.ones_like(mask)
    valid[1, :4] = False
    everything = (slice(0, 3), slice(0, 8), slice(0, 8))
    result = MethodResult(
        "median", "median", None, "", "", mask.astype(np.float32), everything, None, None, None, {}, {}
    )
    np.testing.assert_array_equal(tile_ious([result], mask, valid)["median"], [1.0, np.nan])
    assert tile_ious([result], None, None) == {}


def test_a_window_that_fits_takes_what_is_there_of_the_budget() -> None:
    """Time 2 s + 1e-5 s per voxel: of 10 planes, 12 s hold 1e6 voxels, a side of 316, down to a multiple of 32."""
    shape = (10, 1000, 1000)
    seconds = {side: (2 + 1e-5 * 10 * side**2, 10 * side**2) for side in (64, 128)}
    assert cost.fitting(shape, 12.0, seconds[64], seconds[128]) == 288
    assert cost.fitting(shape, 102.0, seconds[64], seconds[128]) == 1000
    assert cost.fitting(shape, 2.0, seconds[64], seconds[128]) == cost.PROBE
    # The first call loaded something: what a second one took counts.
    assert cost.fitting(shape, 10.0, (50.0, 10 * 64**2), (1e-5 * 10 * 128**2, 10 * 128**2)) == 288


def test_what_a_call_costs() -> None:
    array, found = cost.measured(lambda: np.ones(10_000_000))
    assert len(array) == 10_000_000
    assert 0 < found.seconds < 30
    if found.peak_mb is None:
        pytest.skip("this system does not tell")
    assert 75 < found.peak_mb < 200


@pytest.mark.parametrize("sign", [1, -1])
def test_the_settings_for_the_truth_are_the_best_of_the_choices_and_the_users_own(sign: int) -> None:
    volume = np.random.default_rng(0).normal(100, 10, (4, 40, 44)).astype(np.float32)
    module = registry.module("baselines", "median")
    alone = [median(volume, **{**module.suggested(SCENE), **choice}) for choice in ({}, *module.CHOICES)]
    user, tuned = apply("median", volume, SCENE, judge=lambda v, _: sign * float(v.std()), budget=60)
    assert (user.tuned, tuned.tuned) == ("as a user would", "on the truth")
    np.testing.assert_array_equal(user.volume, alone[0])
    np.testing.assert_array_equal(tuned.volume, max(alone, key=lambda v: sign * v.std()))
    assert len({v.std() for v in alone}) > 1
    assert [a.tuned for a in apply("median", volume, SCENE, budget=60)] == ["as a user would"]


def test_a_setting_that_rests_on_a_truth_is_said_on_the_users_line() -> None:
    volume = np.random.default_rng(0).poisson(20, (2, 12, 12)).astype(np.float32)
    made = list(apply("richardson_lucy", volume, SCENE, judge=lambda v, _: float(v.std()), budget=60))
    assert ["tissue of seeds 1 and 2" in one.parameters for one in made] == [True, False]
    assert "regularisation 0.01" in made[0].parameters


def test_settings_for_the_truth_that_beat_none_of_the_users_are_the_users() -> None:
    volume = np.random.default_rng(0).normal(100, 10, (4, 40, 44)).astype(np.float32)
    user, tuned = apply("median", volume, SCENE, judge=lambda v, _: 0.0, budget=60)
    assert (tuned.tuned, tuned.parameters) == ("on the truth", user.parameters)
    assert tuned.volume is user.volume


def test_every_pass_of_a_trained_method_is_shown_and_the_best_one_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []

    def passes(volume: np.ndarray, *, iterations: int = 3, seed: int = 0, device: str = "") -> tuple[np.ndarray, ...]:
        seen.append({"seed": seed, "device": device})
        return tuple(volume * k for k in range(1, iterations + 1))

    monkeypatch.setattr(fce_net, "passes", passes)
    volume = np.ones((2, 100, 100), np.float32)
    made = list(apply("fce_net", volume, SCENE, judge=lambda v, _: -abs(v.mean() - 2), budget=1e-9, seed=4))
    assert [(a.k, a.tuned) for a in made] == [
        (1, "as a user would"), (2, "as a user would"), (3, "as a user would"), (2, "on the truth"),
    ]  # fmt: skip
    assert seen == [{"seed": 4, "device": "cpu"}]
    assert all(a.volume.shape == volume.shape for a in made)


def test_the_table_says_who_wins_and_has_a_dash_where_nothing_is_defined() -> None:
    shown = (Column("iou", "IoU", "IoU"), Column("nrmse", "NRMSE", "NRMSE", -1))
    table = {
        "ours": {"iou": 0.5, "nrmse": 0.2},
        "a": {"iou": 0.6, "nrmse": 0.3},
        "b": {"iou": float("nan"), "nrmse": 0.1},
        "c": {"iou": 0.5},
    }
    assert wins(table, "ours", ["a", "b", "c"], shown) == [
        "a wins in: IoU (0.600 against 0.500)",
        "b wins in: NRMSE (0.100 against 0.200)",
        "c wins in none of these",
    ]
    assert [line.split() for line in lines(table, shown)] == [
        ["method", "IoU", "NRMSE"], ["ours", "0.500", "0.200"], ["a", "0.600", "0.300"], ["b", "-", "0.100"],
        ["c", "0.500", "-"],
    ]  # fmt: skip


def test_without_truth_nothing_is_tuned_and_results_are_held_against_the_raw(tiny_stack: Stack, tmp_path: Path) -> None:
    found = compare(tiny_stack, load_recipe("contrast", TINY), methods=["median"], folder=tmp_path)
    assert [m.label for m in found.methods][-2:] == ["deepcontrast (auto k)", "median"]
    assert {m.tuned for m in found.methods} == {"", "as a user would"}
    raw = next(m for m in found.methods if m.label == "raw")
    assert raw.stack_scores["fidelity_correlation"] > 0.9
    assert "ssim" not in raw.scores
    assert found.iou_tiles == {}


@pytest.mark.slow
def test_the_page_is_made_of_what_was_compared(tiny_stack: Stack, tmp_path: Path) -> None:
    made = tissue(shape=(10, 64, 72), seed=5)
    for name, array in (("raw", made.raw), ("truth", made.truth), ("mask", made.mask.astype(np.uint8))):
        write_stack(tmp_path / f"{name}.tif", Stack(array, "ZYX", Optics(voxel_size=(0.5, 0.3, 0.3))))
    arguments = [part for setting in TINY for part in ("--set", setting)]
    for known in ([], ["truth"], ["mask"], ["truth", "mask"]):
        out = tmp_path / ("out" + "".join(known))
        given = [part for name in known for part in (f"--{name}", str(tmp_path / f"{name}.tif"))]
        command = ["compare", str(tmp_path / "raw.tif"), "--out", str(out), "--methods", "median,tv", "--quiet"]
        assert run([*command, *given, *arguments]) == 0
        page = (out / "compare.html").read_text()
        assert "median" in page
        assert ("drawn on the raw" in page) == ("mask" in known)

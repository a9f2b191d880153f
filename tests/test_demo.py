"""The demo's promise: on simulated tissue of known truth the chosen result is well above raw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepcontrast.cli import run
from deepcontrast.demo import OURS, SCORES
from deepcontrast.synth import tissue

from .conftest import TINY


def test_demo_runs_twice_into_the_same_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tissue.tissue
    monkeypatch.setattr(tissue, "tissue", lambda *, seed: whole(shape=(10, 64, 72), seed=seed))
    small = [part for setting in TINY for part in ("--set", setting)]
    for _ in range(2):
        assert run(["demo", "--out", str(tmp_path / "d"), "--seeds", "3", *small]) == 0
    said = capsys.readouterr().out
    assert "band_pass_3d wins in" in said
    assert str(tmp_path / "d" / "seed_3" / "enhanced" / "report.html") in said
    scores = json.loads((tmp_path / "d" / "scores.json").read_text())["scores"]
    assert set(scores["raw"]) == set(SCORES)
    assert {OURS, "deepcontrast k=1", "clahe_2d", "clahe_3d", "band_pass_2d", "band_pass_3d"} <= set(scores)
    assert (tmp_path / "d" / "seed_3" / "enhanced" / "before_after.png").exists()


@pytest.mark.slow
def test_the_chosen_result_is_well_above_raw(tmp_path: Path) -> None:
    assert run(["demo", "--out", str(tmp_path), "--seeds", "0", "--quiet"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    gain = {s: sum(scores[OURS][s]) / 5 - sum(scores["raw"][s]) / 5 for s in ("iou", "ssim")}
    assert gain["iou"] >= 0.10
    assert gain["ssim"] >= 0.15

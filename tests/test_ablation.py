"""The ablation: what each idea is worth beside filters and an oracle; kept as it goes, and said as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deepcontrast
from deepcontrast.cli import run
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.experiments import _ablation_table, _figures, ablation
from deepcontrast.experiments._networks import source_of
from deepcontrast.experiments._oracle import Truthful, oracle
from deepcontrast.patches import draw
from deepcontrast.progress import silent
from deepcontrast.recipe import load_recipe
from deepcontrast.tasks import contrast

from .conftest import TINY

FEW = (*TINY, "train.steps=4", "train.patch=16", "predict.iterations=1")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "SHAPE", (15, 40, 56))
    monkeypatch.setattr(ablation, "PHANTOMS", ("tissue", "spots"))
    monkeypatch.setattr(ablation, "FILTERS", ("band_pass_3d",))
    monkeypatch.setattr(ablation, "TUNED", {})
    monkeypatch.setattr(ablation, "TUNED_ON_OTHERS", {})
    monkeypatch.setattr(_figures, "png_bytes", lambda figure: PNG + bytes(len(figure.subfigs)))


def command(folder: Path, *more: str) -> list[str]:
    settings = [part for setting in FEW for part in ("--set", setting)]
    return ["experiment", "ablation", "--out", str(folder), "--seeds", "3", *more, *settings]


def test_it_says_its_cost_first_and_writes_a_table_of_every_idea(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(tmp_path / "e", "--only", "contrast,oracle,with bias")) == 0
    said = capsys.readouterr()
    assert "6 trainings on 2 stacks: about 0." in said.out + said.err
    found = json.loads((tmp_path / "e" / "experiment.json").read_text())
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    every = {(row["method"], row["k"]) for row in rows if row["phantom"] == "all"}
    assert every == {
        ("raw", ""), ("band_pass_3d", ""), ("oracle", ""),
        ("contrast", "1"), ("contrast", "auto"), ("with bias", "1"), ("with bias", "auto"),
    }  # fmt: skip
    assert {row["phantom"] for row in rows} == {"all", "tissue", "spots"}
    for method, share in (("raw", "0"), ("oracle", "100")):
        shares = {part for row in rows if row["method"] == method for part in row["closed"].split(" / ")}
        assert shares <= {share, "-"}
    assert {run_["cpu_s"] > 0 for run_ in found["runs"]} == {True}
    assert any("'contrast' less 'band_pass_3d'" in sentence for sentence in found["finding"])
    assert any("'with bias' less 'contrast'" in sentence for sentence in found["finding"])


def test_an_interrupted_run_goes_on_with_what_is_left(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ablation._results

    def broken(name: str, *others):
        if name == "oracle":
            raise KeyboardInterrupt
        return results(name, *others)

    monkeypatch.setattr(ablation, "_results", broken)
    given = command(tmp_path / "e", "--only", "contrast,oracle")
    assert run(given) == 130
    kept = tmp_path / "e.partial" / "done" / "runs.jsonl"
    before = kept.read_bytes()
    done: list[str] = []

    def counted(name: str, *others):
        done.append(name)
        return results(name, *others)

    monkeypatch.setattr(ablation, "_results", counted)
    capsys.readouterr()
    assert run([*given, "--resume"]) == 0
    said = capsys.readouterr()
    assert "4 trainings on 2 stacks, 1 of them done" in said.out + said.err
    assert done == ["oracle", "raw", "band_pass_3d", "contrast", "oracle"]
    found = json.loads((tmp_path / "e" / "experiment.json").read_text())
    first = json.loads(before.splitlines()[0])["record"]["runs"]
    assert found["runs"][: len(first)] == first


def test_what_is_complete_is_not_done_again(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = command(tmp_path / "e", "--only", "contrast", "--resume")
    assert run(given) == 0
    monkeypatch.setattr(ablation, "simulate", None)
    assert run(given) == 0
    assert "is complete already; nothing to do" in capsys.readouterr().out
    assert run([*given, "--seeds", "3,4"]) == 2
    assert "is complete, but of another run (seeds: then [3], now [3, 4])" in capsys.readouterr().err


def test_an_unfinished_run_may_be_given_more_ideas(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ablation._results
    done: list[tuple[str, str]] = []

    def counted(name: str, stack: ablation.Simulated, *others):
        if (name, stack.name) == ("contrast", "spots") and not done.count((name, stack.name)):
            done.append((name, stack.name))
            raise KeyboardInterrupt
        done.append((name, stack.name))
        return results(name, stack, *others)

    monkeypatch.setattr(ablation, "_results", counted)
    assert run(command(tmp_path / "e", "--only", "contrast")) == 130
    assert run(command(tmp_path / "e", "--only", "contrast,with bias", "--resume")) == 0
    assert done.count(("contrast", "tissue")) == 1
    assert done.count(("with bias", "tissue")) == 1


def test_what_cannot_be_tried_is_refused_before_anything_is_made(
    small: None, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "simulate", None)
    for more, message in (
        (("--only", "contrsat"), "no idea 'contrsat'"),
        (("--input", str(tiny_file)), "ablation compares with the truth, which measured stacks do not have"),
    ):
        assert run(command(tmp_path / "e", *more)) == 2
        assert message in capsys.readouterr().err
    assert run(["experiment", "bias-ablation", "--out", str(tmp_path / "e"), "--only", "contrast"]) == 2
    assert "--only is for ablation" in capsys.readouterr().err
    assert run(["experiment", "bias-ablation", "--out", str(tmp_path / "e"), "--resume"]) == 2
    assert "takes minutes and begins again; leave out --resume" in capsys.readouterr().err
    (tmp_path / "oracle.toml").write_text("")
    assert run(["experiment", "ablation", "--out", str(tmp_path / "e"), "--recipe", str(tmp_path / "oracle.toml")]) == 2
    assert "a recipe named 'oracle' would be taken for" in capsys.readouterr().err
    assert not list(tmp_path.glob("e*"))


@pytest.mark.parametrize(("haze", "k"), [(0.3, 2), (0.5, 1)])
def test_the_mixture_by_depth_is_what_enhance_writes(
    small: None, monkeypatch: pytest.MonkeyPatch, haze: float, k: int
) -> None:
    monkeypatch.setattr(ablation, "SHAPE", (24, 40, 56))
    stack = ablation.simulate("tissue", 4, 25.0, "near")
    config = load_recipe("contrast", (*TINY, "train.steps=40", f"task.haze={haze}"), train__seed=4)
    made = dict(ablation._results("contrast", stack, config, "cpu"))
    tables = config.model_dump()
    settings = {f"{name}.{key}": v for name in ("net", "train", "predict", "task") for key, v in tables[name].items()}
    written = deepcontrast.enhance(stack.stack, settings=settings, device="cpu")
    assert set(written.enhanced.restored[0][0][0].chosen) == {k}
    np.testing.assert_allclose(made["auto"], np.asarray(written.enhanced.restored[0][0][0].enhanced), rtol=1e-5)


def test_ideas_differ_in_what_they_say_and_in_nothing_else() -> None:
    def differences(one: Config, other: Config) -> set[str]:
        a, b = one.model_dump(), other.model_dump()
        return {f"{t}.{k}" for t in ("net", "train", "task", "predict") for k in a[t] if a[t][k] != b[t][k]}

    ideas = ablation.ideas_of(load_recipe("contrast", ("train.steps=8", "predict.iterations=2")))
    names = list(ideas)
    assert names == [
        "published pairing", "photons shared out", "mean-seeking loss", "neighbouring planes", "contrast",
        "with bias", "oracle",
    ]  # fmt: skip
    steps = [differences(ideas[a], ideas[b]) for a, b in zip(names[1:], names[2:5], strict=False)]
    assert steps == [{"train.loss"}, {"net.context"}, {"task.widths"}]
    assert differences(ideas["contrast"], ideas["with bias"]) == {"net.bias"}
    assert ideas["oracle"] == ideas["contrast"]
    published = ideas["published pairing"]
    assert (published.train.steps, published.train.batch, published.predict.iterations) == (2, 16, 4)
    assert (published.predict.orientations, ideas["photons shared out"].predict.orientations) == (1, 4)
    assert (published.train.clip, ideas["photons shared out"].train.clip) == (0, ideas["contrast"].train.clip)
    assert [ideas[name].train.steps for name in names[1:]] == [8] * 6
    # What the paper's recipe lacks is no idea of it.
    assert list(ablation.ideas_of(load_recipe("contrast-paper"))) == [
        "published pairing", "photons shared out", "contrast-paper", "with bias", "oracle",
    ]  # fmt: skip


def test_what_is_undefined_is_left_out_of_means() -> None:
    runs = runs_of(raw=0.2, recipe=0.5, oracle=0.6)
    runs[5]["pearson_clipped"] = None
    table = _ablation_table.tabulate(runs)
    [row] = [row for row in table.rows if row[:3] == ("all", "recipe", "auto")]
    assert row[table.columns.index("pearson_clipped")] == pytest.approx(0.5)
    assert row[table.columns.index("closed")] == "75 / 75 / 75 / 75"
    # An oracle that is no better than the raw has no gap to close.
    table = _ablation_table.tabulate(runs_of(raw=0.6, recipe=0.5, oracle=0.6))
    assert {row[table.columns.index("closed")] for row in table.rows} == {"- / - / - / -"}


def test_a_network_in_space_is_tried_like_any(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_recipe("contrast", (*FEW, "net.dims=3", "net.context=2"))
    stack = ablation.simulate("tissue", 4, 25.0, "near")
    for name in ("contrast", "oracle"):
        for _, result in ablation._results(name, stack, config, "cpu"):
            assert result.shape == stack.made.truth.shape
    told: list[tuple[int, ...]] = []
    monkeypatch.setattr(ablation, "_took", lambda function, device: told.append(closure(function)) or 1.0)
    flat = load_recipe("contrast", (*FEW, "net.context=2"))
    for one in (flat, config):
        ablation._seconds(one, "cpu")
    assert told[::2] == [(4, 5, 16, 16), (4, 1, 5, 16, 16)]


def closure(function: Any) -> tuple[int, ...]:
    """Return the shape of the batch that a function computes."""
    [batch] = [cell.cell_contents for cell in function.__closure__ if isinstance(cell.cell_contents, torch.Tensor)]
    return tuple(batch.shape)


def test_the_oracle_needs_all_planes(small: None) -> None:
    stack = ablation.simulate("tissue", 4, 25.0, "near")
    config = load_recipe("contrast", (*FEW, "task.bank_mb=1"))
    others = [stack, *(ablation.simulate("tissue", seed, 25.0, "near") for seed in range(5))]
    with pytest.raises(InputError, match=r"raise task\.bank_mb"):
        oracle(stack, others, config, device="cpu", progress=silent)


def test_lights_and_scatters_come_in_turn(small: None) -> None:
    stacks = [stack for stack in ablation.simulated((0, 1, 2, 3)) if isinstance(stack, ablation.Simulated)]
    for name in ablation.PHANTOMS:
        seen = {(stack.light, stack.scatter) for stack in stacks if stack.name == name}
        assert seen == {(light, scatter) for light in ablation.LIGHTS for scatter in ablation.SCATTERS}


def test_the_oracle_learns_the_truth_at_the_place_it_sees(small: None) -> None:
    stack = ablation.simulate("tissue", 4, 25.0, "near")
    assert all(not np.array_equal(other.truth, stack.truth) for other in stack.others())
    config, source = load_recipe("contrast", TINY), source_of(stack)
    fit = contrast.fit([source], config)
    cleaned = contrast.clean(source.volume(), fit)
    # A truth that is the raw itself: what is learned must lie where it is seen.
    truthful = Truthful(contrast, [cleaned])
    bank = truthful.prepare([source], fit, config, seed=0, round=0)
    patches = draw(bank, 8, fit.patch, torch.Generator().manual_seed(0), augment=True)
    x, y, _ = truthful.sample(*patches, fit, torch.Generator(), config)
    seen = fit.norm.invert(x[:, len(fit.layers) // 2])
    np.testing.assert_allclose(y[:, 0] * np.percentile(cleaned, 99), seen, rtol=1e-4)


def test_the_oracle_is_better_than_the_raw(small: None) -> None:
    stack = ablation.simulate("tissue", 4, 8.0, "near")
    config = load_recipe("contrast", (*TINY, "train.steps=150"))
    result = oracle(stack, stack.others(), config, device="cpu", progress=silent)
    raw = stack.stack.volume().astype(np.float32)
    assert ablation._mean(ablation.scored(result, stack.made)) > ablation._mean(ablation.scored(raw, stack.made)) + 0.02


def runs_of(**scores: float) -> list[dict[str, object]]:
    """One stack; every score of a method is the same in all parts of the depth."""
    return [
        {
            "stack": "a", "seed": 0, "phantom": "tissue", "method": method, "k": k, "depth": d, "cpu_s": 1.0,
            **dict.fromkeys(_ablation_table.SCORES, value),
        }
        for name, value in scores.items()
        for method, k in ((name, "" if name in ("raw", "oracle", "filter") else "auto"),)
        for d in range(5)
    ]  # fmt: skip


def test_the_share_of_the_gap_that_is_closed() -> None:
    runs = runs_of(raw=0.2, filter=0.4, recipe=0.5, oracle=0.6)
    table = _ablation_table.tabulate(runs)
    shares = {row[1]: row[table.columns.index("closed_mean")] for row in table.rows}
    assert shares == {"raw": 0, "filter": 50, "recipe": 75, "oracle": 100}
    said = ablation.sentences(runs)
    assert said[0] == (
        "Of the gap between raw and oracle 'recipe' closes 75 % in IoU, 75 % in SSIM, 75 % in SSIM of the foreground, "
        "75 % in correlation; 75 % in the mean."
    )
    assert said[1] == "For no phantom is 'recipe' below the raw in any score of any fifth of the depth."
    assert "'recipe' less 'filter'" in said[2]
    assert "IoU +0.100 (+0.100)" in said[2]


def test_a_part_of_the_depth_below_the_raw_is_named() -> None:
    runs = runs_of(raw=0.2, recipe=0.5)
    runs[-1]["ssim_clipped"] = 0.15
    table = _ablation_table.tabulate(runs)
    assert {row[table.columns.index("closed")] for row in table.rows} == {None}
    said = ablation.sentences(runs)
    assert said == ("'recipe' is below the raw in a score of a fifth of the depth: tissue -0.050.",)


@pytest.mark.parametrize("recipe", ["contrast", "fast", "best"])
def test_every_form_of_the_recipe_has_ideas_to_try(recipe: str) -> None:
    ideas = ablation.ideas_of(load_recipe(recipe))
    assert list(ideas) == [*ablation.STEPS, recipe, *ablation.BESIDE, "oracle"]
    in_planes = [name for name, config in ideas.items() if config.net.context == 0]
    assert in_planes == ["published pairing", "photons shared out", "mean-seeking loss"]
    assert all(ideas[name].net.dims == 2 for name in in_planes)


def test_a_filter_is_tuned_on_its_own_truth_or_on_those_of_others(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = ablation.simulate("tissue", 3, 25.0, "near")
    others = stack.others()
    band_pass = ablation.registry.load("baselines", "band_pass_3d")

    def best(one: ablation.Simulated) -> Any:
        """Return what suits a volume best, as this test has it: a narrow Gaussian its own, a wide one the others."""
        return band_pass(one.stack.volume().astype(np.float32), low=1.0 if one is stack else 2.0)

    def scores(result: Any, made: Any) -> Any:
        one = next(one for one in (stack, *others) if one.made is made)
        return [{"iou": -float(np.abs(result - best(one)).mean())}]

    monkeypatch.setattr(ablation.Simulated, "others", lambda self: others)
    monkeypatch.setattr(ablation, "scored", scores)
    monkeypatch.setattr(ablation, "TUNED", {"own": "band_pass_3d"})
    monkeypatch.setattr(ablation, "TUNED_ON_OTHERS", {"others'": "band_pass_3d"})
    np.testing.assert_array_equal(ablation._filtered("own", stack), best(stack))
    wide = band_pass(stack.stack.volume().astype(np.float32), low=2.0)
    np.testing.assert_array_equal(ablation._filtered("others'", stack), wide)

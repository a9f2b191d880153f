"""What users see: public names, help of every verb, and a README that runs."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import deepcontrast as dc
from deepcontrast import registry
from deepcontrast.api import _names
from deepcontrast.cli import app, run
from deepcontrast.io import write_stack
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack

from .conftest import TINY

ROOT = Path(__file__).parent.parent
VERBS = (
    "enhance", "train", "predict", "evaluate", "compare", "convert", "report", "info", "demo",
    "experiment", "simulate", "degrade", "pairs", "psf",
)  # fmt: skip


def test_public_names_change_on_purpose_only() -> None:
    assert dc.__all__ == [
        "Config", "DeepContrastError", "Optics", "Restorer", "Result", "Stack",
        "enhance", "evaluate", "load", "open", "predict", "train", "undo_equalise",
    ]  # fmt: skip
    for name in dc.__all__:
        assert getattr(dc, name).__doc__
    assert inspect.isfunction(dc.train), "a module hides the function"


OPTIONS = {
    "enhance": "--axes --channel --device --dtype --ensemble --equalise-depth --fidelity-map --gain --iterations "
    "--json --mask --memory --model --offset --out --overwrite --plan --quiet --recipe --resume --scheduler --seed "
    "--set --surface --voxel-size --workers",
    "train": "--axes --channel --device --ensemble --gain --input --json --offset --out --overwrite --psf --quiet "
    "--register --resume --seed --set --surface --target --voxel-size --workers",
    "predict": "--axes --channel --device --dtype --iterations --json --memory --movie --norm --out --overwrite --plan "
    "--quiet --resume --scheduler --uncertainty --voxel-size --workers",
    "evaluate": "--json --labels --mask --out --overwrite --quiet --raw --truth",
    "compare": "--axes --budget --channel --device --gain --index --json --labels --mask --methods --model --na "
    "--offset --out --overwrite --quiet --recipe --save-images --seed --set --surface --truth --voxel-size "
    "--wavelength",
    "simulate": "--json --light --out --overwrite --quiet --seed --shape --undersampling",
    "degrade": "--axes --channel --gain --json --offset --out --overwrite --quiet --recipe --seed --set --surface "
    "--voxel-size",
    "pairs": "--axes --channel --count --json --only --out --overwrite --quiet --recipe --seed --set --voxel-size",
    "psf": "--bead --depth --excitation --index --json --kind --na --out --overwrite --pinhole --quiet --sample-index "
    "--shape --sheet --voxel-size --wavelength --zernike",
    "convert": "--json --out --overwrite --quiet",
    "report": "--json --out --overwrite --quiet",
    "info": "--json",
    "demo": "--json --out --quiet --seeds --set",
    "experiment": "--device --input --json --only --out --overwrite --quiet --recipe --resume --seeds --set --target "
    "--try",
}


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    found = sorted(set(re.findall(r"^\s+(--[a-z-]+)", text, re.MULTILINE)) - {"--help"})
    assert found == OPTIONS[verb].split()
    assert (ROOT / "docs" / f"{verb}.md").exists()


def test_there_are_no_other_verbs() -> None:
    group: Any = typer.main.get_command(app)
    assert tuple(group.commands) == VERBS


@pytest.mark.parametrize("recipe", ["contrast", "contrast-paper"])
def test_recipes_are_complete_and_say_what_to_expect(recipe: str) -> None:
    config = load_recipe(recipe)
    text = (ROOT / "src" / "deepcontrast" / "recipes" / f"{recipe}.toml").read_text()
    assert "What to expect" in text
    assert "Time:" in text
    if recipe == "contrast-paper":
        train, net, task = config.train, config.net, config.task
        assert (net.depth, net.features, net.bias, train.loss) == (5, 32, False, "mae")
        assert (train.steps, train.batch, train.patch, train.learning_rate) == (450 * 200, 16, 128, 4e-4)
        assert (task["sigma"], task["alpha_surface"], task["alpha_deep"]) == (20.0, 0.5, 0.3)
        assert (task["widths"], task["thin"], net.context) == ((1.0,), 0.0, 0)


@pytest.mark.parametrize(
    "folder", ["baselines", "degrade", "experiments", "metrics", "nets", "projections", "synth", "upsamplers"]
)
def test_every_registered_function_is_documented_and_keyword_only(folder: str) -> None:
    for name in registry.names(folder):
        function = registry.load(folder, name)
        assert "Args:" in inspect.getdoc(function), name
        parameters = list(inspect.signature(function).parameters.values())
        positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert len(positional) <= 2, name
        assert all(p.default is p.empty for p in positional), name


def test_the_readme_runs(tiny_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    write_stack(tmp_path / "liver.tif", tiny_stack)
    monkeypatch.chdir(tmp_path)
    settings = dict(setting.split("=") for setting in TINY)
    original = dc.enhance
    monkeypatch.setattr(dc, "enhance", lambda stack: original(stack, settings=settings), raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["again"].shape == tiny_stack.shape
    assert names["result"].stack.dtype == np.float32
    assert (tmp_path / "liver_python" / "enhanced.tif").exists()
    [command] = re.findall(r"^deepcontrast (enhance .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    arguments = [*command.split(), *(part for setting in TINY for part in ("--set", setting)), "--overwrite"]
    assert run([*arguments, "--quiet"]) == 0


def test_a_result_saved_from_python_says_how_to_do_it_again(tiny_stack: Stack, tmp_path: Path) -> None:
    settings = dict(setting.split("=") for setting in TINY)
    stacks = [replace(tiny_stack, source=source) for source in ("a/x.tif", "b/x.tif", "array", "c/x.ome.tif")]
    result = dc.enhance(stacks[:2], settings=settings, iterations=1, device="cpu")
    result.save(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model.safetensors", "run.json", "x", "x_2"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["version"], record["state"]) == (dc.__version__, "complete")
    assert record["sources"] == ["a/x.tif", "b/x.tif"]
    assert list(record["input"]) == ["x.tif", "x_2.tif"]
    assert len(set(record["input"].values())) == 1
    assert (record["hardware"]["device"], result.device) == ("cpu", "cpu")
    assert _names(stacks) == ("x.tif", "x_2.tif", "stack_2.tif", "x_3.ome.tif")
    for wrong, message in (
        ({"settings": {"net.depth.x": 1}}, "unknown setting 'net.depth.x'"),
        ({"iterations": 1, "mask": tiny_stack.volume() > 0}, "give one of them"),
        ({"restorer": result.restorer, "settings": {"train.steps": 5}}, "train.steps has no effect"),
    ):
        with pytest.raises(dc.DeepContrastError, match=message):
            dc.enhance(tiny_stack, **wrong)


def test_every_document_that_is_linked_exists() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

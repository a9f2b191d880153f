"""Imports point down: import-linter holds the layers that pyproject.toml lists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
CONTRACTS = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
LAYERS = [re.findall(r"deepcontrast\.(\w+)", layer) for layer in CONTRACTS[0]["layers"]]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package that ``folder/src`` holds, with this repository's contracts."""
    code = "import sys; from importlinter.cli import lint_imports\n"
    code += "sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True, no_logo=True))"
    command = [sys.executable, "-c", code, str(PYPROJECT)]
    return subprocess.run(command, cwd=folder / "src", capture_output=True, text=True)


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """A package of empty modules, one for each that the contracts name."""
    package = tmp_path / "src" / "deepcontrast"
    package.mkdir(parents=True)
    for name in ("__init__", *(name for layer in LAYERS for name in layer)):
        (package / f"{name}.py").touch()
    return tmp_path


def test_package_keeps_the_layers() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_empty_package_keeps_the_layers(skeleton: Path) -> None:
    done = lint(skeleton)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (LAYERS[-1][0], f"from deepcontrast import {LAYERS[0][0]}"),
        ("prediction", "from deepcontrast import training"),
        ("stack", "import torch"),
    ],
)
def test_import_that_points_up_or_to_torch_is_found(skeleton: Path, module: str, line: str) -> None:
    (skeleton / "src" / "deepcontrast" / f"{module}.py").write_text(line + "\n")
    done = lint(skeleton)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def test_every_module_has_its_layer() -> None:
    package = ROOT / "src" / "deepcontrast"
    modules = {file.stem for file in package.glob("*.py")} | {file.parent.name for file in package.glob("*/*.py")}
    placed = {name for layer in LAYERS for name in layer}
    assert {name for name in modules if not name.startswith("_")} <= placed

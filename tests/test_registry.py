"""The folders are the registry: listed without importing, loaded on first use, a wrong name answered."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deepcontrast import registry
from deepcontrast.errors import InputError

PACKAGE = Path(registry.__file__).parent
ITEMS = [(folder, name) for folder in registry.FOLDERS for name in registry.names(folder)]


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after running the code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_names_are_listed_without_importing() -> None:
    code = "from deepcontrast import registry\nassert [registry.names(f) for f in registry.FOLDERS]"
    modules = modules_after(code)
    assert modules.isdisjoint(f"deepcontrast.{folder}.{name}" for folder, name in ITEMS)
    assert modules.isdisjoint({"torch", "scipy", "skimage", "numpy"})


def test_importing_the_package_loads_no_torch() -> None:
    modules = modules_after("import deepcontrast")
    assert "deepcontrast" in modules
    assert modules.isdisjoint({"torch", "scipy", "skimage", "matplotlib"})


@pytest.mark.parametrize("folder", registry.FOLDERS)
def test_names_are_the_files_of_the_folder(folder: str) -> None:
    files = {file.stem for file in (PACKAGE / folder).glob("*.py") if not file.stem.startswith("_")}
    assert set(registry.names(folder)) == files
    assert list(registry.names(folder)) == sorted(files)


@pytest.mark.parametrize(("folder", "name"), [item for item in ITEMS if item[0] != "tasks"])
def test_file_holds_the_function_it_is_named_for(folder: str, name: str) -> None:
    tree = ast.parse((PACKAGE / folder / f"{name}.py").read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_load_imports_the_named_function() -> None:
    wci = registry.load("metrics", "wci")
    assert callable(wci)
    assert wci is sys.modules["deepcontrast.metrics.wci"].wci


def test_load_returns_a_task_as_its_module() -> None:
    assert isinstance(registry.load("tasks", "contrast"), ModuleType)


@pytest.mark.parametrize(("folder", "name"), ITEMS)
def test_misspelt_name_is_answered_with_the_nearest(folder: str, name: str) -> None:
    with pytest.raises(InputError) as error:
        registry.load(folder, name + "x")
    message = str(error.value)
    assert message.startswith(f"no '{name}x' in {folder}; accepted: {', '.join(registry.names(folder))}")
    assert message.endswith(f"; did you mean '{name}'?")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["__init__", "", "../config", "qqqqqqqq"])
def test_name_that_is_no_item_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^no '.*' in metrics; accepted: [^;]*$"):
        registry.load("metrics", name)

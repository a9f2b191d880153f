"""The benchmarks' scripts: they parse, and what they compute from measurements is right."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.rglob("*.py"))
MODULES = [script.stem for script in (BENCHMARKS / "speed").glob("*.py")]


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the speed benchmarks, importable as their scripts import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "speed"))
    yield BENCHMARKS / "speed"
    for name in MODULES:
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_parses_and_says_what_it_is(script: Path) -> None:
    assert ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))


def test_ratio_is_of_medians_and_above_one_for_the_faster(speed: Path) -> None:
    tables, sides = module("tables"), module("sides")

    def measured(side: str, *seconds: float):
        return sides.Measured("training", "2D", side, 10, "", seconds, 10**9)

    table = tables.compared([measured("csbdeep", 4.0, 2.0, 9.0), measured("ours", 1.0, 2.0, 100.0)])
    rows = {line.split(" | ")[1]: line.split(" | ") for line in table.splitlines()[2:]}
    assert rows["csbdeep"][3:6] == ["4.00", "2.00 to 9.00", "1.00"]
    assert rows["ours"][3:6] == ["2.00", "1.00 to 100.00", "2.00"]


def test_tables_replace_what_stood_between_their_markers_and_nothing_else(speed: Path) -> None:
    put = module("tables").put
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n<!-- y -->\nkept\n<!-- end of y -->\n"
    new = put(page, "x", "\\1 new\n")
    assert new == page.replace("old", "\\1 new")
    assert put(new, "x", "\\1 new\n") == new
    with pytest.raises(ValueError, match="<!-- z -->"):
        put(page, "z", "")


def test_documentation_has_a_place_for_every_section(speed: Path) -> None:
    put, sections = module("tables").put, module("run").SECTIONS
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for section in sections:
        assert "new" in put(page, section, "new\n")


def test_floor_is_that_of_the_slower_resource_of_every_operation(speed: Path) -> None:
    floor = module("floor")
    computing, moving = floor.Work(flops=100, bytes=1), floor.Work(flops=1, bytes=60)
    assert floor.floor_seconds([computing, moving], flops=50.0, bytes=20.0) == pytest.approx(2 + 3)


def test_counted_products_are_those_of_the_layers(speed: Path) -> None:
    floor, networks = module("floor"), module("networks")
    case = networks.Case(2, 1, (3, 8, 8), (2, 8, 8))
    f, pixels = networks.FEATURES, 64
    # Two convolutions above, two below on a quarter of the pixels, two on the joined maps, one of a single tap.
    taps = 9 * f + 9 * f * f + (9 * f * 2 * f + 9 * 2 * f * f) / 4 + 9 * 2 * f * f + 9 * f * f + f
    prediction = floor.work_of(case, "prediction", "float32")
    assert sum(part.flops for part in prediction) == pytest.approx(2 * 2 * pixels * taps)
    # Backwards each convolution is computed once for its weights and, but for the first, once for its input.
    training = floor.work_of(case, "training", "float32")
    assert sum(part.flops for part in training) == pytest.approx(2 * 3 * pixels * (3 * taps - 9 * f))
    halved = floor.work_of(case, "prediction", "bfloat16")
    assert 2 * sum(part.bytes for part in halved) == sum(part.bytes for part in prediction)
    # On large maps, upsampling is part of the convolution.
    large = floor.work_of(networks.Case(2, 1, (3, 8, 8), (2, 1024, 1024)), "prediction", "float32")
    assert sum(part.flops for part in large) == pytest.approx(2 * 2 * 2**20 * (taps - 9 * f * f + 16 * f * f / 4))


@pytest.mark.parametrize("mib", [32, 64, 512, 8192])
def test_stacks_have_the_size_that_is_asked_for_in_whole_shards(speed: Path, mib: int) -> None:
    shape_of, shard = module("size").shape_of, module("size").SHARD
    shape = shape_of(mib * 2**20)
    assert 2 * torch.Size(shape).numel() == mib * 2**20
    assert all(n % s == 0 for n, s in zip(shape, shard, strict=True))
    with pytest.raises(ValueError, match="power of 2"):
        shape_of(mib * 2**20 * 3)


def test_cost_per_voxel_is_without_the_start(speed: Path) -> None:
    cost = module("size").SizeCost(bytes=2 * 10**6, cpu_seconds=5.0, start=3.0, peak=0)
    assert cost.per_voxel() == pytest.approx(2e-6)


def test_our_side_measures_and_has_the_network_of_csbdeep(speed: Path) -> None:
    """CSBDeep's own count of the weights of its ``resunet2_2_3_32_1out``, layer by layer."""
    ours, networks = module("ours"), module("networks")
    pairs = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 64), (128, 64), (64, 32), (64, 32), (32, 32)]
    weights = sum(9 * a * b + b for a, b in pairs) + 33
    assert ours.count(ours.network(networks.CASES["2D depth 2"])) == weights

"""Stacks larger than the memory: an excerpt is looked at, the whole is made shard by shard."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcontrast import enhancing
from deepcontrast import excerpt as excerpts
from deepcontrast.depth import bins, planes_of
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.excerpt import BYTES, RUN, RUNS, excerpt
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.enhance import enhance_images
from deepcontrast.jobs.images import Reading
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.scale import shard_sizes
from deepcontrast.scale.resources import Resources
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from tests.conftest import TINY


class Little(Resources):
    """Memory for looking at half of the tiny stack."""

    def looks_at(self) -> int:
        return 10 * 40 * 40 * BYTES


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are drawn in other tests, and take longer than all that is looked at here."""
    monkeypatch.setattr("deepcontrast.jobs.results.write_report", lambda path, data: None)


def enhance(
    file: Path, out: Path, resources: Resources | None = None, settings: Sequence[str] = (), **options: Any
) -> list[str]:
    said: list[str] = []
    config = load_recipe("contrast", (*TINY, *settings))
    enhance_images([file], out, config, reading=Reading(), resources=resources, say=said.append, **options)
    return said


@pytest.fixture
def zarr_file(tiny_stack: Stack, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.ome.zarr"
    write_stack(path, tiny_stack)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("net", [(), ("net.context=2", "net.dims=3", "train.batch=2")])
def test_what_is_made_in_shards_is_what_is_made_in_memory(
    net: tuple[str, ...], zarr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enhance(zarr_file, tmp_path / "whole", settings=net)
    monkeypatch.setattr(shard_sizes, "SHARD", 2**13)
    monkeypatch.setattr(shard_sizes, "FINEST", (4, 16, 16))
    # An excerpt that is all of the stack tells what the stack tells.
    monkeypatch.setattr("deepcontrast.enhancing.whole_fits", lambda stack, memory: False)
    said = enhance(zarr_file, tmp_path / "shards", settings=net)
    assert any("plan: shards of" in line for line in said)
    one, other = (open_stack(tmp_path / name / "enhanced.ome.zarr") for name in ("whole", "shards"))
    assert (one.axes, one.dtype, one.optics.voxel_size) == (other.axes, other.dtype, other.optics.voxel_size)
    # Tiles differ, so float32 does in its last digits, and a rounding may tip.
    difference = np.abs(one.volume().astype(int) - other.volume())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "shards")]
    assert metrics[0]["chosen_iterations"] == metrics[1]["chosen_iterations"]


def test_a_large_stack_that_was_stopped_ends_in_the_same_bytes(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_sizes, "SHARD", 2**13)
    monkeypatch.setattr(shard_sizes, "FINEST", (4, 16, 16))
    # So little haze may be left that two passes are made.
    haze = ("task.haze=0.01",)
    said = enhance(tiny_file, tmp_path / "at_once", Little(), haze)
    assert any("k was chosen, and all figures and the fidelity map are, from 10 of 10 planes" in line for line in said)

    def stop(stages: Iterator[str]) -> Any:
        wanted = next(stages)

        def listen(event: Event) -> None:
            if event.stage == wanted and event.done >= 30:
                raise Cancelled

        return listen

    stages = iter(["predict 1/2", "write"])
    for _ in range(2):
        with pytest.raises(Cancelled):
            enhance(tiny_file, tmp_path / "out", Little(), haze, resume=True, progress=stop(stages))
        assert not (tmp_path / "out").exists()
    enhance(tiny_file, tmp_path / "out", Little(), haze, resume=True)
    one, other = (tree(tmp_path / name) for name in ("at_once", "out"))
    same = [name for name in one if name not in ("run.json",)]
    assert sorted(one) == sorted(other)
    assert [name for name in same if one[name] != other[name]] == []


def test_planes_of_metrics_are_those_of_the_stack(tmp_path: Path, rng: np.random.Generator) -> None:
    planes = rng.poisson(20, (200, 48, 64)).astype(np.uint16)
    stack = Stack(planes, "ZYX", Optics(voxel_size=(2.0, 1.0, 1.0), surface="first"))
    part = excerpt(stack, [(8, 16)], 16, RUNS * RUN * 20 * 20 * BYTES)
    assert part.stack.shape == (RUNS * RUN, 20, 20)
    np.testing.assert_array_equal(part.stack.array, planes[part.planes, part.y, part.x])
    np.testing.assert_array_equal(part.depth, 2.0 * part.planes)
    assert part.y.start <= 8
    assert part.y.stop >= 24
    assert [run.stop - run.start for run in part.runs] == [RUN] * RUNS
    for run in part.runs:
        assert (np.diff(part.planes[run]) == 1).all()
    whole = excerpt(stack, [(8, 16)], 16, 200 * 48 * 64 * BYTES)
    assert whole.runs == [slice(0, 200)]
    # The planes that the rule looks at have their own neighbours, in every depth bin.
    for chosen in planes_of(part.depth, bins([part.depth]), None):
        assert chosen
        for z in chosen:
            assert part.planes[z + 1] - part.planes[z] == part.planes[z] - part.planes[z - 1] == 1


@pytest.mark.parametrize("net", [("net.context=2",), ("net.context=2", "net.dims=3")])
def test_the_runs_of_an_excerpt_are_restored_without_each_other(
    net: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpts, "RUNS", 2)
    monkeypatch.setattr(excerpts, "RUN", 6)
    raw = tissue(shape=(30, 48, 64), seed=5).raw
    config = load_recipe("contrast", (*TINY, *net, "predict.iterations=1", "task.remove_pattern=false"))
    other = raw.copy()
    # Planes of the second run, which begins where the first one ends in the excerpt.
    other[24:] = other[24:] // 2
    found = []
    for n, volume in enumerate((raw, other)):
        stack = Stack(volume, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first"))
        if n == 0:
            first = enhancing.enhance([stack], config, folder=tmp_path / "0", memory=12 * 40 * 40 * BYTES)
        model = first.model
        found.append(
            enhancing.enhance([stack], config, folder=tmp_path / f"a{n}", model=model, memory=12 * 40 * 40 * BYTES)
        )
    assert [len(one.restored[0][0][0].source.depth) for one in found] == [12, 12]
    a, b = (one.restored[0][0][0].passes[1] for one in found)
    np.testing.assert_array_equal(a[:6], b[:6])
    assert not np.array_equal(a[6:], b[6:])


def test_an_excerpt_takes_the_square_with_most_structure(rng: np.random.Generator) -> None:
    planes = rng.normal(0, 1, (8, 64, 64))
    planes[:, 40:56, 8:24] *= 5
    part = excerpt(Stack(planes, "ZYX"), [(0, 0), (40, 8)], 16, 8 * 24 * 24 * BYTES)
    assert (part.y, part.x) == (slice(36, 60), slice(4, 28))


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    stack = Stack(np.zeros((8, 64, 64)), "ZYX")
    with pytest.raises(InputError, match=r"needs 123 kB .*--memory"):
        excerpt(stack, [(0, 0)], 16, 8 * 15 * 15 * BYTES)
    assert excerpts.fits(stack, stack.array.size * BYTES)
    assert not excerpts.fits(stack, stack.array.size * BYTES - 1)


def test_too_little_memory_is_refused_before_anything_is_trained(tiny_file: Path, tmp_path: Path) -> None:
    for plan_only in (True, False):
        with pytest.raises(InputError, match=r"takes 346 kB, 0 B are left; the least that works is --memory \d+MB"):
            enhance(tiny_file, tmp_path / "out", Resources(memory=10**6), plan_only=plan_only)
    assert not list(tmp_path.glob("out*"))


def test_a_run_goes_on_with_another_memory(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepcontrast.jobs.enhance.BANK", 1e-4)
    enhance(tiny_file, tmp_path / "at_once", Little(memory=10**10))

    def stop(event: Event) -> None:
        if event.stage == "predict 1/2" and event.done:
            raise Cancelled

    with pytest.raises(Cancelled):
        enhance(tiny_file, tmp_path / "out", Little(memory=10**10), progress=stop)
    enhance(tiny_file, tmp_path / "out", Resources(memory=10**11), resume=True)
    for name in ("enhanced.tif", "model.safetensors", "metrics.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "at_once" / name).read_bytes()


def test_the_fidelity_map_is_of_the_excerpt_and_the_report_says_so(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Any] = []
    monkeypatch.setattr("deepcontrast.jobs.results.write_report", lambda path, data: pages.append(data))
    enhance(tiny_file, tmp_path / "out", Little(), fidelity_map=True)
    assert open_stack(tmp_path / "out" / "fidelity_map.tif").shape == (10, 40, 40)
    assert dict(pages[0].facts)["Looked at"].startswith("k was chosen")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("shape", "memory"), [((24, 384, 384), 900), ((48, 512, 512), 900), ((96, 768, 768), 1200)])
def test_enhance_takes_no_more_memory_than_it_was_given(
    shape: tuple[int, int, int], memory: int, tmp_path: Path
) -> None:
    planes, *field = shape
    raw = tissue(shape=(24, 128, 128), seed=0).raw
    cells = -(-planes // 24), *(-(-side // 128) for side in field)
    volume = np.tile(raw, cells)[:planes, : field[0], : field[1]]
    write_stack(tmp_path / "raw.ome.zarr", Stack(volume, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first")))
    settings = [word for setting in TINY for word in ("--set", setting)]
    command = [sys.executable, "-m", "deepcontrast", "enhance", str(tmp_path / "raw.ome.zarr"), "--quiet"]
    command += ["--out", str(tmp_path / "out"), "--memory", f"{memory}MB", *settings]
    with subprocess.Popen(command) as process:
        peak = 0
        while process.poll() is None:
            with suppress(OSError, IndexError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
            time.sleep(0.02)
    assert process.returncode == 0
    assert 100 < 1.024e-3 * peak < memory

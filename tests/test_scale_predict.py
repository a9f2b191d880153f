"""Restoring shard by shard gives what restoring at once gives, whoever works, however often it is stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepcontrast import registry
from deepcontrast.cli import run
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.io import open_stack, read_attributes, write_stack
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.predict import predict_images
from deepcontrast.jobs.predict_in_memory import predict_stack
from deepcontrast.jobs.shards import plan_shards
from deepcontrast.model import Channel, Model, load_model, save_model
from deepcontrast.progress import Event
from deepcontrast.recipe import load_recipe
from deepcontrast.scale import predict_shards, shard_sizes
from deepcontrast.scale.resources import Resources
from deepcontrast.scale.shard_sizes import FINEST, Load, shard_lengths
from deepcontrast.stack import Stack
from deepcontrast.task import Source
from deepcontrast.training import initialise

from .conftest import TINY
from .test_scale_runners import cluster  # noqa: F401

SHAPE = (3, 2, 12, 24, 32)


@pytest.fixture(scope="module")
def folder(tiny_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, and a movie of two channels (TCZYX) in which every frame is a shard or two."""
    where = tmp_path_factory.mktemp("scale")
    config = load_recipe("contrast", TINY)
    task: Any = registry.load("tasks", "contrast")
    fit = task.fit([Source(tiny_stack, 0, 0, np.arange(10.0))], config)
    table, arrays = fit.encode()
    channels = []
    for seed in range(2):
        net = task.build(fit, config)
        initialise(net, torch.Generator().manual_seed(seed))
        channels.append(Channel(str(seed), table, arrays, (net.state_dict(),)))
    save_model(where / "m.safetensors", Model("contrast", config, tuple(channels), {}))
    rng = np.random.default_rng(0)
    movie = rng.poisson(rng.uniform(100, 300, SHAPE)).astype(np.uint16)
    movie[1, 0, :, :, :9] = 0
    write_stack(where / "movie.ome.zarr", Stack(movie, "TCZYX", channels=("a", "b")))
    return where


def predict(folder: Path, out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    arguments = {"iterations": 2, "reading": Reading(), "device": "cpu", "say": said.append, **options}
    predict_images([folder / "m.safetensors"], [folder / "movie.ome.zarr"], out, **arguments)
    return said


def tree(path: Path) -> dict[str, str]:
    """Return a hash of every file of a result."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    out = folder / "whole.ome.zarr"
    predict(folder, out)
    return out


def test_shards_equal_the_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    volume = rng.poisson(rng.uniform(100, 300, (18, 140, 132))).astype(np.uint16)
    volume[:, :, :9] = 0
    write_stack(tmp_path / "large.tif", Stack(volume, "ZYX"))
    model = load_model(folder / "m.safetensors")
    model = replace(model, channels=model.channels[:1])
    save_model(tmp_path / "m.safetensors", model)
    monkeypatch.setattr(shard_sizes, "SHARD", np.prod(FINEST))
    said: list[str] = []
    predict_images(
        [tmp_path / "m.safetensors"], [tmp_path / "large.tif"], tmp_path / "out.tif",
        iterations=2, reading=Reading(), dtype="float32", device="cpu", say=said.append,
    )  # fmt: skip
    assert "plan: shards of 16 x 128 x 128 voxels" in said
    result, expected = (
        open_stack(tmp_path / "out.tif").volume(),
        predict_stack([model], Stack(volume, "ZYX"), iterations=2),
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected.volume(), rtol=0, atol=1e-5 * np.ptp(volume))
    np.testing.assert_array_equal(result[:, :, :9], 0)


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(name: str, folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    predict(folder, tmp_path / name, progress=events.append)
    out = tmp_path / "stopped" / name
    seen: list[Event] = []

    def stop(event: Event) -> None:
        assert not out.exists()
        seen.append(event)
        if len(seen) == len(events) // 3:
            raise Cancelled

    for _ in range(2):
        seen.clear()
        with pytest.raises(Cancelled):
            predict(folder, out, resume=True, progress=stop)
    seen.clear()
    predict(folder, out, resume=True, progress=seen.append)
    assert tree(out) == tree(tmp_path / name)
    assert [p.name for p in out.parent.iterdir()] == [name]
    assert next(event.done for event in seen if event.stage == "predict 1/2") == 100


def test_a_cluster_gives_the_same_bytes(
    folder: Path,
    whole: Path,
    tmp_path: Path,
    cluster: str,  # noqa: F811
) -> None:
    predict(folder, tmp_path / "dask.ome.zarr", resources=Resources(scheduler=cluster))
    assert tree(tmp_path / "dask.ome.zarr") == tree(whole)


@pytest.mark.slow
def test_workers_of_which_one_is_killed_give_the_same_bytes(folder: Path, whole: Path, tmp_path: Path) -> None:
    killed = []

    def kill(event: Event) -> None:
        if not killed and event.stage == "write" and 0 < event.done < 100:
            killed.append(active_children()[0])
            killed[0].kill()

    for workers in (2, 3):
        killed.clear()
        out = tmp_path / f"{workers}.ome.zarr"
        predict(folder, out, resources=Resources(workers=workers), progress=kill)
        assert killed
        assert tree(out) == tree(whole)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "predict", str(folder / "m.safetensors"), str(folder / "movie.ome.zarr"),
        "--out", str(out), "--iterations", "2", *more,
    ]  # fmt: skip


def start(folder: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deepcontrast", *command(folder, out, "--resume", "--json", *more)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child that shares what was imported")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_process_is_resumed_to_the_same_bytes(folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    journal = tmp_path / "out.ome.zarr.partial" / "journal"
    for shards in (2, 7, 14):
        child = os.fork()
        if not child:
            os._exit(run(command(folder, out, "--resume", "--quiet")))
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= shards):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert not out.exists()
    assert run(command(folder, out, "--resume", "--quiet")) == 0
    assert tree(out) == tree(whole)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "3"])
def test_twenty_kills_at_random_moments(workers: str, folder: Path, whole: Path, tmp_path: Path) -> None:
    out, moments = tmp_path / "out.ome.zarr", random.Random(int(workers))
    journal = tmp_path / "out.ome.zarr.partial" / "journal"
    for _ in range(20):
        process = start(folder, out, "--workers", workers)
        # By what is done, not by the clock: a busy machine would be killed while it starts.
        done = moments.randint(0, 18)
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= done):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL)
        if out.exists():
            assert tree(out) == tree(whole)
            # Begin again: kills are to find all stages. What a kill after the last one left is tidied first.
            assert run(command(folder, out, "--resume", "--quiet")) == 0
            assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == [out.name]
            shutil.rmtree(out)
    assert run(command(folder, out, "--resume", "--quiet")) == 0
    assert tree(out) == tree(whole)


def test_the_plan_is_said_and_nothing_is_done(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(folder, tmp_path / "a" / "out.ome.zarr", "--plan")) == 0
    said = capsys.readouterr().out
    assert "plan: shards of" in said
    assert re.search(r"^plan: .*tiles of", said, re.MULTILINE)
    assert run(command(folder, tmp_path / "a" / "out.ome.zarr", "--memory", "1MB")) == 2
    assert capsys.readouterr().err.startswith("deepcontrast: memory: ")
    for wrong, line in (
        (["--memory", "much"], "memory 'much' is not understood"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "give one of them"),
    ):
        assert run(command(folder, tmp_path / "a" / "out.ome.zarr", *wrong)) == 2
        [err] = capsys.readouterr().err.splitlines()
        assert line in err
    assert not list(tmp_path.iterdir())


def test_shards_become_smaller_where_no_tile_fits_beside_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Allowed(Resources):
        def memory_of_one(self, device: str) -> int:
            return self.memory or 0

    def shard(memory: int) -> int:
        return int(np.prod(plan_shards(models, stack, "cpu", Allowed(memory))["shard"]))

    models = [load_model(folder / "m.safetensors")]
    movie = np.broadcast_to(np.zeros((), np.uint16), (2, 64, 512, 512))
    stack = Stack(movie, "CZYX")
    monkeypatch.setattr("deepcontrast.prediction.plan.resident", lambda: 0)
    with pytest.raises(InputError, match=r"the least that works is --memory \d+MB") as caught:
        shard(10**8)
    least = int(str(caught.value).split("--memory ")[1].split("MB")[0]) * 10**6
    assert shard(least) < shard(2 * least)
    assert shard(2 * least) < shard(4 * least)
    with pytest.raises(InputError, match="memory"):
        shard(least - 2 * 10**7)


def test_a_result_knows_what_it_is_the_result_of(
    folder: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = json.loads(str(read_attributes(whole)["prediction"]))
    assert made["options"]["iterations"] == 2
    assert set(made) == {"version", "verb", "models", "input", "options", "plan"}
    before = tree(whole)
    assert run(command(folder, whole, "--resume")) == 0
    assert "is complete already" in capsys.readouterr().out
    assert run([*command(folder, whole, "--resume"), "--iterations", "3"]) == 2
    assert "options.iterations: then 2, now 3" in capsys.readouterr().err
    assert run(command(folder, whole)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert tree(whole) == before
    write_stack(tmp_path / "other.tif", Stack(np.zeros((2, 8, 8), np.uint8), "ZYX"))
    assert run(command(folder, tmp_path / "other.tif", "--resume")) == 2
    assert "does not say what it is the result of" in capsys.readouterr().err


def test_a_resumed_run_obeys_the_first_ones_plan(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"

    def stop(event: Event) -> None:
        if event.values.get("shards") == "2/6":
            raise Cancelled

    with pytest.raises(Cancelled):
        predict(folder, out, progress=stop)
    job = tmp_path / "out.ome.zarr.partial" / "job.json"
    begun = json.loads(job.read_text())
    [tile] = begun["machine"]["plan"]["tiles"]
    tile["core"] = [6, 24, 32]
    job.write_text(json.dumps(begun))
    predict(folder, out, resume=True)
    [used] = json.loads(str(read_attributes(out)["prediction"]))["plan"]["tiles"]
    assert used["core"] == [6, 24, 32]


def test_what_a_sample_does_not_show_is_clipped_and_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    movie = open_stack(folder / "movie.ome.zarr").array[...] // 10
    movie[0] *= 100
    write_stack(tmp_path / "movie.ome.zarr", Stack(movie, "TCZYX"))
    full = predict_stack([load_model(folder / "m.safetensors")], Stack(movie, "TCZYX")).array
    monkeypatch.setattr(predict_shards, "SAMPLE", 1)
    said: list[str] = []
    predict_images(
        [folder / "m.safetensors"], [tmp_path / "movie.ome.zarr"], tmp_path / "out.ome.zarr",
        reading=Reading(), dtype="uint8", device="cpu", say=said.append,
    )  # fmt: skip
    [note] = [line for line in said if "judged by 1 of 6 shards" in line]
    kept, written = read_attributes(tmp_path / "out.ome.zarr"), open_stack(tmp_path / "out.ome.zarr")
    offset, scale = float(kept.get("intensity_offset", 0)), float(kept.get("intensity_scale", 1))
    values = (full - offset) / scale
    outside = (values < -0.5) | (values > np.iinfo(written.dtype).max + 0.5)
    assert outside.any()
    assert f"{outside.mean():.2%} of all voxels were clipped" in note
    np.testing.assert_allclose(written.array[...][~outside], values[~outside], atol=0.51)


def test_a_movie_is_refused_with_the_models_of_other_channels(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model has 2 channels, the image has 1"):
        predict(folder, tmp_path / "out.tif", reading=Reading(channel="a"))
    assert not list(tmp_path.iterdir())


@given(
    shape=st.tuples(*[st.integers(1, 5000)] * 3),
    flat=st.booleans(),
    memory=st.integers(0, 2**34),
)
def test_a_shard_is_of_powers_of_two_and_fits_its_memory(shape: tuple[int, int, int], flat: bool, memory: int) -> None:
    stack = Stack(np.broadcast_to(np.uint8(0), shape), "ZYX")
    lengths = shard_lengths(stack, (0 if flat else 20, 20, 20), Load(), memory)
    assert all(n & (n - 1) == 0 and n >= least for n, least in zip(lengths, FINEST, strict=True))
    assert np.prod(lengths) <= max(np.prod(FINEST), memory / shard_sizes.HELD)
    if flat and lengths[1:] < (1 << (shape[1] - 1).bit_length(), 1 << (shape[2] - 1).bit_length()):
        assert lengths[0] == FINEST[0] or min(lengths[1:]) == FINEST[1]

"""A training that is killed goes on to the bytes of one that was left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from deepcontrast.cli import run

from .conftest import TINY

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child that shares what was imported")


def train(file: Path, out: Path) -> int:
    settings = [word for setting in TINY for word in ("--set", setting)]
    return run(["train", "contrast", "--input", str(file), "--out", str(out), *settings, "--resume", "--quiet"])


@forking
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_training_is_resumed_to_the_same_bytes(tiny_file: Path, tmp_path: Path) -> None:
    alone, killed = (tmp_path / folder / "m.safetensors" for folder in ("alone", "killed"))
    assert train(tiny_file, alone) == 0
    folder = killed.parent
    checkpoint = folder / "m.safetensors.partial" / "checkpoint_channel0_member0.safetensors"
    before = 0
    for _ in range(2):
        child = os.fork()
        if not child:
            os._exit(train(tiny_file, killed))
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        before = checkpoint.stat().st_mtime_ns
        assert [path.name for path in folder.iterdir()] == ["m.safetensors.partial"]
    assert train(tiny_file, killed) == 0
    assert killed.read_bytes() == alone.read_bytes()
    assert [path.name for path in folder.iterdir()] == ["m.safetensors"]


@forking
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_model_that_is_half_written_lies_nowhere_but_in_the_partial_folder(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "m.safetensors"

    def half(path: Path, _: object) -> None:
        path.with_name(f".{path.name}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        monkeypatch.setattr("deepcontrast.jobs.train.save_model", half)
        os._exit(train(tiny_file, out))
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [path.name for path in out.parent.iterdir()] == ["m.safetensors.partial"]
    assert train(tiny_file, out) == 0
    assert [path.name for path in out.parent.iterdir()] == ["m.safetensors"]

"""A training that is killed goes on to the bytes of one that was left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from deepcontrast.cli import run

from .conftest import TINY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child that shares what was imported")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_training_is_resumed_to_the_same_bytes(tiny_file: Path, tmp_path: Path) -> None:
    settings = [word for setting in TINY for word in ("--set", setting)]

    def train(folder: str) -> int:
        out = tmp_path / folder / "m.safetensors"
        return run(
            ["train", "contrast", "--input", str(tiny_file), "--out", str(out), *settings, "--resume", "--quiet"]
        )

    assert train("alone") == 0
    folder = tmp_path / "killed"
    checkpoint = folder / "m.safetensors.partial" / "checkpoint_channel0_member0.safetensors"
    before = 0
    for _ in range(2):
        child = os.fork()
        if not child:
            os._exit(train("killed"))
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        before = checkpoint.stat().st_mtime_ns
        assert [path.name for path in folder.iterdir()] == ["m.safetensors.partial"]
    assert train("killed") == 0
    assert (folder / "m.safetensors").read_bytes() == (tmp_path / "alone" / "m.safetensors").read_bytes()
    assert [path.name for path in folder.iterdir()] == ["m.safetensors"]

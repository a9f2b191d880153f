"""How long it takes until a package is imported, or says how it is used. Needs nothing but Python."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Start:
    """What one command took, in every repeat: time on the clock, and CPU seconds."""

    command: str
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


def commands(ours: Path, csbdeep: Path, careamics: Path) -> dict[str, Sequence[str | Path]]:
    """Return the commands that are compared, by their names; the interpreter alone first."""

    def imports(python: Path, modules: str) -> Sequence[str | Path]:
        return (python, "-c", f"import {modules}")

    return {
        "python alone": (ours, "-c", "pass"),
        "import deepcontrast": imports(ours, "deepcontrast"),
        "deepcontrast --help": (ours.with_name("deepcontrast"), "--help"),
        "import csbdeep": imports(csbdeep, "csbdeep"),
        "import careamics": imports(careamics, "careamics"),
        "ready to train: deepcontrast": imports(ours, "deepcontrast.training"),
        "ready to train: csbdeep": imports(csbdeep, "csbdeep.models"),
        "ready to train: careamics": imports(careamics, "careamics"),
    }


def starts(todo: Mapping[str, Sequence[str | Path]], repeats: int) -> list[Start]:
    """Return what the commands took; they take turns, after a first round that fills the disk's cache."""
    rounds = [{name: _once(command) for name, command in todo.items()} for _ in range(repeats + 1)][1:]
    return [
        Start(name, tuple(took[name][0] for took in rounds), tuple(took[name][1] for took in rounds)) for name in todo
    ]


def _once(command: Sequence[str | Path]) -> tuple[float, float]:
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime

"""The processes that measure, asked in turn: all see the same machine."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

TURN = {"training": 4, "prediction": 1}
"""Repeats of a turn. The first of several does not count: a step finds the caches as the one before left them."""

PAUSE = 0.5
"""Seconds between two turns: threads of the one before may still spin."""


@dataclass(frozen=True)
class Side:
    """Who is measured: its name in tables, its interpreter, its script of this folder, its precision."""

    name: str
    python: Path
    script: str
    precision: str


@dataclass(frozen=True)
class Measured:
    """What one side gave on one case.

    Attributes:
        measure: ``"training"`` or ``"prediction"``.
        case: key of ``networks.CASES``.
        side: name of the side.
        parameters: weights of its network.
        versions: of what it computes with.
        cpu_seconds: of every repeat.
        peak: largest resident size of its process, in bytes.
    """

    measure: str
    case: str
    side: str
    parameters: int
    versions: str
    cpu_seconds: tuple[float, ...]
    peak: int


def interleaved(measure: str, case: str, sides: Sequence[Side], *, repeats: int, threads: int) -> list[Measured]:
    """Return what every side gave; they warm up one after the other, then take turns, ``repeats`` each.

    A side that fails ends the run with the last lines it wrote.
    """
    processes = [_start(side, measure, case, threads) for side in sides]
    try:
        first = [_hear(process) for process in processes]
        answers: list[list[dict[str, Any]]] = [[] for _ in sides]
        for _ in range(repeats):
            for process, heard in zip(processes, answers, strict=True):
                time.sleep(PAUSE)
                print(TURN[measure], file=process.stdin, flush=True)
                heard.append(_hear(process))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [
        Measured(
            measure,
            case,
            side.name,
            **about,
            cpu_seconds=tuple(seconds for answer in heard for seconds in answer["cpu_seconds"][TURN[measure] > 1 :]),
            peak=heard[-1]["peak"],
        )
        for side, about, heard in zip(sides, first, answers, strict=True)
    ]


def _start(side: Side, measure: str, case: str, threads: int) -> subprocess.Popen[str]:
    command = [side.python, HERE / side.script, measure, case, side.precision, str(threads)]
    # TensorFlow and Lightning write what nobody asked for; an error still comes out.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **quiet},
    )


def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next message of a process; what else it writes is dropped while it lives."""
    noise = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            message: dict[str, Any] = json.loads(line)
            return message
        noise.append(line)
    raise SystemExit(f"{' '.join(map(str, process.args[1:5]))} ended:\n{''.join(noise[-20:])}")  # type: ignore[index]

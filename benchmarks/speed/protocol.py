"""How a measuring process is asked: numbers of repeats in, lines of JSON out. Needs nothing but Python."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

from networks import CASES, Case


@dataclass(frozen=True)
class Order:
    """What a measuring process was started for; its four arguments in this order."""

    measure: str
    case: Case
    precision: str
    threads: int

    @classmethod
    def from_command_line(cls) -> Order:
        """Return what this process was started for."""
        measure, case, precision, threads = sys.argv[1:]
        return cls(measure, CASES[case], precision, int(threads))


def cpu_seconds() -> float:
    """Return user and system seconds of all threads of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def serve(once: Callable[[], object], *, warm_up: int, parameters: int, versions: str) -> None:
    """Work ``warm_up`` times unmeasured, say what works here, then measure as many repeats as each line asks for.

    The peak is the largest resident size of the process so far, in bytes (Linux counts it in KiB).
    """
    for _ in range(warm_up):
        once()
    _say({"parameters": parameters, "versions": versions})
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = cpu_seconds()
            once()
            seconds.append(cpu_seconds() - start)
        _say({"cpu_seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)

"""What OpenMP's threads do while they wait for work."""

from __future__ import annotations

import torch

PARALLEL = 2**17
"""Elements that torch computes with several threads."""


def let_idle_threads_sleep() -> None:
    """Let idle OpenMP threads of the process sleep at once, as long as the calling thread lives.

    They spin for milliseconds after every operation, which is right where nothing else wants the cores, and takes
    them from threads that read and write meanwhile. GNU's OpenMP spins far shorter once it has more threads
    than there are cores; the threads of a second caller, which one operation makes, see to that. With another OpenMP,
    or with more cores than threads, nothing changes.
    """
    torch.ones(PARALLEL).add_(1)

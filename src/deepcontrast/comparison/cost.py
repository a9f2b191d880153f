"""What a call costs: its time and its memory, and how large a crop fits into a budget of seconds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

Box = tuple[slice, slice, slice]
T = TypeVar("T")

PROBE = 64
"""Side in pixels of the window that a method is timed on first."""
STEP = 32
"""The side of a crop is a multiple of this, so that few different crops arise."""


class Cost(NamedTuple):
    """Wall time in seconds, and growth of the resident set in MB (``None`` where the system does not tell)."""

    seconds: float
    peak_mb: float | None


def measured(call: Callable[[], T], pause: float = 0.005) -> tuple[T, Cost]:
    """Return what a call returns, and its cost.

    The memory is the largest resident set of this process during the call less the one before it, looked at
    every ``pause`` seconds, the result included. Memory of a GPU is not in it.
    """
    _give_back()
    before = _resident()
    largest, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(pause):
            largest[0] = max(largest[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    try:
        result = call()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    peak = max(largest[0], _resident()) - before
    return result, Cost(seconds, peak / 1e6 if before else None)


def window(shape: tuple[int, ...], side: int) -> Box:
    """Return the middle ``side`` x ``side`` pixels of every plane; of a smaller plane, all."""
    rows, columns = (slice(max(0, (n - side) // 2), max(0, (n - side) // 2) + min(side, n)) for n in shape[1:])
    return slice(0, shape[0]), rows, columns


def size(box: Box) -> tuple[int, int, int]:
    """Return the length of a box along Z, Y and X."""
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def fitting(shape: tuple[int, ...], budget: float, small: tuple[float, int], large: tuple[float, int]) -> int:
    """Return the side of the largest window of a stack that takes at most ``budget`` seconds.

    Args:
        shape: of the stack (Z, Y, X).
        budget: in seconds.
        small, large: seconds and voxels of two windows, whose time is taken as a fixed part and one that grows
            with the voxels.

    Returns:
        A multiple of ``STEP``, at least ``PROBE``; or the longest side of the planes.
    """
    per_voxel = (large[0] - small[0]) / (large[1] - small[1]) if large[1] > small[1] else 0.0
    fixed = small[0] - per_voxel * small[1]
    if per_voxel <= 0 or fixed < 0:
        per_voxel, fixed = large[0] / large[1], 0.0
    planes, height, width = shape
    if fixed + per_voxel * planes * height * width <= budget:
        return max(height, width)
    side = int((max(budget - fixed, 0.0) / (per_voxel * planes)) ** 0.5)
    return min(max(side // STEP * STEP, PROBE), max(height, width))


def _give_back() -> None:
    """Let the allocator give free memory back to the system (glibc): what it keeps would hide what is used next."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    """Return the bytes of memory that this process holds, 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0

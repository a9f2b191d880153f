"""Reading, computing and writing at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from deepcontrast.compute.idle import let_idle_threads_sleep

Item = TypeVar("Item")
Read = TypeVar("Read")
Result = TypeVar("Result")

BEAT = 0.25
"""Seconds between two signs of life while a read is awaited."""


@dataclass
class Seconds:
    """Time on the clock that each of three overlapping stages was at work."""

    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0


def stream(
    work: Sequence[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Item, Read], Result],
    write: Callable[[Item, Result], None],
    finished: Callable[[], None],
    waiting: Callable[[], None],
    *,
    ahead: int,
    seconds: Seconds,
) -> None:
    """Take every item through reading, computing and writing, in order.

    ``read`` and ``write`` run in a thread each, at most ``ahead`` items away from ``compute``, which runs in the
    caller's thread, as ``finished`` does, once an item is written, and ``waiting``, now and then while nothing is read
    yet. The first error of any of them is raised as it is;
    what is computed is written then, what waits to be computed is given up.
    """
    with ThreadPoolExecutor(1, "read", let_idle_threads_sleep) as reader, ThreadPoolExecutor(1, "write") as writer:
        reads: deque[Future[Read]] = deque()
        writes: deque[Future[None]] = deque()

        def written() -> None:
            writes.popleft().result()
            finished()

        try:
            for i, item in enumerate(work):
                for following in work[i + len(reads) : i + 1 + ahead]:
                    reads.append(reader.submit(_timed, "read", seconds, read, following))
                try:
                    piece = _awaited(reads.popleft(), waiting)
                    result = _timed("compute", seconds, compute, item, piece)
                    del piece
                except Exception:
                    # What is computed counts.
                    while writes:
                        written()
                    raise
                if len(writes) == ahead:
                    written()
                writes.append(writer.submit(_timed, "write", seconds, write, item, result))
                del result
            while writes:
                written()
        except BaseException:
            for pool in (reader, writer):
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def _awaited(reading: Future[Read], waiting: Callable[[], None]) -> Read:
    while not wait([reading], BEAT).done:
        waiting()
    return reading.result()


def _timed(stage: str, seconds: Seconds, call: Callable[..., Result], *args: object) -> Result:
    begun = time.perf_counter()
    try:
        return call(*args)
    finally:
        setattr(seconds, stage, getattr(seconds, stage) + time.perf_counter() - begun)

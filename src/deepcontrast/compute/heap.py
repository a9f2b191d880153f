"""The C allocator, kept from giving memory back to the system between the steps of one computation."""

from __future__ import annotations

import ctypes
import gc
import mmap
import platform
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

# The numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_MIB = 2**20

_lock = threading.Lock()
_users = _returners = 0


@contextmanager
def kept() -> Iterator[None]:
    """Let freed memory stay with this process until the block ends.

    glibc takes blocks of megabytes from the system and gives each back when it is freed, so a training step asks
    for the same pages again and again, and the system clears every one of them. Inside this block they are taken
    from a heap that does not shrink. At its end glibc has its defaults again, with the thresholds it would itself
    have come to in a process that frees such blocks, and what is free goes back to the system. Blocks may nest and
    run in several threads. With another C library nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    global _users
    with _lock:
        _users += 1
        if _users == 1 and not _returners:
            _keep(libc)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _give_back(libc)


@contextmanager
def given_back() -> Iterator[None]:
    """Inside of :func:`kept`, let freed memory go back until the block ends.

    For what is done once and takes much more than the steps around it. Blocks may nest and run in several threads;
    while there is one, what other threads free goes back too. Outside of :func:`kept` nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    global _returners
    with _lock:
        _returners += 1
        if _users and _returners == 1:
            _give_back(libc)
    try:
        yield
    finally:
        with _lock:
            _returners -= 1
            if _users and _returners == 0:
                libc.malloc_trim(0)
                _keep(libc)


def _keep(libc: ctypes.CDLL) -> None:
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    libc.mallopt(_M_TOP_PAD, 64 * _MIB)


def _give_back(libc: ctypes.CDLL) -> None:
    libc.mallopt(_M_MMAP_MAX, 65536)
    # glibc adapts these two to what is freed, up to this, but no more once one of them was set.
    libc.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    libc.mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
    libc.mallopt(_M_TOP_PAD, 0)
    libc.malloc_trim(0)


def release(maps: Iterable[object] = ()) -> None:
    """Give back to the system what is free, and the pages of files that are mapped, which are read again when needed.

    Args:
        maps: arrays; those that are maps of files (``numpy.memmap``) let go of their pages.
    """
    for array in maps:
        mapped = getattr(array, "_mmap", None)
        # What was changed in a private map (mode "c") lies in its pages alone.
        if isinstance(mapped, mmap.mmap) and getattr(array, "mode", "c") != "c" and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None

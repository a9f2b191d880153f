"""The C allocator kept from giving memory back, and put right afterwards."""

from __future__ import annotations

import ctypes
import platform
import sys

import numpy as np
import pytest

from deepcontrast.compute import heap

resource = pytest.importorskip("resource", reason="Windows counts no page faults")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
MIB = 2**20


def faults(rounds: int = 8) -> int:
    """Return the page faults of making and forgetting a block that glibc would map anew each time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(40 * MIB, np.uint8)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@glibc
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    plain = faults()
    with heap.kept():
        faults(1)
        kept = faults()
        with heap.kept():
            pass
        assert faults() < 0.2 * plain, "an inner block ended the outer one"
    assert kept < 0.2 * plain
    assert faults() > 0.8 * plain


@glibc
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_free_goes_back_at_the_end() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    with heap.kept():
        np.ones(200 * MIB, np.uint8)
        inside = resident()
    assert resident() < inside - 190 * MIB


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("not glibc")

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    heap._glibc.cache_clear()
    with heap.kept():
        pass
    heap._glibc.cache_clear()

"""The C allocator kept from giving memory back, and put right afterwards."""

from __future__ import annotations

import ctypes
import multiprocessing
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepcontrast.compute import heap

resource = pytest.importorskip("resource", reason="Windows tells no page size")
linux = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or sys.platform != "linux", reason="another C library, or no /proc"
)
MIB = 2**20


def stays() -> int:
    """Return how many bytes of a forgotten block, one that glibc would map anew each time, stay with the process."""
    before = resident()
    np.ones(40 * MIB, np.uint8)
    return resident() - before


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def in_a_new_process(work: Callable[[], None]) -> None:
    """Do some work where nothing was allocated and forgotten before."""
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0, "see the traceback of the process"


@linux
def test_memory_that_is_kept_is_not_given_back() -> None:
    in_a_new_process(_keep)


def _keep() -> None:
    assert stays() < MIB
    with heap.kept():
        assert stays() > 39 * MIB
        assert stays() < MIB, "the block kept is the one taken again"
        held = resident()
        with heap.kept():
            pass
        assert resident() > held - MIB, "an inner block ended the outer one"
    assert resident() < held - 39 * MIB
    assert stays() < MIB


@linux
def test_what_is_free_goes_back_at_the_end() -> None:
    in_a_new_process(_give_back)


def _give_back() -> None:
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


@linux
def test_pages_of_a_mapped_file_are_let_go_and_read_again(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (60 * MIB,))
    mapped[:] = 7
    before = resident()
    heap.release([mapped[MIB:], np.ones(3)])
    assert resident() < before - 55 * MIB
    assert int(mapped[50 * MIB]) == 7


@linux
def test_inside_of_what_is_kept_memory_goes_back_while_it_is_asked_to() -> None:
    in_a_new_process(_give_back_inside)


def _give_back_inside() -> None:
    with heap.given_back():
        assert stays() < MIB
    with heap.kept():
        with heap.given_back():
            with heap.given_back(), heap.kept():
                pass
            assert stays() < MIB, "an inner block ended the outer one"
        assert stays() > 39 * MIB, "it is kept again afterwards"
    assert stays() < MIB

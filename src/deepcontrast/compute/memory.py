"""Memory: what a user allows, what the machine has left, what a computation takes."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from deepcontrast.errors import InputError

UNITS: Mapping[str, int] = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip

SHARE = 0.5
"""Part of the memory that is left which is taken where none is asked for; on a GPU :data:`SHARE_OF_GPU`."""

SHARE_OF_GPU = 0.8

UNKNOWN = 4 * 10**9
"""Bytes counted with where a system does not say what it has."""


def parse_memory(text: str) -> int:
    """Return the bytes of ``"2GB"`` (10**9), ``"500 MB"``, ``"1.5GiB"`` (2**30) and the like.

    Raises:
        InputError: it is no number with one of these units.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) == 0:
        raise InputError(
            f"memory '{text}' is not understood; accepted: a number and B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"
        )
    return int(float(match[1]) * unit)


def describe_bytes(count: float) -> str:
    """Return a number of bytes as people say it: ``"1.5 GB"``."""
    for unit in ("GB", "MB", "kB"):
        size = UNITS[unit.upper()]
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def spare(device: str = "cpu", limit: int | None = None) -> int:
    """Return the bytes a computation may take on a device, besides what this process holds already.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        limit: what the whole process may hold (on a GPU: of the GPU's memory); ``None`` takes a share of what is left.
    """
    if device.startswith("cuda"):
        taken = torch.cuda.memory_allocated(device)
        # What torch keeps of tensors that are gone (a training before) it uses again, or gives back when it is short.
        left = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - taken
        return int(SHARE_OF_GPU * left) if limit is None else min(limit - taken, left)
    return int(SHARE * available()) if limit is None else limit - resident()


def available(root: Path = Path("/")) -> int:
    """Return the bytes the machine has left, or this process's control group (container, cluster job) if that is less.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    return max(0, min([_left_on_machine(root), *_left_in_groups(root)]))


def resident(root: Path = Path("/")) -> int:
    """Return the bytes of memory this process holds."""
    statm = root / "proc/self/statm"
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Footprint:
    """The memory that a network takes for a tile: of each of its steps, a part that stays and one that grows.

    Attributes:
        lines: per step, the bytes that do not depend on the tile, and those per voxel.
    """

    lines: tuple[tuple[float, float], ...]

    def peak(self, voxels: float) -> float:
        """Return the bytes that a tile of so many voxels takes at most."""
        return max(fixed + each * voxels for fixed, each in self.lines)

    def voxels(self, room: float) -> float:
        """Return the voxels of the largest tile that takes at most ``room`` bytes."""
        if any(fixed > room for fixed, _ in self.lines):
            return 0.0
        return min(((room - fixed) / each for fixed, each in self.lines if each > 0), default=float("inf"))


def footprint(work: Callable[[int], tuple[int, object]], device: str) -> Footprint:
    """Measure what a computation takes, from running it with small tiles.

    On a CUDA device its allocator counts, with what the libraries take for themselves; all of it is taken to grow with
    the tile, which is too much rather than too little. Elsewhere every tensor that a function of torch returns is
    counted until it is freed. That gives the same numbers every time, where the memory of the process depends on what
    the C library kept from earlier, and where two tiles are computed in the same steps, they give all others. What a
    function takes and frees inside is not seen.

    Args:
        work: computes a tile of a given size, 1, 2 or 4, and returns its number of voxels, and the result.
        device: where.
    """
    if device.startswith("cuda"):
        work(2)
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        voxels, _ = work(2)
        return Footprint(((0.0, (torch.cuda.max_memory_allocated(device) - before) / voxels),))
    few, small = _trace(work, 1)
    for size in (2, 4):
        many, large = _trace(work, size)
        if len(small) == len(large):
            slopes = [max(0.0, (b - a) / (many - few)) for a, b in zip(small, large, strict=True)]
            return Footprint(tuple({(max(0.0, a - s * few), s) for a, s in zip(small, slopes, strict=True)}))
        few, small = many, large
    return Footprint(((0.0, max(large) / many),))


def _trace(work: Callable[[int], tuple[int, object]], size: int) -> tuple[int, list[int]]:
    """Return the voxels of a tile, and the bytes alive after each step of its computation."""
    alive = _Alive()
    with alive:
        voxels, _ = work(size)
    return voxels, alive.trace


class _Alive(TorchFunctionMode):
    """Counts the bytes of the tensors that functions of torch return, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.trace: list[int] = []
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.trace.append(self.now)
        return result

    def _count(self, storage: Any) -> None:
        if storage not in self.known:
            self.known.add(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.now -= size


def _left_on_machine(root: Path) -> int:
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        return int(_field(meminfo.read_text(), "MemAvailable:")) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left in each control group, of version 2 or 1, that this process is in."""
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = top / path.lstrip("/")
        for folder in {inside, *(parent for parent in inside.parents if parent.is_relative_to(top))}:
            left = _left_in_group(folder, *names)
            if left is not None:
                yield left


def _left_in_group(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        # Files that were read and can be dropped count as used there.
        idle = int(_field((folder / "memory.stat").read_text(), cached))
    except (OSError, ValueError):
        return None
    return None if most == "max" else int(most) - used + idle


def _field(text: str, name: str) -> str:
    """Return what follows a name at the start of a line."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == name:
            return words[1]
    raise ValueError(f"no '{name}'")

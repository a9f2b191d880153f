"""What is refused before any work, and which end is the surface, of stacks that are never in memory as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepcontrast import valid
from deepcontrast.accept import check_stacks, check_volume, surfaced
from deepcontrast.depth import find_surface
from deepcontrast.errors import InputError
from deepcontrast.stack import Stack
from deepcontrast.synth.tissue import tissue


class Slabs:
    """An array that gives away at most so many voxels at once."""

    def __init__(self, array: np.ndarray, most: int) -> None:
        self.array, self.most = array, most
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        part: np.ndarray = self.array[key]
        assert part.size <= self.most, f"{part.size} voxels were read at once"
        return part


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return tissue(shape=(40, 64, 72), seed=4).raw


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valid, "SLAB_BYTES", 4 * 64 * 72)


@pytest.mark.parametrize("upside_down", [False, True])
def test_the_surface_is_found_slab_by_slab(volume: np.ndarray, upside_down: bool) -> None:
    turned = volume[::-1] if upside_down else volume
    lazy = Stack(Slabs(turned, 8 * 64 * 72), "ZYX")
    found, why = surfaced(lazy, "auto")
    assert found.optics.surface == ("last" if upside_down else "first")
    assert why == find_surface(np.ascontiguousarray(turned))[1]


def test_the_surface_of_a_tall_stack_is_told_from_runs_of_planes(volume: np.ndarray) -> None:
    """An end of 80 planes: 32 of them are looked at."""
    tall = np.repeat(volume, 10, axis=0)
    tall = np.random.default_rng(0).poisson(tall).astype(np.uint16)
    read: list[int] = []

    class Watched(Slabs):
        def __getitem__(self, key: Any) -> np.ndarray:
            read.append(super().__getitem__(key).shape[0])
            return super().__getitem__(key)

    known = valid.survey(tall)
    assert find_surface(Watched(tall, 8 * 64 * 72), known)[0] == "first"
    assert find_surface(tall[::-1], valid.survey(tall[::-1]))[0] == "last"
    assert sum(read) < 160


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "1 voxels that are NaN or infinite"), (np.inf, "NaN or infinite")]
)
def test_what_is_not_finite_is_refused(volume: np.ndarray, value: float, message: str) -> None:
    spoiled = volume.astype(np.float32)
    spoiled[31, 5, 6] = value
    with pytest.raises(InputError, match=message):
        check_stacks([Stack(Slabs(spoiled, 4 * 64 * 72), "ZYX")])


def test_one_value_everywhere_is_refused() -> None:
    with pytest.raises(InputError, match="'x' is constant: every voxel is 7"):
        check_volume(np.full((3, 8, 8), 7, np.uint16), "x")
    check_volume(np.stack([np.full((8, 8), 7), np.full((8, 8), 8)]).astype(np.uint16), "x")

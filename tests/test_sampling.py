"""Which planes a fit looks at."""

from __future__ import annotations

import numpy as np
import pytest

from deepcontrast import sampling
from deepcontrast.progress import silent
from deepcontrast.sampling import sample_planes
from deepcontrast.stack import Stack
from deepcontrast.task import Source

PLANES = 40


def sources(count: int) -> list[Source]:
    volume = np.random.default_rng(0).integers(100, 200, (PLANES, 8, 8)).astype(np.uint16)
    return [Source(Stack(volume, "ZYX"), 0, 0, np.arange(float(PLANES))) for _ in range(count)]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("stacks", "count"), [(1, 8), (1, 16), (1, 64), (2, 8), (2, 16), (5, 64)])
def test_planes_are_read_from_the_first_to_the_last(
    stacks: int, count: int, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(sampling, "KEPT", 1)
    found, planes, _, depth = sample_planes(sources(stacks), count, silent)
    assert len(found) == stacks
    for some, deep in zip(planes, depth, strict=True):
        assert len(some) == len(deep) == len(set(deep))
        assert min(4, count // stacks) <= len(deep) <= max(4, count // stacks)
        assert deep[0] == 0
        assert deep[-1] == PLANES - 1
        assert np.diff(deep).max() <= PLANES / 2
        assert abs(np.mean(deep) - (PLANES - 1) / 2) < 2


def test_what_is_large_is_read_in_runs_of_neighbouring_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "KEPT", 1)
    [depth] = sample_planes(sources(1), 16, silent)[3]
    np.testing.assert_array_equal(depth.reshape(4, 4), depth.reshape(4, 4)[:, :1] + np.arange(4))

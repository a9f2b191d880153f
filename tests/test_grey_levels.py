"""How grey levels are laid out, against what sorting and counting all of them says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from deepcontrast.noise.grey_levels import grey_levels

SHAPE = (9, 40, 50)


def volume(kind: str, rng: np.random.Generator) -> NDArray[np.generic]:
    photons = rng.poisson(5, SHAPE)
    return {
        "photons": photons.astype(np.uint16),
        "piled at both ends": np.clip(rng.poisson(40, SHAPE), 34, 43).astype(np.float32),
        "doubled, some below 0": (2 * photons - 6).astype(np.int16),
        "not whole": rng.normal(100, 20, SHAPE).astype(np.float32),
        "of one level": np.full(SHAPE, 7.0),
    }[kind]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "kind", ["photons", "piled at both ends", "doubled, some below 0", "not whole", "of one level"]
)
def test_levels_are_those_of_a_plain_count(kind: str, masked: bool, rng: np.random.Generator) -> None:
    image = volume(kind, rng)
    mask = rng.random(SHAPE) > 0.2 if masked else None
    values = image[mask] if masked else image.ravel()
    levels, counts = np.unique(values.astype(np.float64), return_counts=True)
    found = grey_levels([image], [mask])
    assert found is not None
    assert (found.low, found.high) == (levels[0], levels[-1])
    whole = kind != "not whole" and len(levels) > 1
    assert found.step == (np.diff(levels).min() if whole else 0.0)
    assert found.shares == (counts[0] / values.size, counts[-1] / values.size)
    assert (found.clipped, found.saturated) == ((kind == "piled at both ends",) * 2)
    expected = np.percentile(values, (50, 2, 0.1, 0.001))
    np.testing.assert_allclose((found.median, found.dark, found.floor, found.darkest), expected, rtol=1e-6)


def test_values_that_are_not_finite_do_not_count() -> None:
    image = np.arange(48.0).reshape(3, 4, 4)
    image[0, 0, :2] = np.nan, np.inf
    found = grey_levels([image], [None])
    assert found is not None
    assert (found.low, found.high, found.step) == (2, 47, 1)
    assert grey_levels([np.full((3, 4, 4), np.nan)], [None]) is None


@pytest.mark.parametrize("whole", [False, True])
def test_it_takes_little_more_than_the_values_themselves(whole: bool, rng: np.random.Generator) -> None:
    image = rng.normal(100, 20, (20, 256, 256)).astype(np.float32)
    image = np.round(image) if whole else image
    tracemalloc.start()
    try:
        grey_levels([image], [None])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.75 * image.nbytes

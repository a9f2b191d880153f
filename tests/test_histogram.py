"""Percentiles of images read in parts, against NumPy's of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepcontrast.histogram import histogram, percentiles, tally

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    elements: Any = None
    if dtype.kind == "f":
        elements = {"min_value": -1e6, "max_value": 1e6, "allow_subnormal": False}
    elif dtype.itemsize > 2:  # NumPy's own differences overflow beyond
        elements = {"min_value": 0 if dtype.kind == "u" else -(2**30), "max_value": 2**30}
    elif dtype.kind == "i":
        elements = {"min_value": -60, "max_value": 60}
    return draw(arrays(dtype, draw(st.integers(1, 60)), elements=elements))


@settings(max_examples=60)
@given(image=images(), q=st.floats(0, 100), cut=st.integers(0, 60))
def test_percentiles_in_parts_are_those_of_numpy(image: np.ndarray, q: float, cut: int) -> None:
    found = percentiles(lambda: (image[:cut], image[cut:]), (q, 50.0))
    assert found == (float(np.percentile(image, q)), float(np.percentile(image, 50.0)))


@settings(max_examples=30)
@given(
    image=arrays("uint16", st.integers(1, 60), elements={"min_value": 0, "max_value": 300}),
    q=st.floats(0, 100),
    cut=st.integers(0, 60),
)
def test_a_histogram_of_whole_numbers_knows_every_percentile(image: np.ndarray, q: float, cut: int) -> None:
    found = histogram(tally(image[:cut]) + tally(image[cut:]), image.dtype)
    assert found.percentile(q) == float(np.percentile(image, q))
    assert found.between(10, 200) == np.count_nonzero((image >= 10) & (image < 200))


def test_signed_levels_are_counted_in_order() -> None:
    found = histogram(tally(np.array([-3, 5, -3, 0], np.int16)), np.dtype(np.int16))
    assert found.levels.tolist() == [-3, 0, 5]
    assert found.counts.tolist() == [2, 1, 1]


def test_nan_is_left_out() -> None:
    image = np.array([np.nan, 1, 2, 3, np.inf], np.float32)
    assert percentiles(lambda: [image], (0, 50, 100)) == (1.0, 2.5, np.inf)


def test_an_image_of_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no value"):
        percentiles(lambda: [np.full(3, np.nan)], (50,))

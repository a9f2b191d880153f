"""Which voxels hold no measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepcontrast import valid
from deepcontrast.cleaned import Cleaned
from deepcontrast.valid import codes, fill_empty, find_invalid, survey


def image(rng: np.random.Generator, dtype: type = np.uint16) -> np.ndarray:
    return (rng.poisson(40, (6, 64, 64)) + 100).astype(dtype)


def test_a_clean_stack_has_no_invalid_voxel(rng: np.random.Generator) -> None:
    found = find_invalid(image(rng))
    assert found.codes is None
    assert found.counts == {}
    assert not found.at_zero.any()


def test_filled_borders_and_constant_planes_are_empty(rng: np.random.Generator) -> None:
    volume = image(rng)
    volume[1, :, :12] = 0
    volume[4] = 7
    found = find_invalid(volume)
    assert found.counts["empty"].tolist() == [0, 64 * 12, 0, 0, 64 * 64, 0]
    assert found.valid is not None
    assert not found.valid[1, :, :12].any()
    assert found.valid[1, :, 12:].all()


@pytest.mark.parametrize("mean", [0.02, 0.3, 2.0])
def test_zeros_of_photon_counting_are_measurements(rng: np.random.Generator, mean: float) -> None:
    volume = rng.poisson(mean, (6, 64, 64)).astype(np.uint16)
    found = find_invalid(volume)
    assert found.codes is None or found.codes.mean() < 0.001
    if mean < 1:
        assert found.at_zero.sum() == (volume == 0).sum()


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095), (np.uint16, 3000)])
def test_saturation_is_found(rng: np.random.Generator, dtype: type, top: int) -> None:
    volume = image(rng, dtype)
    volume[2, 10:18, 10:20] = top
    found = find_invalid(volume)
    assert found.counts["saturated"].tolist() == [0, 0, 80, 0, 0, 0]
    assert found.empty is None


def test_one_bright_voxel_is_not_saturation(rng: np.random.Generator) -> None:
    volume = image(rng)
    volume[2, 10, 10] = 60000
    assert find_invalid(volume).codes is None


def test_empty_voxels_are_filled_from_their_neighbours(rng: np.random.Generator) -> None:
    volume = image(rng)
    volume[1, :, :20] = 0
    found = find_invalid(volume)
    filled = fill_empty(volume.astype(np.float32), found)
    assert filled[1, :, :20].min() > 130
    assert filled[1, :, :20].max() < 150
    np.testing.assert_array_equal(filled[0], volume[0])
    np.testing.assert_array_equal(filled[1, :, 20:], volume[1, :, 20:])


DAMAGES = ("border", "corner", "hole", "plane", "saturated", "top")
Place = tuple[str, int, int, int]


def damaged(seed: int, dtype: str, mean: float, places: list[Place]) -> np.ndarray:
    """Return a stack (ZYX 5 x 30 x 34) with empty borders, planes, holes and saturated voxels."""
    volume = np.random.default_rng(seed).poisson(mean, (5, 30, 34)) + 3
    for what, z, size, value in places:
        if what == "border":
            volume[z, :size] = value
        elif what == "corner":
            volume[z, -size:, -size:] = value
        elif what == "hole":
            volume[z, 9 : 9 + size, 8 : 8 + size] = value
        elif what == "plane":
            volume[z] = value
        else:
            volume[z, 10 : 10 + size, 10 : 10 + size] = 255 if what == "saturated" else volume.max()
    return volume.astype(dtype)


stacks = st.builds(
    damaged,
    st.integers(0, 5),
    st.sampled_from(["uint8", "uint16", "int16", "int32", "float32"]),
    st.sampled_from([0.3, 20.0, 90.0]),
    st.lists(
        st.tuples(st.sampled_from(DAMAGES), st.integers(0, 4), st.integers(1, 12), st.sampled_from([0, 0, 3])),
        max_size=4,
    ),
)
spans = st.tuples(st.integers(0, 29), st.integers(1, 34))


def cut(spans: list[tuple[int, int]], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    z, y, x = (slice(start % n, min(start % n + length, n)) for (start, length), n in zip(spans, shape, strict=True))
    return z, y, x


@settings(max_examples=40)
@given(volume=stacks, box=st.lists(spans, min_size=3, max_size=3))
def test_a_part_is_judged_as_in_the_whole(volume: np.ndarray, box: list[tuple[int, int]]) -> None:
    whole, known, part = find_invalid(volume), survey(volume), cut(box, volume.shape)
    expected = np.zeros(volume.shape, np.uint8) if whole.codes is None else whole.codes
    np.testing.assert_array_equal(codes(volume, known, part), expected[part])
    size = volume[0].size
    usable = [(plane == 0).mean() > 0.2 for plane in expected]
    assert known.usable(0.2).tolist() == usable
    assert sum(int(n.sum()) for n in known.counts.values()) == np.count_nonzero(expected) <= 5 * size


@settings(max_examples=40)
@given(volume=stacks, box=st.lists(spans, min_size=3, max_size=3), patterned=st.booleans())
def test_a_slice_of_the_cleaned_volume_is_that_of_the_whole(
    volume: np.ndarray, box: list[tuple[int, int]], patterned: bool
) -> None:
    pattern = np.random.default_rng(0).normal(0, 2, volume.shape[1:]).astype(np.float32) if patterned else None
    image = volume.astype(np.float32) - (0 if pattern is None else pattern)
    whole = fill_empty(image, find_invalid(volume))
    lazy = Cleaned(volume, survey(volume), pattern)
    np.testing.assert_array_equal(lazy[cut(box, volume.shape)], whole[cut(box, volume.shape)])
    np.testing.assert_array_equal(lazy[-1, ::2], whole[-1, ::2])
    np.testing.assert_array_equal(np.asarray(lazy), whole)


@settings(max_examples=30)
@given(volume=stacks, slab=st.sampled_from([1, 3000, 10**9]))
def test_the_survey_does_not_depend_on_how_it_is_read(volume: np.ndarray, slab: int) -> None:
    whole = survey(volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(valid, "SLAB_BYTES", slab)
        parts = survey(volume)
    for name in ("low", "high", "borders", "piled_up", "not_finite"):
        assert getattr(whole, name) == getattr(parts, name)
    for name in ("seen", "blank", "bordered", "level", "at_zero"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.histogram is None or whole.histogram.percentile(30) == np.percentile(volume, 30)


def test_planes_too_large_to_follow_their_border_are_judged_in_bands(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where only borders are empty, whatever the bands and the box; a thick hole then counts as well."""
    volume = image(rng)
    volume[1, :, :12] = volume[3, -9:] = 0
    volume[2, 5:8, 5:60] = 0  # thin: a measurement
    expected = find_invalid(volume)
    filled = fill_empty(volume.astype(np.float32), expected)
    monkeypatch.setattr(valid, "WHOLE", 1000)
    monkeypatch.setattr(valid, "SLAB_BYTES", 64 * 2 * valid.RUN * 7)
    known = survey(volume)
    for name, count in expected.counts.items():
        np.testing.assert_array_equal(known.counts[name], count)
    lazy = Cleaned(volume, known)
    for y in (slice(0, 64), slice(3, 20), slice(50, 64)):
        box = (slice(0, 6), y, slice(5, 40))
        np.testing.assert_array_equal(codes(volume, known, box), expected.codes[box])  # type: ignore[index]
        near = np.abs(lazy[box] - filled[box])
        np.testing.assert_allclose(near, 0, atol=0.05)
        # What one box gives another gives, to the byte.
        np.testing.assert_array_equal(lazy[box], lazy[:, :, 5:40][:, y])
    volume[4, 20:40, 20:40] = 0
    assert survey(volume).counts["empty"].tolist() == [0, 64 * 12, 0, 64 * 9, 400, 0]


def test_a_large_stack_is_judged_by_some_of_its_planes(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.tile(image(rng), (40, 1, 1))
    volume[:, :, :12] = 0
    monkeypatch.setattr(valid, "SURVEYED", 80 * volume[0].size)
    read: list[int] = []

    class Watched:
        shape, dtype = volume.shape, volume.dtype

        def __getitem__(self, key: Any) -> np.ndarray:
            part = volume[key]
            read.extend(range(240)[key[0]])
            return part

    known = survey(Watched())
    assert sorted(read) == np.flatnonzero(known.seen).tolist()
    assert len(read) == 80
    assert known.seen[:16].all()
    assert known.seen[-16:].all()
    assert known.note() is not None
    assert "80 of 240 planes" in str(known.note())
    unseen = int(np.flatnonzero(~known.seen)[0])
    box = (slice(unseen, unseen + 1), slice(0, 64), slice(0, 64))
    assert (codes(volume, known, box) == valid.EMPTY).sum() == 64 * 12
    assert survey(volume[:6]).note() is None


def test_nan_is_counted_and_makes_nothing_else_up() -> None:
    volume = np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8)
    volume[1, 2, 2:4] = np.nan, np.inf
    known = survey(volume)
    assert known.not_finite == 2
    assert known.all_valid

"""Planes between planes: where they lie, and that a part is the same whatever it is a part of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcontrast.errors import InputError
from deepcontrast.stack import Optics, Stack
from deepcontrast.upsampled import count_of, places, upsampled

FACTORS = [1.0, 2.0, 4.3, 5.0, 8.0, 10.2]


def stack_of(array: np.ndarray, axes: str = "ZYX", z: float = 2.0) -> Stack:
    return Stack(array, axes, Optics(voxel_size=(z, 0.4, 0.4)))


@given(st.sampled_from(FACTORS), st.data())
def test_a_part_is_the_same_whatever_it_is_part_of(factor: float, data: st.DataObject) -> None:
    volume = np.random.default_rng(0).integers(0, 4000, (7, 6, 5)).astype(np.uint16)
    made = upsampled(stack_of(volume), factor).array
    whole = made[:]
    box = []
    for n in whole.shape:
        start = data.draw(st.integers(0, n - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, n))))
    np.testing.assert_array_equal(made[tuple(box)], whole[tuple(box)])


@pytest.mark.parametrize("factor", FACTORS)
def test_planes_are_centred_and_a_ramp_stays_one(factor: float) -> None:
    planes = 9
    ramp = np.broadcast_to(np.arange(planes, dtype=np.float32)[:, None, None], (planes, 3, 4))
    found = upsampled(stack_of(ramp), factor).array[:][:, 0, 0]
    count = round(planes * factor)
    assert len(found) == count == count_of(planes, factor)
    # In the length of the input's planes, both stacks have one middle, and neighbours are 1 / factor apart.
    expected = (np.arange(count) - (count - 1) / 2) / factor + (planes - 1) / 2
    np.testing.assert_allclose(found, np.clip(expected, 0, planes - 1), atol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_symmetric_stack_stays_symmetric(factor: float) -> None:
    half = np.random.default_rng(1).random((4, 5, 6), np.float32)
    found = upsampled(stack_of(np.concatenate([half, half[::-1]])), factor).array[:]
    np.testing.assert_allclose(found, found[::-1], atol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_point_stays_where_it_was(factor: float) -> None:
    volume = np.zeros((9, 3, 3), np.float32)
    volume[3], volume[4] = 0.3, 0.7  # its middle is at 3.7 planes
    found = upsampled(stack_of(volume), factor).array[:][:, 1, 1].astype(np.float64)
    at = places(9, factor, slice(0, len(found)))
    assert factor * abs((found * at).sum() / found.sum() - 3.7) < 0.1


def test_voxels_and_origin_say_where_the_planes_lie() -> None:
    made = upsampled(stack_of(np.zeros((6, 4, 4)), z=2.0), 5.0)
    assert made.optics.voxel_size == pytest.approx((0.4, 0.4, 0.4))
    # A plane 2 um thick is cut in five; the middle of the first of these lies 0.8 um before the plane's.
    assert made.optics.origin_um == pytest.approx((-0.8, 0.0, 0.0))
    assert made.shape == (30, 4, 4)


def test_time_points_and_channels_are_kept() -> None:
    array = np.random.default_rng(2).random((2, 4, 3, 5, 6), np.float32)
    made = upsampled(Stack(array, "TCZYX"), 2.0)
    assert made.shape == (2, 4, 6, 5, 6)
    alone = upsampled(stack_of(array[1, 2]), 2.0)
    np.testing.assert_array_equal(made.volume(1, 2), alone.volume())


@pytest.mark.parametrize(("factor", "planes", "words"), [(0.9, 5, "1 or more"), (2.0, 1, "one plane")])
def test_what_cannot_be_made_closer_is_refused(factor: float, planes: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        upsampled(stack_of(np.zeros((planes, 4, 4))), factor)

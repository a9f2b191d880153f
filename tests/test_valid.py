"""Which voxels hold no measurement."""

from __future__ import annotations

import numpy as np
import pytest

from deepcontrast.valid import fill_empty, find_invalid


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

"""The simulated filaments: as long, thick, stiff and dense as was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from deepcontrast.synth.filaments import FLATNESS, _walks, filaments


def test_a_filament_forgets_its_direction_over_the_persistence_length() -> None:
    paths = _walks(np.random.default_rng(0), np.zeros((800, 3)), length=60.0, straight=20.0)
    directions = np.diff(paths, axis=1) / (FLATNESS, 1, 1)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    for voxels in (5, 20, 40):
        apart = 2 * voxels
        cosine = (directions[:, apart:] * directions[:, :-apart]).sum(axis=-1).mean()
        # Worm-like chain.
        assert cosine == pytest.approx(np.exp(-voxels / 20), abs=0.03)


def test_walks_have_their_length_around_their_middle_and_lie_along_the_planes() -> None:
    middles = np.array([[3.0, 4.0, 5.0], [-2.0, 0.0, 60.0]])
    paths = _walks(np.random.default_rng(0), middles, length=40.0, straight=20.0)
    steps = np.diff(paths, axis=1)
    assert np.linalg.norm(steps, axis=-1).sum(axis=1) == pytest.approx(40, abs=0.6)
    np.testing.assert_allclose(paths[:, 40], middles)
    many = np.diff(_walks(np.random.default_rng(1), np.zeros((300, 3)), 40.0, 20.0), axis=1)
    axial, *lateral = np.abs(many).mean(axis=(0, 1))
    assert axial < 0.5 * min(lateral)
    assert lateral[0] == pytest.approx(lateral[1], rel=0.15)


@pytest.mark.parametrize("length_um", [4.0, 30.0])
def test_the_volume_is_as_full_as_was_asked_for(length_um: float) -> None:
    masks = [filaments(shape=(24, 80, 80), seed=s, density=0.4, length_um=length_um).mask for s in range(2)]
    # Radii are uniform in 0.7 .. 1.4 of the mean. Tubes with round ends, thrown at random, overlap.
    square, cube = ((1.4**n - 0.7**n) / (0.7 * n) * 0.4 ** (n - 1) for n in (3, 4))
    volume = np.pi * square * length_um + 4 / 3 * np.pi * cube
    assert np.mean(masks) == pytest.approx(1 - np.exp(-0.4 / length_um * volume), rel=0.1)

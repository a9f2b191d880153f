"""The simulated mitochondria: as thick as was asked for, and none inside a nucleus."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.synth.mitochondria import _balls, _lines, _Nuclei, draw

VOXEL_UM = (0.25, 0.1, 0.1)


@pytest.mark.parametrize("radius", [0.15, 0.25, 0.35])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_a_tube_has_its_thickness_in_the_plane_and_its_section_in_space(radius: float, angle: float) -> None:
    along = np.arange(-1, 7, 0.1)
    points = np.column_stack([0 * along, 3 + (along - 3) * math.sin(angle), 3 + (along - 3) * math.cos(angle)])
    one = np.ones(len(along))
    plane, space = np.zeros((1, 60, 60), np.float32), np.zeros((21, 60, 60), np.float32)
    _balls(plane, points, radius * one, one, (0.1, 0.1, 0.1))
    points[:, 0] = 1
    _balls(space, points, radius * one, one, (0.1, 0.1, 0.1))
    # Per unit of length along x, away from the ends.
    length = 20 * 0.1 / math.cos(angle)
    middle = slice(20, 40)
    assert plane[..., middle].sum() * 0.1**2 / length == pytest.approx(2 * radius, rel=0.05)
    assert space[..., middle].sum() * 0.1**3 / length == pytest.approx(math.pi * radius**2, rel=0.08)
    assert space.max() == plane.max() == pytest.approx(1)


def test_where_tubes_overlap_the_brightest_is_seen() -> None:
    drawn = np.zeros((1, 20, 20), np.float32)
    centres = np.array([[0, 1.0, 1.0], [0, 1.0, 1.1]])
    _balls(drawn, centres, np.full(2, 0.3), np.array([0.7, 1.3]), (0.1, 0.1, 0.1))
    assert drawn[0, 10, 10] == pytest.approx(1.3)
    assert drawn.max() == pytest.approx(1.3)


def test_lines_have_their_lengths_and_begin_at_their_starts() -> None:
    starts = np.array([[0, 1.0, 2.0], [0, 5.0, 5.0], [0, 9.0, 1.0]])
    points, owners = _lines(np.random.default_rng(0), starts, np.array([3.0, 0.0, 1.0]), 0.1, False)
    assert np.bincount(owners).tolist() == [31, 1, 11]
    np.testing.assert_allclose(points[np.searchsorted(owners, [0, 1, 2])], starts)
    steps = np.diff(points[owners == 0], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.1)


def test_the_distance_from_a_round_nucleus_is_exact() -> None:
    nuclei = _Nuclei(np.array([[1.0, 2, 3], [1, 30, 3]]), np.full((2, 3), 4.0), np.array([0.3, 1.0]))
    points = np.random.default_rng(0).uniform(0, 30, (50, 3))
    expected = np.linalg.norm(points[:, None] - nuclei.centres, axis=-1).min(axis=1) - 4
    np.testing.assert_allclose(nuclei.beyond(points), expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_dark_nucleus_is_left_open(seed: int) -> None:
    # A field larger than a cell has the whole of a nucleus, whose least semi-axis is 0.7 of its radius.
    given = {"voxel_um": VOXEL_UM, "density": (3.0, 3.0), "cell_um": 14.0}
    drawn = draw(np.random.default_rng(seed), (1, 280, 280), nucleus_um=8.0, **given)
    assert 0.1 * ndimage.distance_transform_edt(drawn == 0).max() > 0.95 * 0.7 * 4
    tiny = draw(np.random.default_rng(seed), (1, 280, 280), nucleus_um=0.5, **given)
    assert 0.1 * ndimage.distance_transform_edt(tiny == 0).max() < 0.7 * 4


def test_grains_are_hardly_longer_than_wide_and_worms_are() -> None:
    given = {"voxel_um": VOXEL_UM, "density": (0.05, 0.05), "branching": 0.0, "nucleus_um": 1.0}
    sizes = {}
    for grains in (0.0, 1.0):
        labels, _ = ndimage.label(draw(np.random.default_rng(0), (1, 300, 300), grains=grains, **given) > 0)
        boxes = ndimage.find_objects(labels)
        sizes[grains] = 0.1 * np.median([math.hypot(*(s.stop - s.start for s in box[1:])) for box in boxes])
    # A grain of 0.2 and 0.7 um at most, blended over a pixel at both ends.
    assert sizes[1.0] < math.hypot(0.9 + 0.2, 0.9 + 0.2)
    assert sizes[0.0] > 2 * sizes[1.0]


def test_branches_come_on_top() -> None:
    given = {"voxel_um": VOXEL_UM, "density": (0.1, 0.1), "grains": 0.0, "spread": 0.0}
    means = [
        np.mean([draw(np.random.default_rng(s), (1, 200, 200), branching=b, **given).mean() for s in range(6)])
        for b in (0.0, 1.0)
    ]
    # A branch has half the length of its stem in the mean; some of it is hidden by the stem.
    assert 1.25 < means[1] / means[0] < 1.55


@pytest.mark.parametrize("shape", [(1, 64, 64), (8, 48, 48)])
def test_the_same_seed_draws_the_same_mitochondria_and_another_others(shape: tuple[int, int, int]) -> None:
    first, second, other = (draw(np.random.default_rng(s), shape, voxel_um=VOXEL_UM) for s in (7, 7, 8))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width_um": (0.7, 0.3)}, "the least, then the largest"),
        ({"density": (0.7, 0.3)}, "the least, then the largest"),
        ({"grains": 1.2}, "a share"),
        ({"length_um": 0.0}, "length_um = 0.0"),
    ],
)
def test_impossible_mitochondria_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw(np.random.default_rng(0), (1, 32, 32), voxel_um=VOXEL_UM, **wrong)

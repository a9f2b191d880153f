"""The simulated tubules: bent as far as allowed, of the same mass in every direction, as dense as was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepcontrast.errors import InputError
from deepcontrast.synth._walks import SUBPIXELS, deposit, walks
from deepcontrast.synth.tubules import draw, tubules

VOXEL_UM = (0.2, 0.08, 0.08)


@pytest.mark.parametrize("space", [False, True])
def test_no_step_turns_by_more_than_the_clip(space: bool) -> None:
    made = walks(np.random.default_rng(0), 60, 300, bend=0.004, change=0.001, space=space)
    np.testing.assert_allclose(np.linalg.norm(made.directions, axis=-1), 1, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(made.normals, axis=-1), 1, atol=1e-9)
    np.testing.assert_allclose((made.directions * made.normals).sum(axis=-1), 0, atol=1e-9)
    turn = 2 * np.arcsin(np.linalg.norm(np.diff(made.directions, axis=1), axis=-1) / 2) / (2 * math.pi)
    assert turn.max() <= 0.004 * (1 + 1e-6)
    # With such changes most walks get there.
    assert (turn > 0.004 * (1 - 1e-6)).mean() > 0.3


def test_below_the_clip_the_curvature_is_a_random_walk() -> None:
    made = walks(np.random.default_rng(0), 2000, 101, bend=0.05, change=2e-4, space=False)
    angle = np.unwrap(np.arctan2(made.directions[..., 1], made.directions[..., 2]), axis=1)
    curvature = np.diff(angle, axis=1) / (2 * math.pi)
    for apart in (1, 25, 99):
        change = curvature[:, apart] - curvature[:, 0]
        unclipped = np.abs(curvature).max(axis=1) < 0.05
        assert change[unclipped].std() == pytest.approx(2e-4 * math.sqrt(apart), rel=0.06)


def test_without_changes_walks_in_the_plane_are_circles() -> None:
    made = walks(np.random.default_rng(1), 20, 500, bend=0.01, change=0.0, space=False)
    angle = np.unwrap(np.arctan2(made.directions[..., 1], made.directions[..., 2]), axis=1)
    np.testing.assert_allclose(np.diff(angle, n=2, axis=1), 0, atol=1e-9)
    assert np.ptp(made.directions[..., 0]) == 0


def test_walks_in_space_lie_along_the_planes() -> None:
    made = walks(np.random.default_rng(2), 300, 200, bend=0.003, change=3e-4, space=True)
    axial, *lateral = np.abs(made.directions).mean(axis=(0, 1))
    assert 0 < axial < 0.4 * min(lateral)
    assert lateral[0] == pytest.approx(lateral[1], rel=0.15)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.2, math.pi / 2])
@pytest.mark.parametrize("start", [(20.0, 20.0), (20.5, 20.25), (20.1, 19.7)])
def test_a_line_has_the_same_mass_per_length_at_any_angle_and_place(angle: float, start: tuple[float, float]) -> None:
    along = np.arange(0, 40, 1 / SUBPIXELS)
    points = np.column_stack([0 * along, start[0] + along * math.sin(angle), start[1] + along * math.cos(angle)])
    density = np.zeros((1, 80, 80), np.float32)
    deposit(density, points, np.full(len(along), 1 / SUBPIXELS))
    y, x = np.mgrid[:80, :80]
    place = (y - start[0]) * math.sin(angle) + (x - start[1]) * math.cos(angle)
    assert density.sum() == pytest.approx(40, rel=1e-5)
    # Not only in all: mass weighted with a Gaussian window along the line. The points end before the window does.
    window = np.exp(-0.5 * ((place - 20) / 3) ** 2)
    assert (density[0] * window).sum() == pytest.approx(3 * math.sqrt(2 * math.pi), rel=0.02)


def test_a_line_through_the_middle_of_pixels_has_1_in_them_and_in_space_too() -> None:
    along = np.arange(-5, 45, 1 / SUBPIXELS)
    middle = np.full(len(along), 4.0)
    for shape, points in (
        ((1, 9, 40), np.column_stack([middle, middle, along])),
        ((9, 9, 40), np.column_stack([middle, middle, along])),
    ):
        density = np.zeros(shape, np.float32)
        deposit(density, points, np.full(len(along), 1 / SUBPIXELS))
        np.testing.assert_allclose(density[shape[0] // 2, 4], 1, atol=1e-5)
        assert density.sum() == pytest.approx(40, rel=1e-5)


def test_a_pixel_has_the_length_of_the_line_in_it() -> None:
    along = np.arange(0, 30, 1 / SUBPIXELS)
    density = np.zeros((1, 24, 40), np.float32)
    slope = np.array([0, math.sin(0.4), math.cos(0.4)])
    deposit(density, np.array([0, 5.2, 4.3]) + along[:, None] * slope, np.full(len(along), 1 / SUBPIXELS))
    # The same line in 400 points per pixel, each as a small cloud: the triangle of linear blending, a quarter wide.
    place = np.random.default_rng(0)
    fine = np.arange(0, 30, 1 / 2000)
    cloud = place.triangular(-1, 0, 1, (len(fine), 2)) / SUBPIXELS
    points = np.array([5.2, 4.3]) + fine[:, None] * slope[1:] + cloud
    expected = np.zeros((24, 40))
    np.add.at(expected, tuple(np.rint(points).astype(int).T), 1 / 2000)
    middle = (slice(6, 14), slice(8, 26))
    assert np.abs(density[0] - expected)[middle].max() < 0.06
    assert expected[middle].max() > 0.9


def test_what_leaves_the_field_is_not_drawn_elsewhere() -> None:
    density = np.zeros((2, 5, 5), np.float32)
    deposit(density, np.array([[-3.0, 2, 2], [0, 2, -9], [0, 7, 2], [0, 2, 4.4]]), np.ones(4))
    assert density.sum() == density[0, 2, 4] > 0


@pytest.mark.parametrize(("shape", "seeds"), [((1, 200, 200), 24), ((12, 100, 100), 12)])
def test_the_field_is_as_full_as_was_asked_for(shape: tuple[int, int, int], seeds: int) -> None:
    given = {"density": (2.0, 2.0), "bundle": 1, "brightness": (1.0, 1.0), "length_um": 4.0}
    made = [draw(np.random.default_rng(s), shape, voxel_um=VOXEL_UM, **given).mean() for s in range(seeds)]
    # A tubule of mass 1 / 0.08 per um, 0.7 of its bundle long, in a pixel or, of a slice of 1 um, in a voxel.
    expected = 2.0 * 0.7 * 0.08 * (1 if shape[0] == 1 else 0.2)
    assert np.mean(made) == pytest.approx(expected, rel=0.1)


def test_bundles_are_brighter_and_wider_than_single_tubules() -> None:
    straight = {"density": (0.3, 0.3), "curvature": 1e-6, "curvature_change": 1e-6, "brightness": (1.0, 1.0)}
    shape = (1, 160, 160)
    single = [draw(np.random.default_rng(s), shape, voxel_um=VOXEL_UM, bundle=1, **straight) for s in range(6)]
    bundled = [draw(np.random.default_rng(s), shape, voxel_um=VOXEL_UM, bundle=12, **straight) for s in range(6)]
    # The mean size, of sizes as frequent as 1 / n^2, is the ratio of two sums.
    sizes = np.arange(1, 13)
    assert np.mean(bundled) / np.mean(single) == pytest.approx((1 / sizes).sum() / (1 / sizes**2).sum(), rel=0.25)
    assert np.percentile(bundled, 99.9) > 1.5 * np.percentile(single, 99.9)


def test_the_same_seed_draws_the_same_and_the_mask_marks_the_tubules() -> None:
    first, second = (draw(np.random.default_rng(7), (1, 64, 64), voxel_um=VOXEL_UM) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32
    made = tubules(shape=(1, 64, 64), seed=3, autofluorescence=0.0)
    assert made.truth[made.mask].min() > made.truth[~made.mask].max()
    # Blurred, far away there is no light; along the tubules there is.
    assert made.raw[made.mask].mean() > 150


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width_um": 0.2}, "at most a pixel"),
        ({"density": (2.0, 1.0)}, "the least, then the largest"),
        ({"brightness": (2.0, 1.0)}, "the least, then the largest"),
        ({"bundle": 0}, "bundle = 0"),
        ({"curvature": 0.0}, "curvature = 0.0"),
    ],
)
def test_impossible_tubules_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw(np.random.default_rng(0), (1, 32, 32), voxel_um=VOXEL_UM, **wrong)

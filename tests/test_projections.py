"""Surfaces that were drawn are found; the graph cut against every surface tried and against dynamic programming."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.errors import InputError
from deepcontrast.projections import Projection
from deepcontrast.projections._read_out import read_out
from deepcontrast.projections.local_z_projector import local_z_projector
from deepcontrast.projections.maximum import maximum
from deepcontrast.projections.minimum_cost_surface import cheapest_heights, minimum_cost_surface
from deepcontrast.projections.smooth_manifold import smooth_manifold

NAMES = registry.names("projections")
SURFACES = [name for name in NAMES if name != "maximum"]
Stack = NDArray[np.float32]
Plane = NDArray[np.float64]


def membranes(seed: int, shape: tuple[int, int] = (72, 80)) -> Plane:
    """Return closed lines of brightness 1 and about 3 px width on 0."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4)
    return np.asarray(np.exp(-((noise / (0.25 * noise.std())) ** 2)))


def layer(height: Plane, *, planes: int = 16, seed: int = 0, noise: float = 0.1) -> Stack:
    """Return membranes on a surface, 1.5 planes thick (standard deviation), in noise."""
    z = np.arange(planes)[:, None, None]
    clean = membranes(seed, height.shape) * np.exp(-((z - height) ** 2) / (2 * 1.5**2))
    return np.asarray(100 + 50 * (clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)), np.float32)


def salted(stack: Stack, share: float = 0.0005) -> Stack:
    """Return the stack with single voxels three times as bright above its background as the membranes."""
    hit = np.random.default_rng(9).random(stack.shape) < share
    return np.where(hit, np.float32(250), stack)


def flat(level: float = 6.0) -> Plane:
    return np.full((72, 80), level)


def tilted() -> Plane:
    return np.asarray(3 + 0.12 * np.arange(80.0) + np.zeros((72, 1)))


def project(name: str, stack: NDArray[Any], **settings: Any) -> Projection:
    projection = registry.load("projections", name)(stack, **settings)
    assert isinstance(projection, Projection)
    assert (projection.image.shape, projection.image.dtype) == (stack.shape[1:], np.float32)
    assert np.isfinite(projection.image).all()
    assert projection.height is not None
    assert (projection.height.shape, projection.height.dtype) == (stack.shape[1:], np.float32)
    assert 0 <= projection.height.min() <= projection.height.max() <= len(stack) - 1
    return projection


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_flat_layer_in_noise_is_found(name: str, dtype: type) -> None:
    stack = layer(flat()).astype(dtype)
    before = stack.copy()
    found = project(name, stack)
    assert found.height is not None
    assert abs(np.median(found.height) - 6) <= 0.5
    assert np.corrcoef(found.image.ravel(), membranes(0).ravel())[0, 1] > 0.85
    np.testing.assert_array_equal(stack, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_tilted_layer_is_found(name: str) -> None:
    found = project(name, layer(tilted()))
    assert found.height is not None
    # The maximum knows a height where there is light; elsewhere it is that of the noise.
    seen = membranes(0) > (0.5 if name == "maximum" else -1)
    assert np.median(np.abs(found.height - tilted())[seen]) <= 0.5


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_survive_single_bright_voxels(name: str) -> None:
    for height in (flat(), tilted()):
        found = project(name, salted(layer(height)))
        assert found.height is not None
        error = np.abs(found.height - height)
        assert np.median(error) <= 0.5
        assert np.percentile(error, 99) <= 2


@pytest.mark.parametrize("name", SURFACES)
def test_a_fainter_layer_above_is_left_out_that_the_maximum_shows(name: str) -> None:
    surface, above = flat(11.0), membranes(5)
    z = np.arange(16)[:, None, None]
    stack = layer(surface) + np.asarray(25 * above * np.exp(-((z - 3) ** 2) / 2), np.float32)
    # Where the layer above has membranes and the surface has none.
    ghost = (above > 0.5) & (membranes(0) < 0.05)
    dark = (above < 0.05) & (membranes(0) < 0.05)
    shown = [float(p.image[ghost].mean() - p.image[dark].mean()) for p in (maximum(stack), project(name, stack))]
    assert shown[0] > 10
    assert abs(shown[1]) < 1


@pytest.mark.parametrize("name", NAMES)
def test_one_plane_and_a_constant_stack_are_no_special_case(name: str) -> None:
    single = layer(flat(0.0), planes=1)
    np.testing.assert_array_equal(project(name, single).image, single[0])
    np.testing.assert_array_equal(project(name, np.full((5, 9, 11), 7, np.float32)).image, 7)


@pytest.mark.parametrize("name", NAMES)
def test_heights_do_not_depend_on_offset_or_unit(name: str) -> None:
    stack = layer(tilted(), noise=0.3)
    before, after = project(name, stack).height, project(name, 8 * stack + 4096).height
    np.testing.assert_allclose(before, after, atol=0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_is_accepted(name: str) -> None:
    stack = layer(tilted(), noise=0.5)
    choices = registry.module("projections", name).CHOICES
    images = {project(name, stack, **choice).image.tobytes() for choice in choices}
    assert len(images) == len(choices)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_stack_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        InputError, match=r"^a stack of shape \(4, 5\) to project; accepted: \(Z, Y, X\), none of them 0$"
    ):
        registry.load("projections", name)(np.zeros((4, 5), np.float32))
    with pytest.raises(
        InputError, match=r"^a stack to project with values that are not finite; accepted: finite values$"
    ):
        registry.load("projections", name)(np.full((3, 4, 5), np.nan, np.float32))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (smooth_manifold, {"pull": -1.0}, "pull -1.0 of the smooth manifold; accepted: 0 or more"),
        (minimum_cost_surface, {"reduce": 0}, "reduce 0, step 1"),
        (minimum_cost_surface, {"step": -1}, "step -1"),
        (local_z_projector, {"window": 0}, "window 0"),
        (local_z_projector, {"measure": "focus"}, "measure 'focus' of the local z projector; accepted: spread, mean"),
        (local_z_projector, {"thickness": -1}, "thickness -1 of a surface; accepted"),
        (smooth_manifold, {"reading": "sum"}, "reading 'sum' of a surface; accepted: maximum, mean"),
    ],
)
def test_settings_out_of_range_are_refused(
    method: Callable[..., Projection], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        method(layer(flat(), planes=8), **settings)


def test_read_out_of_a_ramp_is_the_ramp_at_the_height() -> None:
    height = np.random.default_rng(0).uniform(3, 6, (7, 9)).astype(np.float32)
    ramp = np.broadcast_to(10 * np.arange(9, dtype=np.float32)[:, None, None], (9, 7, 9))
    for thickness, offset in product((0, 1, 2), (0.0, -0.25)):
        mean = read_out(ramp, height, thickness=thickness, offset=offset, reading="mean")
        np.testing.assert_allclose(mean, 10 * (height + offset), rtol=1e-5)
        largest = read_out(ramp, height, thickness=thickness, offset=offset)
        np.testing.assert_allclose(largest, 10 * (height + offset + thickness), rtol=1e-5)


def test_read_out_goes_on_with_the_last_plane_beyond_the_stack() -> None:
    ramp = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (4, 2, 2))
    ends = np.array([[0.0, 3.0], [0.5, 2.5]], np.float32)
    np.testing.assert_allclose(read_out(ramp, ends, thickness=2), [[2, 3], [2.5, 3]])
    # Read at -1, 0, 1 and so on, where -1 is 0 and 4 is 3.
    np.testing.assert_allclose(
        read_out(ramp, ends, thickness=1, reading="mean"), [[1 / 3, 8 / 3], [(0 + 0.5 + 1.5) / 3, (1.5 + 2.5 + 3) / 3]]
    )
    np.testing.assert_allclose(read_out(ramp, ends, offset=-9.0), 0)


def cheapest_line(cost: NDArray[np.int64], step: int) -> int:
    """The least sum of costs (Z, X) along a line that changes by at most `step`, by dynamic programming."""
    planes, columns = cost.shape
    best = cost[:, 0].copy()
    for x in range(1, columns):
        best = cost[:, x] + np.array([best[max(z - step, 0) : z + step + 1].min() for z in range(planes)])
    return int(best.min())


def cost_of(heights: NDArray[np.intp], cost: NDArray[np.int64]) -> int:
    return int(np.take_along_axis(cost, heights[None], 0).sum())


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_a_row_of_columns_costs_what_dynamic_programming_finds(step: int) -> None:
    for seed in range(5):
        cost = np.random.default_rng(seed).integers(0, 100, (9, 1, 40))
        heights = cheapest_heights(cost, step)
        assert np.abs(np.diff(heights, axis=1)).max() <= step
        assert cost_of(heights, cost) == cheapest_line(cost[:, 0], step)
        turned = cheapest_heights(cost.transpose(0, 2, 1), step)
        np.testing.assert_array_equal(turned.T, heights)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_no_surface_that_is_tried_costs_less(step: int) -> None:
    for seed in range(5):
        cost = np.random.default_rng(seed).integers(0, 20, (4, 2, 3))
        tried = (np.reshape(flat_heights, (2, 3)) for flat_heights in product(range(4), repeat=6))
        allowed = (h for h in tried if all(np.abs(np.diff(h, axis=axis)).max() <= step for axis in (0, 1)))
        heights = cheapest_heights(cost, step)
        assert all(np.abs(np.diff(heights, axis=axis)).max() <= step for axis in (0, 1))
        assert cost_of(heights, cost) == min(cost_of(h, cost) for h in allowed)


def test_a_step_between_columns_is_cut_down_to_what_is_allowed() -> None:
    height = np.where(np.arange(80) < 40, 4.0, 12.0) + np.zeros((72, 1))
    stack = layer(height, noise=0.0)
    for step in (1, 4):
        found = minimum_cost_surface(stack, step=step, smooth=0.0).height
        assert found is not None
        # Between the middles of columns, 4 pixels apart, the interpolation is even.
        assert np.abs(np.diff(found, axis=1)).max() == pytest.approx(step / 4)


def test_where_nothing_is_in_focus_the_smooth_manifold_goes_on_between_what_is() -> None:
    stack, rng = layer(tilted()), np.random.default_rng(1)
    hole = np.zeros((72, 80), bool)
    hole[20:50, 25:55] = True
    stack[:, hole] = 100 + 5 * rng.standard_normal((len(stack), int(hole.sum()))).astype(np.float32)
    found = smooth_manifold(stack).height
    assert found is not None
    assert np.abs(found - tilted())[hole].max() < 1.5


def test_the_local_spread_ignores_an_even_glow_that_the_local_mean_follows() -> None:
    stack = layer(flat())
    stack[12] += 60
    heights = [local_z_projector(stack, measure=measure).height for measure in ("spread", "mean")]
    assert [np.median(h) for h in heights] == [6, 12]  # type: ignore[arg-type, call-overload]

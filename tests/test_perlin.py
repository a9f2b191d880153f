"""Gradient noise: 0 on its lattice, with the slopes, the variance and the spectrum that its definition gives."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode

from deepcontrast.errors import InputError
from deepcontrast.perlin import perlin


def noise(
    shape: tuple[int, ...], period: float | tuple[float, ...], seed: int = 0, **given: object
) -> NDArray[np.float32]:
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(perlin(shape, period, generator=generator, **given).numpy())


@pytest.mark.parametrize("shape", [(33, 41), (9, 17, 25)])
def test_the_same_generator_gives_the_same_noise_and_another_another(shape: tuple[int, ...]) -> None:
    first, second, other = (noise(shape, 8.0, seed) for seed in (3, 3, 4))
    assert first.shape == shape
    assert first.dtype == np.float32
    assert first.tobytes() == second.tobytes()
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("shape", "periods"), [((33, 41), (8, 10)), ((9, 17, 25), (4, 8, 5))])
@pytest.mark.parametrize("origin", [0, 3])
def test_it_is_zero_at_the_points_of_the_lattice(shape: tuple[int, ...], periods: tuple[int, ...], origin: int) -> None:
    field = noise(shape, periods, origin=origin)
    on = field[tuple(slice(origin % p, None, p) for p in periods)]
    assert np.abs(on).max() < 1e-5
    assert np.abs(field).max() > 0.3


@pytest.mark.parametrize("axes", [2, 3])
def test_at_the_points_of_the_lattice_its_slope_has_length_1(axes: int) -> None:
    # In periods, before the division by half the diagonal of a cell.
    field = noise((3,) * axes, 1000.0, origin=1).astype(np.float64)
    slope = [
        np.take(field, 2, k).flat[field[0].size // 2] - np.take(field, 0, k).flat[field[0].size // 2]
        for k in range(axes)
    ]
    assert 1000 * np.linalg.norm(slope) / 2 == pytest.approx(2 / math.sqrt(axes), rel=1e-2)


@pytest.mark.parametrize(("shape", "period"), [((256, 256), 6.3), ((40, 64, 64), 5.7)])
def test_mean_bounds_and_variance_follow_from_the_definition(shape: tuple[int, ...], period: float) -> None:
    field = noise(shape, period)
    axes = len(shape)
    assert np.abs(field).max() <= 1
    # A pixel is anywhere in its cell; the directions at the corners are independent, of length 1 and without mean.
    inside = (np.arange(40) + 0.5) / 40
    place = np.stack(np.meshgrid(*[inside] * axes, indexing="ij"))
    variance = 0.0
    for corner in product((0, 1), repeat=axes):
        away = np.abs(place - np.reshape(corner, (-1, *[1] * axes)))
        blend = np.prod(1 - (6 * away**5 - 15 * away**4 + 10 * away**3), axis=0)
        variance += float((blend**2 * (away**2).sum(axis=0) / axes).mean())
    assert field.var() == pytest.approx(variance / (axes / 4), rel=0.06)
    assert abs(field.mean()) < 0.02


def test_hardly_any_of_its_power_is_finer_than_half_a_period() -> None:
    field = noise((256, 256), 16.0)
    window = np.outer(np.hanning(256), np.hanning(256))
    power = np.abs(np.fft.fft2(field * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    fine = frequency > 2 / 16
    assert power[fine].sum() < 0.02 * power.sum()
    assert power[(frequency > 0.3 / 16) & (frequency < 1.5 / 16)].sum() > 0.8 * power.sum()
    finer = np.abs(np.fft.fft2(noise((256, 256), 16.0, octaves=3) * window)) ** 2
    assert finer[fine].sum() / finer.sum() > 3 * power[fine].sum() / power.sum()


def test_every_axis_has_its_period() -> None:
    slow, fast = (np.abs(np.diff(noise((200, 200), (40.0, 5.0)), axis=axis)).mean() for axis in (0, 1))
    assert fast / slow == pytest.approx(8, rel=0.15)


def test_no_pixel_is_special() -> None:
    fields = np.stack([noise((12, 12), 6.0, seed) for seed in range(600)])
    # Of 600 numbers the variance is known to 6 %; at the points of a fixed lattice it would be 0.
    deviation = fields.std(axis=0)
    assert deviation.min() > 0.75 * deviation.mean()
    assert deviation.max() < 1.25 * deviation.mean()


def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    try:
        fields = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            fields.append(noise((20, 96, 96), (1.75, 4.4, 4.4), octaves=2))
    finally:
        torch.set_num_threads(before)
    assert fields[0].tobytes() == fields[1].tobytes()


def test_no_value_returns_to_the_host() -> None:
    """Reading a fake tensor is an error."""
    with FakeTensorMode():
        field = perlin((6, 20, 30), (2.0, 5.5, 5.5), generator=torch.Generator(), octaves=2)
    assert field.shape == (6, 20, 30)


@pytest.mark.parametrize(
    ("shape", "period", "octaves", "said"),
    [
        ((8,), 4.0, 1, "two or three sizes"),
        ((8, 0), 4.0, 1, "two or three sizes"),
        ((8, 8), 0.0, 1, "one above 0"),
        ((8, 8), (4.0, -1.0), 1, "one above 0"),
        ((8, 8), (4.0, 4.0, 4.0), 1, "one per axis"),
        ((8, 8), math.nan, 1, "one above 0"),
        ((8, 8), 4.0, 0, "1 or more"),
    ],
)
def test_impossible_noise_is_refused(shape: tuple[int, ...], period: float, octaves: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        noise(shape, period, octaves=octaves)

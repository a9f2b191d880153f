"""The result in the raw's brightness: passes at whole numbers, mixtures between, no step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.brightness import Brightness, blend, match_brightness
from deepcontrast.depth import bins


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return structures (Z, Y, X) that change slowly along z, and a noisy recording of them."""
    rng = np.random.default_rng(3)
    clean = ndimage.gaussian_filter(rng.normal(size=(16, 96, 96)), (3, 2, 2))
    clean = np.maximum(clean / clean.std(), 0) * 40
    noisy = clean + 200 + rng.normal(0, 25, clean.shape)
    return clean.astype(np.float32), noisy.astype(np.float32)


def test_blend_is_the_pass_at_whole_numbers_and_a_mixture_between() -> None:
    passes = [np.full((3, 4, 4), 100 + 10.0 * k, np.float32) for k in range(4)]
    flat = Brightness(np.array([0.0]), np.ones((1, 4)))
    out = np.empty((3, 4, 4), np.float32)
    blend(np.array([1.0, 1.5, 3.0]), np.arange(3.0), flat, offset=100.0).write(dict(enumerate(passes)), out)
    np.testing.assert_allclose(out[:, 0, 0], [110, 115, 130])
    half = Brightness(np.array([0.0]), np.full((1, 4), 0.5))
    blend(np.array([1.0, 1.5, 3.0]), np.arange(3.0), half, offset=100.0).write(dict(enumerate(passes)), out)
    np.testing.assert_allclose(out[:, 0, 0], [105, 107.5, 115])


def test_blend_of_some_planes_is_a_part_of_the_whole(rng: np.random.Generator) -> None:
    passes = dict(enumerate(rng.random((4, 5, 6, 7), np.float32)))
    made = blend(
        np.array([1.0, 1.25, 1.5, 2.0, 3.0]), np.arange(5.0), Brightness(np.zeros(1), np.ones((1, 4))), offset=1
    )
    whole, part = np.empty((5, 6, 7), np.float32), np.empty((2, 6, 7), np.float32)
    made.write(passes, whole)
    assert made.needed() == [1, 2, 3]
    assert made.needed(slice(1, 3)) == [1, 2]
    made.write({k: passes[k][1:3] for k in (1, 2)}, part, slice(1, 3))
    np.testing.assert_array_equal(part, whole[1:3])


def test_brightness_of_structures_is_brought_back_to_the_raws(scene: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = scene
    depth = np.arange(16.0)
    gain = np.linspace(2, 4, 16)[:, None, None]
    passes = [noisy, (clean * gain + 200).astype(np.float32), (clean * gain**2 + 200).astype(np.float32)]
    found = match_brightness([passes], [depth], bins([depth]), [None])
    for k in (1, 2):
        for z in (3, 8, 12):
            assert found.at(z, k) == pytest.approx(float(gain[z, 0, 0]) ** -k, rel=0.1)

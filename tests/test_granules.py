"""The simulated granules: numbered one by one, of the size and share that was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.synth.granules import draw, granules

VOXEL_UM = (0.2, 0.08, 0.08)


@pytest.mark.parametrize("shape", [(1, 96, 96), (6, 48, 48)])
def test_labels_number_the_granules_of_the_density(shape: tuple[int, int, int]) -> None:
    made = granules(shape=shape, seed=1)
    assert made.labels is not None
    np.testing.assert_array_equal(made.mask, made.labels > 0)
    numbers = np.unique(made.labels)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    # Every granule hangs together, and beyond it there is at most the softer half of its rim.
    brightest = ndimage.maximum(made.truth, made.labels, numbers[1:])
    darkest = ndimage.minimum(made.truth, made.labels, numbers[1:])
    assert (darkest >= 0.5 * brightest * (1 - 1e-5)).all()
    near = ndimage.maximum_filter(np.concatenate([[0], brightest])[made.labels], [1 if n == 1 else 3 for n in shape])
    rim = (made.labels == 0) & (made.truth > 0)
    inner = tuple(slice(1, -1) if n > 1 else slice(None) for n in shape)
    assert (made.truth[inner] <= np.where(rim, near, np.inf)[inner] * (1 + 1e-5)).all()
    centres = np.array(ndimage.center_of_mass(made.mask, made.labels, numbers[1:]))
    assert centres.shape == (len(numbers) - 1, 3)


def test_granules_that_touch_nothing_are_connected_pieces() -> None:
    made = granules(shape=(1, 128, 128), seed=2)
    assert made.labels is not None
    assert made.labels.max() == ndimage.label(made.mask)[1]


def test_granules_differ_in_brightness_as_was_asked_for() -> None:
    made = granules(shape=(1, 400, 400), seed=0, spread=0.5, periods_um=(0.9,))
    assert made.labels is not None
    numbers, sizes = np.unique(made.labels[made.labels > 0], return_counts=True)
    # Of large granules the middle has the full brightness.
    brightest = ndimage.maximum(made.truth, made.labels, numbers[sizes > 12])
    assert len(brightest) > 40
    assert np.log(brightest).std() == pytest.approx(0.5, rel=0.25)


@pytest.mark.parametrize("fill", [0.02, 0.08])
def test_granules_fill_the_share_that_was_asked_for(fill: float) -> None:
    drawn = draw(np.random.default_rng(0), (1, 256, 256), voxel_um=VOXEL_UM, fill=(fill, fill), spread=0.0)
    share = (drawn >= 0.5).mean()
    # Granules of several sizes overlap a little.
    assert 0.85 * fill < share <= fill * 1.001
    assert drawn.max() == pytest.approx(1)


def test_granules_are_a_tenth_to_four_tenths_of_a_micrometre_across_and_larger_for_longer_periods() -> None:
    across = []
    for period in (0.35, 0.5, 0.75):
        drawn = draw(np.random.default_rng(1), (1, 400, 400), voxel_um=(0.2, 0.02, 0.02), periods_um=(period,))
        labels, count = ndimage.label(drawn > 0.2)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:] * 0.02**2
        across.append(float(np.median(2 * np.sqrt(areas / math.pi))))
    assert 0.08 < across[0] < across[1] < across[2] < 0.45
    assert across[2] / across[0] == pytest.approx(0.75 / 0.35, rel=0.3)


def test_the_same_seed_draws_the_same_granules_and_another_others() -> None:
    first, second, other = (draw(np.random.default_rng(s), (1, 64, 64), voxel_um=VOXEL_UM) for s in (7, 7, 8))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert first.dtype == np.float32
    assert first.min() == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fill": (0.1, 0.05)}, "the least, then the largest"),
        ({"fill": (0.1, 1.5)}, "a share"),
        ({"periods_um": (0.3, 0.0)}, "periods_um"),
        ({"spread": -1.0}, "0 or more"),
    ],
)
def test_impossible_granules_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw(np.random.default_rng(0), (1, 32, 32), voxel_um=VOXEL_UM, **wrong)

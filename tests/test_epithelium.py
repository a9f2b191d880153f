"""The simulated epithelium: a sheet where its height says, below a brighter layer that keeps its distance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.synth import Phantom
from deepcontrast.synth.epithelium import epithelium

SHAPE = (30, 96, 96)
CLEAR = 1e4
"""Photons with which noise is next to nothing."""


@pytest.fixture(scope="module")
def whole() -> Phantom:
    return epithelium(shape=SHAPE, seed=1, light=CLEAR, gain=1.0, read_noise=0.0)


@pytest.fixture(scope="module")
def alone() -> Phantom:
    """The same sheet without the second layer."""
    return epithelium(shape=SHAPE, seed=1, light=CLEAR, gain=1.0, read_noise=0.0, second_layer=0.0)


def surface(made: Phantom) -> NDArray[np.float32]:
    assert made.height is not None
    return made.height


def test_truth_mask_and_labels_are_one_plane_and_height_is_in_planes_of_raw(whole: Phantom) -> None:
    assert whole.labels is not None
    assert whole.raw.shape == SHAPE
    assert whole.truth.shape == whole.mask.shape == whole.labels.shape == (1, *SHAPE[1:])
    assert surface(whole).shape == SHAPE[1:]
    assert surface(whole).dtype == np.float32
    assert whole.optics.voxel_size == (0.8, 0.2, 0.2)
    assert whole.truth_optics is not None
    assert whole.truth_optics.voxel_size == (None, 0.2, 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_the_surface_spans_a_third_to_a_half_of_the_planes(seed: int) -> None:
    height = surface(epithelium(shape=(30, 48, 48), seed=seed))
    # Of 30 planes 29 distances.
    assert 29 / 3 - 0.01 <= np.ptp(height) <= 29 / 2 + 0.01
    assert 0 < height.min() < height.max() < 29


def test_membranes_are_brightest_where_the_height_says(alone: Phantom) -> None:
    membranes = alone.mask[0] & (alone.truth[0] > 0.2 * CLEAR)
    z = np.arange(SHAPE[0])[:, None]
    profiles = alone.raw[:, membranes].astype(np.float64) - 100 - 0.02 * CLEAR
    brightest = profiles.argmax(axis=0)
    height = surface(alone)[membranes]
    assert np.abs(brightest - height).max() < 1.5
    # The middle of the band: fainter membranes below pull it down a little.
    near = np.abs(z - height) < 3
    middle = (z * profiles * near).sum(axis=0) / (profiles * near).sum(axis=0)
    assert abs((middle - height).mean()) < 0.3


def test_truth_is_the_sheet_alone_at_its_height(whole: Phantom, alone: Phantom) -> None:
    np.testing.assert_array_equal(whole.truth, alone.truth)
    np.testing.assert_array_equal(surface(whole), surface(alone))
    # Where the surface is within a tenth of a plane, raw shows truth without any interpolation.
    nearest = np.rint(surface(alone)).astype(int)
    on_plane = np.abs(surface(alone) - nearest) < 0.1
    shown = np.take_along_axis(alone.raw, nearest[None], axis=0)[0].astype(np.float64) - 100 - 0.02 * CLEAR
    assert on_plane.sum() > 500
    assert shown[on_plane].sum() == pytest.approx(alone.truth[0][on_plane].sum(), rel=0.005)
    assert np.corrcoef(shown[on_plane], alone.truth[0][on_plane])[0, 1] > 0.999


def test_truth_does_not_depend_on_how_far_apart_the_planes_are() -> None:
    # Planes at a quarter of the distance, whose first and last lie where they did.
    coarse, fine = (
        epithelium(shape=(n, 48, 48), seed=3, voxel_um=(axial, 0.2)) for n, axial in ((30, 0.8), (117, 0.2))
    )
    np.testing.assert_allclose(4 * surface(coarse), surface(fine), rtol=1e-5)
    np.testing.assert_allclose(coarse.truth, fine.truth, atol=0.01 * 50)


def test_the_second_layer_is_several_planes_above_and_in_places_brighter(whole: Phantom, alone: Phantom) -> None:
    layer = whole.raw.astype(np.float64) - alone.raw
    z = np.arange(SHAPE[0])[:, None, None]
    assert layer.max() > 1.2 * whole.truth.max()
    # The gap of 4 um is 5 planes, less the half plane by which the brightest of them may be off.
    centre = layer.argmax(axis=0)
    there = layer.max(axis=0) > 0.2 * CLEAR
    assert (surface(whole) - centre)[there].min() > 4.4
    # At the sheet there is nothing of it, but for noise.
    near = np.abs(surface(whole) - z) < 1
    assert layer[near].mean() < 0.01 * layer.max()
    assert 0.05 < there.mean() < 0.9


def test_neither_a_maximum_nor_a_choice_of_planes_takes_the_second_layer_away(whole: Phantom, alone: Phantom) -> None:
    truth = whole.truth[0]
    maximum = whole.raw.max(axis=0).astype(np.float64)
    assert np.corrcoef(maximum.ravel(), truth.ravel())[0, 1] < 0.8
    assert np.corrcoef(alone.raw.max(axis=0).ravel(), truth.ravel())[0, 1] > 0.95
    # Seen along z the sheet begins above the lowest part of the second layer.
    layer = whole.raw.astype(np.float64) - alone.raw
    lowest = np.nonzero(layer.max(axis=(1, 2)) > 0.3 * CLEAR)[0].max()
    assert surface(whole).min() < lowest


def test_light_levels_are_exposures_of_the_same_structures_with_noise_of_their_own() -> None:
    shape = (12, 48, 48)
    bright, dim = (epithelium(shape=shape, seed=2, light=light, second_layer=0.0) for light in (40.0, 10.0))
    for name in ("labels", "height", "mask"):
        np.testing.assert_array_equal(getattr(bright, name), getattr(dim, name))
    np.testing.assert_allclose(bright.truth, 4 * dim.truth, rtol=1e-5)
    assert np.percentile(bright.truth, 99.9) == pytest.approx(40, rel=1e-5)
    clear = epithelium(shape=shape, seed=2, light=CLEAR, second_layer=0.0).raw.astype(np.float64) - 100
    noise = [made.raw - 100.0 - clear * light / CLEAR for made, light in ((bright, 40), (dim, 10))]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 4 / np.sqrt(clear.size)


def test_frames_of_a_movie_differ_in_noise_only() -> None:
    frames = [epithelium(shape=(12, 48, 48), seed=2, light=20.0, noise_seed=n) for n in range(6)]
    for name in ("truth", "labels", "height"):
        np.testing.assert_array_equal(getattr(frames[0], name), getattr(frames[1], name))
    raw = (np.stack([made.raw for made in frames]).astype(np.float64) - 100) / 2
    # The variance over frames is that of photons and of the camera, read noise 3 and rounding at 2 grey levels each.
    expected = raw.mean() + (3 / 2) ** 2 + 1 / 48
    assert raw.var(axis=0, ddof=1).mean() == pytest.approx(expected, rel=0.02)
    # Differences of independent frames from the mean of 6 have a correlation of -1 / 5.
    noise = raw - raw.mean(axis=0)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] + 1 / 5) < 4 / np.sqrt(noise[0].size)


def test_the_mean_of_raw_is_the_photons_of_the_sheet() -> None:
    made = [epithelium(shape=(12, 48, 48), seed=2, light=light, second_layer=0.0) for light in (CLEAR, 10.0)]
    clear, noisy = ((m.raw.astype(np.float64) - 100) / 2 / light for m, light in zip(made, (CLEAR, 10.0), strict=True))
    # The difference of the means is noise: of photons and of the camera, in units of light.
    sigma = np.sqrt((10 * clear + (3 / 2) ** 2).sum()) / 10 / clear.size
    assert abs((noisy - clear).mean()) < 4 * sigma


def test_cells_have_the_size_that_was_asked_for_and_membranes_between_them(alone: Phantom) -> None:
    assert alone.labels is not None
    numbers = alone.labels[0]
    np.testing.assert_array_equal(alone.mask[0], numbers == 0)
    inner = np.setdiff1d(numbers, np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1], [0]]))
    assert len(inner) > 5
    # A hexagonal cell of neighbours at distance d has an area of sqrt(3) / 2 d^2, here less its part of membranes.
    area = np.sqrt(3) / 2 * (4.5 / 0.2) ** 2
    share = (numbers > 0).mean()
    assert np.bincount(numbers.ravel())[inner].mean() == pytest.approx(area * share, rel=0.15)
    # No two cells touch: what hangs together has one number.
    apart, count = ndimage.label(numbers > 0)
    assert all(len(np.unique(numbers[apart == n])) == 1 for n in range(1, count + 1))


def test_membranes_differ_in_brightness(alone: Phantom) -> None:
    values = alone.truth[0][alone.mask[0]]
    assert np.percentile(values, 90) > 1.8 * np.percentile(values, 10)
    assert values.mean() > 5 * np.median(alone.truth[0][~alone.mask[0]])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"second_layer": -1.0}, "second_layer = -1.0 .*0 or more"),
        ({"voxel_um": (0.8, 0.0)}, "voxel_um"),
        ({"cell_um": 0.0}, "cell_um = 0.0"),
        ({"noise_seed": -1}, "noise_seed = -1"),
    ],
)
def test_impossible_epithelia_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        epithelium(**{"shape": (4, 16, 16), **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)

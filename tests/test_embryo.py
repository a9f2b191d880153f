"""The simulated embryo: crowded and without a direction in truth, smeared along z in raw, its planes in place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.metrics.error import error
from deepcontrast.synth import Phantom
from deepcontrast.synth.embryo import _packed, embryo, plane_positions

SHAPE = (12, 64, 64)


@pytest.fixture(scope="module")
def crowd() -> Phantom:
    return embryo(shape=SHAPE, seed=1)


def photons(made: Phantom, light: float) -> NDArray[np.float64]:
    """Return what the camera counted, without its background."""
    return (made.raw.astype(np.float64) - 100) / 2 - 0.02 * light


@pytest.mark.parametrize("undersampling", [1.0, 4.3, 10.2])
def test_truth_is_isotropic_and_raw_has_its_planes_farther_apart(undersampling: float) -> None:
    made = embryo(shape=(5, 24, 32), undersampling=undersampling, gain=3.0, offset=200.0, read_noise=4.0)
    assert made.raw.shape == (5, 24, 32)
    assert made.labels is not None
    assert made.truth.shape == made.mask.shape == made.labels.shape == (round(5 * undersampling), 24, 32)
    assert made.optics.voxel_size == pytest.approx((0.4 * undersampling, 0.4, 0.4))
    assert (made.optics.gain, made.optics.offset, made.optics.read_noise) == (3.0, 200.0, 4.0)
    assert made.truth_optics is not None
    assert made.truth_optics.voxel_size == (0.4, 0.4, 0.4)
    np.testing.assert_array_equal(made.mask, made.labels > 0)


def test_positions_of_planes() -> None:
    np.testing.assert_allclose(plane_positions(3, 5.0), [2, 7, 12])
    # 17.2 is rounded to 17 planes, whose middle is 8.
    np.testing.assert_allclose(plane_positions(4, 4.3), [1.55, 5.85, 10.15, 14.45])


@pytest.mark.parametrize("undersampling", [4.3, 5.0])
def test_raw_planes_lie_where_the_formula_says(undersampling: float) -> None:
    made = embryo(shape=(7, 48, 48), seed=2, light=1e4, undersampling=undersampling, read_noise=0.0)
    # The widths of Gaussians add in squares: this makes truth as blurred along z as raw is.
    blurred = ndimage.gaussian_filter1d(made.truth, np.sqrt(0.9**2 - 0.28**2) / 0.4, axis=0)
    for j, plane in enumerate(photons(made, 1e4)[1:-1], 1):
        expected = (j - 3) * undersampling + (len(blurred) - 1) / 2
        tried = expected + np.linspace(-2, 2, 41)
        # The sum of squares is more exact than a correlation, as no brightness is free.
        errors = [np.square(ndimage.shift(blurred, (-z, 0, 0), order=1)[0] - plane).mean() for z in tried]
        assert tried[int(np.argmin(errors))] == pytest.approx(expected, abs=0.15)


def test_the_mean_of_raw_is_the_photons_of_truth() -> None:
    made = embryo(shape=(10, 64, 64), seed=3, undersampling=1.0, psf_um=(0.28, 0.28), light=20.0)
    error_of_photons = photons(made, 20.0) - made.truth
    noise = np.sqrt(made.truth + 0.02 * 20 + (3 / 2) ** 2 + 1 / 48)
    assert abs(error_of_photons.mean()) < 4 * noise.mean() / np.sqrt(error_of_photons.size)
    assert np.std(error_of_photons / noise) == pytest.approx(1, rel=0.02)


def test_another_light_shows_the_same_nuclei_with_noise_of_its_own() -> None:
    lights = (40.0, 20.0)
    bright, dim = (
        embryo(shape=(6, 48, 48), seed=4, light=light, undersampling=1.0, psf_um=(0.28, 0.28)) for light in lights
    )
    np.testing.assert_array_equal(bright.labels, dim.labels)
    np.testing.assert_allclose(bright.truth, 2 * dim.truth, rtol=1e-5)
    noise = [photons(made, light) - made.truth for made, light in zip((bright, dim), lights, strict=True)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 4 / np.sqrt(noise[0].size)


def axial_and_lateral(volume: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the power along z and along y and x, in five bands of frequency up to half of Nyquist."""
    power = []
    for axis in range(3):
        lines = np.moveaxis(volume, axis, -1) * np.hanning(volume.shape[axis])
        spectrum = np.square(np.abs(np.fft.rfft(lines - lines.mean(axis=-1, keepdims=True)))).mean(axis=(0, 1))
        power.append([band.sum() for band in np.array_split(spectrum[1 : len(spectrum) // 2], 5)])
    return np.array(power[0]), np.mean(power[1:], axis=0)


def test_truth_has_no_preferred_direction_and_raw_has() -> None:
    seen = [embryo(shape=(16, 80, 80), seed=seed, light=1e4) for seed in (1, 2)]
    axial, lateral = np.mean([axial_and_lateral(made.truth) for made in seen], axis=0)
    np.testing.assert_allclose(axial, lateral, rtol=0.1)
    axial, lateral = np.mean([axial_and_lateral(interpolated(made)) for made in seen], axis=0)
    assert axial[2] < 0.3 * lateral[2]


def test_nuclei_are_a_random_packing_without_lattice_or_direction() -> None:
    box = np.array([60.0, 60.0, 60.0])
    radii = np.full(220, 5.0)
    centres = _packed(np.random.default_rng(0), box, radii)
    away = centres[:, None] - centres
    away -= box * np.rint(away / box)
    distance = np.linalg.norm(away, axis=-1)
    first = distance < 11
    np.fill_diagonal(first, False)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 0.9 * 10
    # Of evenly distributed directions every axis has a third of the squared length.
    shares = np.square(away[first] / distance[first][:, None]).mean(axis=0)
    np.testing.assert_allclose(shares, 1 / 3, atol=4 * np.sqrt(4 / 45 / (first.sum() / 2)))


def interpolated(made: Phantom) -> NDArray[np.float32]:
    """Return raw on truth's grid, linearly between its planes."""
    planes = plane_positions(len(made.raw), 5.0)
    z = np.interp(np.arange(len(made.truth)), planes, np.arange(len(planes)))
    places = np.meshgrid(z, *map(np.arange, made.raw.shape[1:]), indexing="ij")
    return ndimage.map_coordinates(made.raw.astype(np.float32), places, order=1)


def test_one_threshold_tells_nuclei_apart_in_truth_and_not_in_interpolated_raw(crowd: Phantom) -> None:
    assert crowd.labels is not None
    of_truth, of_raw = (error(volume, crowd.labels)[0].value for volume in (crowd.truth, interpolated(crowd)))
    assert of_truth is not None
    assert of_raw is not None
    assert of_truth < 0.1
    assert of_raw > 0.4


def test_nuclei_have_the_size_that_was_asked_for() -> None:
    made = embryo(shape=(80, 80, 80), seed=5, undersampling=1.0, radius_um=2.2)
    assert made.labels is not None
    outer = made.labels.copy()
    outer[1:-1, 1:-1, 1:-1] = 0
    inner = np.setdiff1d(made.labels, outer)
    assert len(inner) > 50
    volumes = np.bincount(made.labels.ravel())[inner]
    assert np.cbrt(volumes.mean() / (4 / 3 * np.pi)) * 0.4 == pytest.approx(2.2, rel=0.1)


def test_borders_look_like_the_middle() -> None:
    filled = np.mean([embryo(shape=(40, 40, 40), seed=seed, undersampling=1.0).mask for seed in range(4)], axis=0)
    inner = filled[8:-8, 8:-8, 8:-8].mean()
    faces = np.mean([np.take(filled, face, axis) for axis in range(3) for face in (0, -1)])
    # Without nuclei whose middles lie beyond a face it would be half as full.
    assert faces == pytest.approx(inner, rel=0.25)


def test_the_envelope_is_a_shell_around_the_same_nuclei(crowd: Phantom) -> None:
    shell = embryo(shape=SHAPE, seed=1, stain="envelope")
    np.testing.assert_array_equal(shell.labels, crowd.labels)
    inside = np.pad(crowd.mask, 1, mode="edge")
    depth = (ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside))[1:-1, 1:-1, 1:-1]
    core, rim, outside = depth > 4, np.abs(depth) < 1.5, depth < -4
    assert shell.truth[rim].mean() > 3 * shell.truth[core].mean()
    assert shell.truth[rim].mean() > 3 * shell.truth[outside].mean()
    assert crowd.truth[core].mean() > 1.5 * crowd.truth[rim].mean()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"undersampling": 0.9}, "undersampling = 0.9 .*accepted: 1 or more"),
        ({"undersampling": float("inf")}, "accepted: 1 or more"),
        ({"crowding": 0.7}, "crowding = 0.7 .*accepted: below 0.64"),
        ({"stain": "envelop"}, "accepted: nuclei, envelope; did you mean 'envelope'"),
        ({"radius_um": 0.0}, "radius_um = 0.0"),
    ],
)
def test_impossible_embryos_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        embryo(**{"shape": (4, 16, 16), **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)

"""Point-spread functions against closed forms: widths, zeros, energy, symmetry; and what is no PSF."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import j1

from deepcontrast.errors import InputError
from deepcontrast.psf import (
    aberrated,
    check_psf,
    confocal,
    light_sheet,
    nyquist,
    sheet_width,
    support,
    two_photon,
    widefield,
    zernike,
)

WAVE = 0.5
OPTICS = [(0.3, 1.0), (0.8, 1.33), (1.3, 1.45), (1.4, 1.515)]


def axial_unit(na: float, index: float) -> float:
    return float(WAVE / (index - np.sqrt(index**2 - na**2)))


def fwhm(curve: NDArray[np.float32], step: float) -> float:
    middle = len(curve) // 2
    side = curve[middle:] / curve[middle]
    first = int(np.argmax(side < 0.5))
    return float(2 * step * (first - (0.5 - side[first]) / (side[first - 1] - side[first])))


@pytest.mark.parametrize(("na", "index"), OPTICS)
def test_axial_width_is_that_of_the_sinc_of_the_aperture(na: float, index: float) -> None:
    unit = axial_unit(na, index)
    spot = widefield((81, 1, 1), na=na, wavelength_um=WAVE, index=index, voxel_um=(unit / 30, 1e-3, 1e-3))
    assert fwhm(spot[:, 0, 0], unit / 30) == pytest.approx(0.886 * unit, rel=2e-3)
    # On the axis the pupil is uniform in cos t: sinc squared, its zeros at whole units.
    assert spot[40 + 30, 0, 0] < 2e-3 * spot[40, 0, 0]


def test_lateral_profile_of_a_low_aperture_is_the_airy_pattern() -> None:
    na, step = 0.1, 0.05 * WAVE / 0.1
    spot = widefield((1, 1, 81), na=na, wavelength_um=WAVE, index=1.0, voxel_um=(1e-3, 1e-6, step))[0, 0]
    v = 2 * np.pi * na / WAVE * step * (np.arange(81) - 40 + 1e-9)
    np.testing.assert_allclose(spot / spot[40], (2 * j1(v) / v) ** 2, atol=5e-3)
    assert fwhm(spot, step) == pytest.approx(0.514 * WAVE / na, rel=0.01)


def test_widefield_sends_the_same_energy_through_every_plane_and_confocal_does_not() -> None:
    optics = {"na": 0.8, "index": 1.33, "voxel_um": (0.5, 0.15, 0.15)}
    energy = widefield((9, 141, 141), wavelength_um=WAVE, **optics).sum(axis=(1, 2))
    np.testing.assert_allclose(energy, 1 / 9, rtol=0.01)
    sectioned = confocal((9, 61, 61), excitation_um=WAVE, emission_um=WAVE, **optics).sum(axis=(1, 2))
    assert sectioned[0] < 0.15 * sectioned[4]


def test_a_point_pinhole_squares_the_spot_and_an_open_one_leaves_the_excitation() -> None:
    optics = {"na": 1.3, "index": 1.45, "voxel_um": (0.05, 0.01, 0.01)}
    shape = (9, 41, 41)
    spot = widefield(shape, wavelength_um=WAVE, **optics).astype(float)
    excited = {"excitation_um": WAVE, "emission_um": WAVE, **optics}
    closed = confocal(shape, pinhole=0.0, **excited)
    np.testing.assert_allclose(closed / closed.max(), (spot / spot.max()) ** 2, atol=2e-3)
    # Light out of focus by a little still falls through a pinhole of five Airy units.
    opened = confocal(shape, pinhole=5.0, **excited)
    np.testing.assert_allclose(opened / opened.max(), spot / spot.max(), atol=0.03)
    widths = [fwhm(confocal(shape, pinhole=p, **excited)[4, 20], 0.01) for p in (0.0, 0.3, 0.6, 0.9)]
    assert widths == sorted(widths)


def test_wavelengths_of_excitation_and_emission_both_widen_the_confocal_spot() -> None:
    optics = {"na": 1.3, "index": 1.45, "voxel_um": (0.3, 0.02, 0.02), "pinhole": 0.5}

    def width(excitation: float, emission: float) -> float:
        return fwhm(confocal((1, 1, 41), excitation_um=excitation, emission_um=emission, **optics)[0, 0], 0.02)

    assert width(0.488, 0.52) < min(width(0.56, 0.52), width(0.488, 0.6))


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 11, 3)])
def test_spots_are_centred_symmetric_and_sum_to_one(shape: tuple[int, int, int]) -> None:
    optics = {"na": 1.3, "index": 1.45, "voxel_um": (0.3, 0.2, 0.2)}
    for spot in (
        widefield(shape, wavelength_um=0.52, **optics),
        confocal(shape, excitation_um=0.488, emission_um=0.52, **optics),
    ):
        assert (spot.shape, spot.dtype) == (shape, np.float32)
        assert spot.sum(dtype=float) == pytest.approx(1, rel=1e-5)
        assert np.unravel_index(spot.argmax(), shape) == tuple(n // 2 for n in shape)
        assert spot.min() >= 0
        for axis in range(3):
            np.testing.assert_array_equal(spot, np.flip(spot, axis))


def test_coarse_voxels_hold_the_sums_of_the_fine_ones_inside_them() -> None:
    optics = {"na": 1.3, "wavelength_um": WAVE, "index": 1.45}
    fine = widefield((9, 27, 27), voxel_um=(0.1, 0.1, 0.1), **optics)
    coarse = widefield((3, 9, 9), voxel_um=(0.3, 0.3, 0.3), **optics)
    np.testing.assert_allclose(coarse, fine.reshape(3, 3, 9, 3, 9, 3).sum(axis=(1, 3, 5)), atol=1e-3)


@pytest.mark.parametrize("photons", [1, 2])
def test_a_spectrum_ends_at_twice_the_aperture_over_the_wavelength(photons: int) -> None:
    na, step = 0.8, WAVE / 0.8 / 16
    optics = {"na": na, "index": 1.33, "voxel_um": (1e-3, step, step)}
    if photons == 1:
        spot = widefield((1, 255, 255), wavelength_um=WAVE, **optics)
    else:
        spot = two_photon((1, 255, 255), excitation_um=WAVE, **optics)
    window = np.hanning(257)[1:-1]
    power = np.abs(np.fft.rfft2(spot[0] * window[:, None] * window))[0]
    frequency = np.fft.rfftfreq(255, step)
    end = photons * 2 * na / WAVE
    assert power[frequency > 1.05 * end].max() < 1e-5 * power[0]
    assert power[frequency < 0.9 * end].min() > 1e-4 * power[0]


def test_two_photons_narrow_the_spot_of_their_wavelength_by_the_root_of_two() -> None:
    unit, step = axial_unit(0.3, 1.0), 0.02 * WAVE / 0.3
    across = {"na": 0.3, "index": 1.0, "voxel_um": (1e-3, 1e-3, step)}
    along = {"na": 0.3, "index": 1.0, "voxel_um": (unit / 30, 1e-3, 1e-3)}
    for shape, optics, size in (((1, 1, 81), across, step), ((81, 1, 1), along, unit / 30)):
        once = widefield(shape, wavelength_um=WAVE, **optics)  # type: ignore[arg-type]
        twice = two_photon(shape, excitation_um=WAVE, **optics)  # type: ignore[arg-type]
        ratio = fwhm(once.ravel(), size) / fwhm(twice.ravel(), size)
        # A Gaussian's is the root of 2; a sinc squared and an Airy disc are within 3 % of it.
        assert ratio == pytest.approx(np.sqrt(2), rel=0.03)
        np.testing.assert_allclose(twice / twice.max(), (once / once.max()) ** 2, atol=2e-3)


def test_a_light_sheet_is_detection_times_a_gaussian_of_its_thickness() -> None:
    optics = {"na": 0.8, "wavelength_um": WAVE, "index": 1.33, "voxel_um": (0.02, 0.1, 0.1)}
    z = 0.02 * (np.arange(101) - 50)
    detection = widefield((101, 5, 5), **optics)  # type: ignore[arg-type]
    expected = detection * np.exp(-np.log(2) * (z / 0.4) ** 2)[:, None, None]
    spot = light_sheet((101, 5, 5), sheet_um=0.8, **optics)  # type: ignore[arg-type]
    np.testing.assert_allclose(spot, expected / expected.sum(), atol=1e-3 * spot.max())
    wave = aberrated((101, 5, 5), sheet_um=0.8, aberrations={}, **optics)  # type: ignore[arg-type]
    np.testing.assert_allclose(wave, spot, atol=1e-4 * spot.max())
    squared = aberrated((101, 5, 5), photons=2, aberrations={}, **optics)  # type: ignore[arg-type]
    laser = {**{k: v for k, v in optics.items() if k != "wavelength_um"}, "excitation_um": WAVE}
    np.testing.assert_allclose(squared, two_photon((101, 5, 5), **laser), atol=1e-4 * squared.max())  # type: ignore[arg-type]


def test_the_waist_of_a_gaussian_beam_of_small_aperture_is_as_thick_as_that_of_optics() -> None:
    assert sheet_width(na=0.1, wavelength_um=0.488) == pytest.approx(0.375 * 0.488 / 0.1, rel=2e-3)


def test_limits_of_nyquist_are_half_a_period_of_the_band() -> None:
    axial, lateral = nyquist(na=1.4, wavelength_um=0.52, index=1.515)
    assert lateral == pytest.approx(0.52 / (4 * 1.4))
    assert axial == pytest.approx(0.52 / (2 * (1.515 - np.sqrt(1.515**2 - 1.4**2))))


OIL = {"na": 1.2, "wavelength_um": WAVE, "index": 1.515, "voxel_um": (0.1, 0.05, 0.05)}


def test_depth_in_a_sample_of_the_same_index_changes_nothing() -> None:
    shallow = widefield((9, 15, 15), **OIL)  # type: ignore[arg-type]
    for centre in ("brightest", "nominal"):
        deep = widefield((9, 15, 15), sample_index=1.515, depth_um=40.0, centre=centre, **OIL)  # type: ignore[arg-type]
        np.testing.assert_allclose(deep, shallow, atol=1e-5 * shallow.max())
    surface = widefield((9, 15, 15), sample_index=1.33, depth_um=0.0, **OIL)  # type: ignore[arg-type]
    np.testing.assert_allclose(surface, shallow, atol=1e-5 * shallow.max())


def test_mismatch_is_the_wave_whose_zernike_polynomials_are_those_of_gibson_and_lanni() -> None:
    depth, sample, na, index = 4.0, 1.33, 1.2, 1.515
    nodes, weights = np.polynomial.legendre.leggauss(64)
    rho, weights = (1 + nodes) / 2, weights * (1 + nodes) / 2
    sines = (na * rho) ** 2
    longer = depth * (np.sqrt(sample**2 - sines) - index / sample * np.sqrt(index**2 - sines))
    # The wave is behind where the path is longer.
    lead = -2 * np.pi / WAVE * weights * longer
    amounts = {j: float((lead * zernike(j, rho, 0 * rho)).sum()) for j in (4, 12, 24, 40, 60, 84)}
    spot = widefield((61, 9, 9), sample_index=sample, depth_um=depth, centre="nominal", **OIL)  # type: ignore[arg-type]
    expected = aberrated((61, 9, 9), aberrations=amounts, **OIL)  # type: ignore[arg-type]
    np.testing.assert_allclose(spot, expected, atol=2e-3 * expected.max())


@pytest.mark.parametrize(("sample", "depth", "sign"), [(1.33, 4.0, 1), (1.6, 16.0, -1)])
def test_the_brightest_focus_lies_where_rays_of_high_aperture_meet(sample: float, depth: float, sign: int) -> None:
    optics = {**OIL, "voxel_um": (0.05, 0.02, 0.02), "sample_index": sample, "depth_um": depth}
    nominal = widefield((201, 1, 1), centre="nominal", **optics)[:, 0, 0]  # type: ignore[arg-type]
    moved = int(nominal.argmax()) - 100
    assert sign * moved * 0.05 > 0.2
    brightest = widefield((201, 1, 1), **optics)[:, 0, 0]  # type: ignore[arg-type]
    assert brightest.argmax() == 100
    # The same curve, but for a part of a voxel.
    near = np.arange(-20, 21)
    np.testing.assert_allclose(brightest[100 + near], nominal[100 + moved + near], atol=0.1 * nominal.max())


def test_depth_widens_the_spot_along_the_axis() -> None:
    curves = [
        widefield((161, 1, 1), sample_index=1.33, depth_um=depth, **OIL)[:, 0, 0]  # type: ignore[arg-type]
        for depth in (0.0, 4.0, 12.0)
    ]
    assert all(curve.argmax() == 80 for curve in curves)
    widths = [fwhm(curve, 0.1) for curve in curves]
    assert widths == sorted(widths)
    assert widths[2] > 1.5 * widths[0]


def test_an_aperture_above_the_index_of_the_sample_is_cut_there() -> None:
    optics = {"wavelength_um": WAVE, "index": 1.515, "voxel_um": (0.1, 0.05, 0.05), "sample_index": 1.33}
    wide, cut = (widefield((9, 15, 15), na=na, depth_um=1.0, **optics) for na in (1.49, 1.33))
    np.testing.assert_allclose(wide, cut, atol=1e-6 * cut.max())


@pytest.mark.parametrize(("na", "index"), OPTICS[1:3])
def test_support_holds_nearly_all_light_of_a_confocal_spot(na: float, index: float) -> None:
    voxel = (0.4, 0.3, 0.3)
    shape = support(na=na, wavelength_um=0.52, index=index, voxel_um=voxel)
    assert all(n % 2 for n in shape)
    larger = tuple(2 * n + 1 for n in shape)
    spot = confocal(larger, na=na, excitation_um=0.488, emission_um=0.52, index=index, voxel_um=voxel)
    inside = tuple(slice((big - n) // 2, (big + n) // 2) for big, n in zip(larger, shape, strict=True))
    assert spot[inside].sum() > 0.95


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"na": 1.5}, "below the index"),
        ({"na": 0.0}, "below the index"),
        ({"wavelength_um": 520.0}, "0.52 for 520 nm"),
        ({"voxel_um": (0.3, 0.0, 0.3)}, "lengths above 0"),
        ({"voxel_um": (0.3, float("nan"), 0.3)}, "lengths above 0"),
        ({"shape": (5, 8, 9)}, "three odd sizes"),
        ({"index": float("inf")}, "accepted: 1"),
        ({"sample_index": 0.5, "depth_um": 1.0}, "index 0.5 of the sample"),
        ({"sample_index": 1.33, "depth_um": -1.0}, "depth -1.0 um"),
        ({"sample_index": 1.33, "depth_um": 1e6}, "waves out"),
        ({"voxel_um": (300.0, 65.0, 65.0)}, "accepted: micrometres"),
        ({"centre": "middle"}, "accepted: brightest, nominal"),
    ],
)
def test_optics_that_cannot_be_are_refused_in_one_line(wrong: dict[str, object], message: str) -> None:
    given = {"shape": (5, 9, 9), "na": 1.3, "wavelength_um": 0.52, "index": 1.45, "voxel_um": (0.3, 0.3, 0.3)}
    with pytest.raises(InputError, match=message) as error:
        widefield(**{**given, **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_negative_pinhole_is_refused() -> None:
    optics = {"na": 1.3, "excitation_um": 0.488, "emission_um": 0.52, "index": 1.45, "voxel_um": (0.3, 0.3, 0.3)}
    with pytest.raises(InputError, match="pinhole"):
        confocal((5, 9, 9), pinhole=-1.0, **optics)  # type: ignore[arg-type]


def test_a_measured_psf_is_centred_cut_to_odd_sizes_and_scaled() -> None:
    z, y, x = np.indices((12, 16, 20), dtype=float)
    bead = 300 * np.exp(-((z - 5) ** 2 + (y - 9) ** 2 + (x - 8) ** 2) / 8) - 0.1
    spot = check_psf(bead)
    assert spot.shape == (11, 13, 17)
    assert spot.sum(dtype=float) == pytest.approx(1, rel=1e-5)
    assert np.unravel_index(spot.argmax(), spot.shape) == (5, 6, 8)
    assert spot.min() == 0
    assert check_psf(bead[5]).shape == (1, 13, 17)


def test_a_theoretical_psf_passes_the_check_unchanged() -> None:
    spot = widefield((7, 9, 9), na=0.8, wavelength_um=0.52, index=1.33, voxel_um=(0.5, 0.2, 0.2))
    np.testing.assert_allclose(check_psf(spot), spot, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.full((3, 5, 5), np.nan), "75 of 75 values of the PSF are NaN"),
        (np.where(np.arange(9) == 4, np.inf, 1.0).reshape(3, 3), "1 of 9 values"),
        (np.zeros((3, 5, 5)), "add up to 0"),
        (np.full((3, 5, 5), -1.0), "add up to -75"),
        (np.ones(5), r"shape \(5,\)"),
        (np.ones((0, 5, 5)), r"shape \(0, 5, 5\)"),
    ],
)
def test_what_is_no_psf_is_refused_in_one_line(wrong: NDArray[np.float64], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_psf(wrong)
    assert "\n" not in str(error.value)

"""The axial blur on top of the lateral one, from spectra and from point-spread functions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.axial_blur import Spectra, estimated, gaussian, of_psf, width_of
from deepcontrast.errors import InputError
from deepcontrast.psf import confocal, of_bead, support


def seen(sigma: float, factor: float, noise: float, seed: int = 0) -> np.ndarray:
    """Return a random texture without preferred direction, blurred along z and sampled at every ``factor``-th pixel."""
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.standard_normal((160, 72, 72)), 1.2, mode="wrap")
    fine /= fine.std()
    blurred = ndimage.gaussian_filter1d(fine, sigma, axis=0) if sigma else fine
    at = np.arange(2, 158, factor)
    planes = ndimage.map_coordinates(blurred, np.meshgrid(at, *[np.arange(72)] * 2, indexing="ij"), order=3)
    return planes + noise * rng.standard_normal(planes.shape)


@pytest.mark.parametrize(("sigma", "factor", "noise"), [(3.0, 5.0, 0.1), (1.5, 4.3, 0.3), (0.0, 4.0, 0.1)])
def test_the_blur_of_a_texture_is_found(sigma: float, factor: float, noise: float) -> None:
    found, spectra = estimated([seen(sigma, factor, noise)], factor)
    assert found == pytest.approx(sigma, abs=max(0.3, 0.1 * sigma))
    assert spectra is not None
    assert spectra.misfit < 0.2
    assert Spectra.decode(spectra.encode()) == spectra


def test_what_shows_no_blur_is_not_given_one() -> None:
    rng = np.random.default_rng(0)
    found, spectra = estimated([rng.standard_normal((20, 40, 40))], 5.0)
    assert spectra is None
    # The standard deviation of a box of one plane's width.
    assert found == pytest.approx(5 / np.sqrt(12))


def gaussian_psf(axial: float, lateral: float, step: float) -> np.ndarray:
    z = np.arange(-30, 31)[:, None, None] * step
    y, x = np.meshgrid(*[np.arange(-10, 11) * 0.1] * 2, indexing="ij")
    return np.exp(-(z**2) / (2 * axial**2) - (y**2 + x**2) / (2 * lateral**2))


@pytest.mark.parametrize("step", [0.1, 0.15])
def test_of_a_gaussian_psf_it_is_the_gaussian_of_the_difference_of_variances(step: float) -> None:
    kernel = of_psf(gaussian_psf(0.8, 0.25, step), (step, 0.1, 0.1), 0.1)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert width_of(kernel) == pytest.approx(np.sqrt(8**2 - 2.5**2), rel=0.03)
    middle = kernel[:, kernel.shape[1] // 2]
    expected = gaussian(np.sqrt(8**2 - 2.5**2))[:, 0]
    half = min(len(middle), len(expected)) // 2
    ours, theirs = (k[len(k) // 2 - half : len(k) // 2 + half + 1] for k in (middle, expected))
    np.testing.assert_allclose(ours, theirs, atol=0.05 * theirs.max())


def test_under_a_confocal_psf_a_blurred_plane_has_the_transfer_function_of_an_axial_section() -> None:
    um = {"na": 0.8, "index": 1.33, "voxel_um": (0.15, 0.15, 0.15)}
    shape = support(wavelength_um=0.52, **um)
    psf = confocal(shape, excitation_um=0.52, emission_um=0.52, **um)

    def transfer(section: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.fft2(section, (128, 128)))[:12, :24]

    # Sections through the middle of frequency space: those of the sums along y, and along z.
    made = transfer(of_psf(psf, um["voxel_um"], 0.15)) * transfer(psf.sum(0))
    np.testing.assert_allclose(made, transfer(psf.sum(1)), atol=0.02)


def test_a_spot_of_one_pixel_is_centred() -> None:
    spot = np.zeros((17, 5, 5))
    spot[:, 2, 2] = np.exp(-(np.arange(-8, 9) ** 2) / 8)
    assert width_of(of_psf(spot, (1, 1, 1), 1)) == pytest.approx(2, rel=0.02)


def test_the_image_of_a_bead_gives_its_spot() -> None:
    spot = 3e5 * ndimage.gaussian_filter(np.pad(np.ones((1, 1, 1)), ((30, 30), (40, 40), (40, 40))), (4, 1.5, 1.5))
    bead = np.random.default_rng(0).poisson(spot + 100).astype(np.uint16)
    voxel = (1.0, 1.0, 1.0)
    assert width_of(of_psf(of_bead(bead), voxel, 1.0)) == pytest.approx(np.sqrt(4**2 - 1.5**2), rel=0.1)
    # As it is, the noise of the background is as bright as the spot.
    assert width_of(of_psf(bead - 100.0, voxel, 1.0)) > 6
    # A point-spread function without background or noise stays what it is.
    np.testing.assert_allclose(of_bead(spot), np.where(of_bead(spot) > 0, spot, 0), rtol=1e-9)
    assert of_bead(spot).sum() == pytest.approx(spot.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("psf", "voxel", "words"),
    [
        (np.full((5, 5, 5), np.nan), (0.1, 0.1, 0.1), "NaN"),
        (np.ones((1, 5, 5)), (0.1, 0.1, 0.1), "1 planes"),
        (gaussian_psf(0.8, 0.25, 0.1), (0.1, 0.3, 0.3), "as fine or finer"),
    ],
)
def test_what_is_no_psf_of_the_image_is_refused(psf: np.ndarray, voxel: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        of_psf(psf, voxel, 0.1)

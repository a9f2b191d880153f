"""Point-spread functions from images of beads: centred, averaged, without background; what is no bead is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.psf import fwhm, measured

BEAD = Path(__file__).parents[2] / "shared" / "data" / "widefield" / "psf_bead.tif"
WIDTHS = np.array([3.0, 1.5, 1.7])
"""Standard deviations of the Gaussian that stands for a spot here, in voxels."""
FWHM = 2 * np.sqrt(2 * np.log(2)) * WIDTHS


def beads(
    shape: tuple[int, int, int], places: Sequence[Sequence[float]], height: float = 3000.0, background: float = 100.0
) -> NDArray[np.float64]:
    image = np.full(shape, background)
    axes = np.indices(shape, dtype=float)
    for place in places:
        distance = (axes - np.reshape(place, (3, 1, 1, 1))) / WIDTHS.reshape(3, 1, 1, 1)
        image += height * np.exp(-(distance**2).sum(axis=0) / 2)
    return image


FIELD = [(20.3, 20.4, 20.2), (19.6, 20.1, 59.5), (20.1, 60.4, 20.6), (20.5, 59.7, 61.3)]


@pytest.mark.parametrize("place", [(15.0, 20.0, 20.0), (14.6, 20.5, 19.7), (15.3, 19.9, 20.4)])
def test_a_bead_is_centred_by_a_fraction_of_a_voxel(place: tuple[float, float, float]) -> None:
    found = measured(beads((31, 41, 41), [place]))
    assert (found.beads, found.left_out, found.psf.dtype) == (1, 0, np.float32)
    assert all(n % 2 for n in found.psf.shape)
    assert found.psf.sum(dtype=float) == pytest.approx(1, rel=1e-5)
    assert found.psf.min() >= 0
    for axis, n in enumerate(found.psf.shape):
        across = found.psf.sum(axis=tuple(a for a in range(3) if a != axis), dtype=float)
        assert (across * (np.arange(n) - n // 2)).sum() == pytest.approx(0, abs=0.05)
    np.testing.assert_allclose(fwhm(found.psf, (1.0, 1.0, 1.0)), FWHM, rtol=0.03)


def test_beads_of_a_field_are_averaged_and_the_noise_with_them() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.poisson(beads((41, 81, 81), FIELD, height=300.0))
    truth = beads((25, 15, 15), [(12, 7, 7)], height=1.0, background=0.0)
    truth /= truth.sum()
    found = measured(noisy, shape=(25, 15, 15))
    assert (found.beads, found.left_out) == (4, 0)
    one = measured(noisy[:, :40, :40], shape=(25, 15, 15))
    assert one.beads == 1
    errors = [float(np.sqrt(((each.psf - truth) ** 2).mean())) for each in (one, found)]
    assert errors[1] < 0.7 * errors[0]
    np.testing.assert_allclose(fwhm(found.psf, (1.0, 1.0, 1.0)), FWHM, rtol=0.05)


def test_what_is_no_lone_whole_bead_is_left_out() -> None:
    image = beads((41, 81, 81), [*FIELD, (20.0, 40.0, 2.0), (20.0, 38.0, 40.0), (20.0, 46.0, 40.0)])
    # One at the border, two near each other, and a hot pixel far brighter than all.
    image[6, 40, 60] = 20_000
    found = measured(image, shape=(25, 15, 15))
    assert (found.beads, found.left_out) == (4, 4)
    np.testing.assert_allclose(fwhm(found.psf, (1.0, 1.0, 1.0)), FWHM, rtol=0.03)


def test_saturated_beads_are_left_out() -> None:
    image = beads((41, 81, 81), FIELD[:3])
    image += beads((41, 81, 81), FIELD[3:], height=80_000.0, background=0.0)
    with pytest.raises(InputError, match="not saturated"):
        measured(image.clip(0, 65535).astype(np.uint16)[:, 40:, 40:], shape=(25, 15, 15))


@pytest.mark.parametrize(
    ("wrong", "shape", "message"),
    [
        (np.full((3, 5, 5), np.nan), None, "75 of 75 values of the PSF are NaN"),
        (np.ones((5, 5)), None, "has shape"),
        (np.random.default_rng(0).poisson(100, (31, 41, 41)), None, "nothing above its background"),
        (np.zeros((9, 9, 9)), None, "nothing above its background"),
        (beads((31, 41, 41), [(15, 20, 20)]), (4, 5, 5), "three odd sizes"),
        (beads((31, 41, 41), [(15, 20, 20)]), (41, 5, 5), "1 bright spots, but none with a box"),
    ],
)
def test_images_without_a_bead_are_refused_in_one_line(
    wrong: NDArray[np.float64], shape: tuple[int, int, int] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        measured(wrong, shape=shape)
    assert "\n" not in str(error.value)


def test_widths_of_a_gaussian_are_found_and_those_beyond_the_grid_are_none() -> None:
    spot = beads((31, 21, 3), [(15, 10, 1)], background=0.0)
    z, y, x = fwhm(spot, (0.2, 0.1, 0.1))
    assert z == pytest.approx(0.2 * FWHM[0], rel=0.01)
    assert y == pytest.approx(0.1 * FWHM[1], rel=0.02)
    assert x is None


@pytest.mark.skipif(not BEAD.exists(), reason="needs the shared data")
def test_the_bead_of_a_real_microscope_is_centred_and_as_wide_as_in_its_image() -> None:
    image = tifffile.imread(BEAD)[:, 24:-24, 24:-24]
    found = measured(image)
    assert found.beads == 1
    widths = fwhm(found.psf, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(widths, fwhm(image - np.median(image), (1.0, 1.0, 1.0)), rtol=0.05)  # type: ignore[arg-type]

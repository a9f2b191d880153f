"""Our scalar waves against those of psf-generator (EPFL), which integrates by Simpson's rule and by a chirp transform.

Compared are intensities of both scaled to a maximum of 1, at points.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deepcontrast.psf import aberrated, orders
from deepcontrast.psf.debye import focus, wave_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    theirs: Any = pytest.importorskip("psf_generator")

PIXELS = 41


def intensity(propagator: Any) -> NDArray[np.float64]:
    """Return |U|^2 as (Z, Y, X), maximum 1."""
    light: NDArray[np.float64] = np.abs(np.asarray(propagator.compute_focus_field())).astype(float)[:, 0] ** 2
    return light / light.max()


def radii(propagator: Any) -> NDArray[np.float64]:
    """Return the distances of their pixels from the axis in micrometres."""
    across = np.linspace(-propagator.fov / 2, propagator.fov / 2, PIXELS) / 1000
    return np.hypot(across[:, None], across).ravel()


@pytest.mark.parametrize(("na", "index"), [(0.3, 1.0), (1.1, 1.33), (1.4, 1.515)])
def test_a_spot_in_space_is_theirs(na: float, index: float) -> None:
    wave = {"n_i": index, "n_i0": index, "na": na, "wavelength": 520}
    grid = {"n_pix_pupil": 1001, "n_pix_psf": PIXELS, "pix_size": 25 / na, "defocus_step": 100 / na**2, "n_defocus": 9}
    propagator = theirs.ScalarSphericalPropagator(**wave, **grid)
    z = np.linspace(propagator.defocus_min, propagator.defocus_max, 9) / 1000
    ours = focus(radii(propagator), z, wave_of(na, 0.52, index)).T.reshape(9, PIXELS, PIXELS)
    np.testing.assert_allclose(ours / ours.max(), intensity(propagator), atol=1e-4)


@pytest.mark.parametrize(("na", "sample", "depth"), [(1.2, 1.33, 5.0), (1.4, 1.45, 10.0), (1.4, 1.33, 2.0)])
def test_a_spot_at_depth_is_theirs(na: float, sample: float, depth: float) -> None:
    layers = {"n_i": 1.515, "n_i0": 1.515, "n_s": sample, "z_p": 1000 * depth, "gibson_lanni": True}
    grid = {"n_pix_pupil": 10001, "n_pix_psf": PIXELS, "pix_size": 20, "wavelength": 520}
    propagator = theirs.ScalarSphericalPropagator(na=min(na, 0.9999 * sample), **layers, **grid)
    # At the nominal focus: out of it they move in the sample, we move the stage.
    propagator.defocus_filters[:] = 1
    propagator.refractive_index = 1.515
    ours = focus(radii(propagator), np.zeros(1), wave_of(na, 0.52, 1.515, sample, depth))
    np.testing.assert_allclose(ours.reshape(1, PIXELS, PIXELS) / ours.max(), intensity(propagator), atol=1e-3)


@pytest.mark.parametrize("aberrations", [{12: 1.0}, {5: 0.8, 8: -0.6}, {3: 0.5, 7: 0.7, 12: -0.8}])
def test_an_aberrated_spot_is_theirs(aberrations: dict[int, float]) -> None:
    # Their polynomials are 1 at the rim.
    rim = np.zeros(15, np.float32)
    for j, amount in aberrations.items():
        n, m = orders(j)
        rim[j] = amount * np.sqrt((n + 1) * (2 if m else 1))
    propagator = theirs.ScalarCartesianPropagator(
        na=1.1, n_i=1.33, n_i0=1.33, wavelength=520, zernike_coefficients=rim, n_pix_pupil=501, n_pix_psf=PIXELS,
        pix_size=40,
    )  # fmt: skip
    step = propagator.fov / 1000 / (PIXELS - 1) / 10
    optics = {"na": 1.1, "wavelength_um": 0.52, "index": 1.33, "voxel_um": (1e-4, step, step)}
    # Every tenth of voxels that are too small to average anything.
    ours = aberrated((1, 401, 401), aberrations=aberrations, **optics)[:, ::10, ::10]  # type: ignore[arg-type]
    # Their waves run the other way: the spot is turned by half a turn.
    np.testing.assert_allclose(ours[:, ::-1, ::-1] / ours.max(), intensity(propagator), atol=2e-3)

"""The simulated tissue: as hard as real tissue; with it, what scatter and camera make of any phantom."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.baselines.band_pass_2d import band_pass_2d
from deepcontrast.metrics.iou import iou
from deepcontrast.metrics.ssim import ssim
from deepcontrast.synth import Phantom
from deepcontrast.synth.tissue import tissue

SMALL = (16, 64, 64)


def iou_by_plane(volume: NDArray[np.float32], phantom: Phantom) -> NDArray[np.float64]:
    return np.array([iou(v, m)[0].value for v, m in zip(volume, phantom.mask, strict=True)])


def ssim_by_plane(volume: NDArray[np.float32], phantom: Phantom) -> NDArray[np.float64]:
    return np.array([ssim(v, t)[0].value for v, t in zip(volume, phantom.truth, strict=True)])


def assert_as_hard_as_real_tissue(phantom: Phantom) -> None:
    raw = phantom.raw.astype(np.float32)
    assert 0.46 <= iou_by_plane(raw, phantom).mean() <= 0.56
    assert 0.24 <= ssim_by_plane(raw, phantom).mean() <= 0.34
    assert 0.59 <= iou_by_plane(band_pass_2d(raw), phantom).mean() <= 0.69


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_tissue_is_as_hard_as_real_tissue(seed: int) -> None:
    assert_as_hard_as_real_tissue(tissue(seed=seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_narrower_tissue_of_the_same_depth_is_as_hard(seed: int) -> None:
    assert_as_hard_as_real_tissue(tissue(shape=(60, 96, 96), seed=seed))


def test_depth_makes_it_harder() -> None:
    phantom = tissue(shape=(60, 80, 80), seed=3)
    raw = phantom.raw.astype(np.float32)
    for scores in (iou_by_plane(raw, phantom), ssim_by_plane(raw, phantom)):
        fifths = [float(part.mean()) for part in np.array_split(scores, 5)]
        assert fifths == sorted(fifths, reverse=True)
        assert fifths[0] > 1.8 * fifths[-1]
    # The truth does not get harder: it fades nowhere.
    seen = iou_by_plane(phantom.truth, phantom)
    assert abs(seen[:12].mean() - seen[-12:].mean()) < 0.08


def test_no_light_is_lost_to_haze() -> None:
    def photons(scatter_um: float) -> float:
        phantom = tissue(shape=SMALL, seed=4, light=100.0, scatter_um=scatter_um, attenuation_um=1e6)
        return float((phantom.raw.mean() - 100.0) / 2)

    assert photons(1.0) == pytest.approx(photons(1e6), rel=0.01)


def test_counts_without_read_noise_are_whole_photons() -> None:
    phantom = tissue(shape=SMALL, seed=0, gain=8.0, offset=64.0, read_noise=0.0)
    assert phantom.raw.min() >= 64
    assert not (phantom.raw % 8).any()


def test_variance_against_mean_has_the_slope_of_the_gain_and_the_floor_of_the_camera() -> None:
    gain, offset, read_noise = 4.0, 100.0, 6.0
    # Wide optics make the structure so smooth that second differences see the noise alone.
    phantom = tissue(
        shape=(16, 160, 160),
        seed=0,
        light=60.0,
        psf_um=(1.8, 1.8),
        gain=gain,
        offset=offset,
        read_noise=read_noise,
    )
    raw = phantom.raw.astype(np.float64)
    residual = (raw[..., :-2] - 2 * raw[..., 1:-1] + raw[..., 2:]) ** 2 / 6
    mean = ndimage.uniform_filter(raw, (1, 9, 9))[..., 1:-1]
    edges = np.quantile(mean, np.linspace(0, 1, 21))
    place = np.clip(np.searchsorted(edges, mean) - 1, 0, 19).ravel()
    counts = np.bincount(place)
    means = np.bincount(place, mean.ravel()) / counts
    variances = np.bincount(place, residual.ravel()) / counts
    slope, intercept = np.polyfit(means, variances, 1)
    assert slope == pytest.approx(gain, rel=0.08)
    assert -intercept / slope == pytest.approx(offset - read_noise**2 / gain, rel=0.1)


def test_bright_light_saturates_instead_of_wrapping() -> None:
    phantom = tissue(shape=(4, 48, 48), seed=0, light=1e5, gain=4.0)
    assert phantom.raw.max() == 65535
    assert phantom.raw[phantom.truth > 3e4].min() > 30000


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 7, 50), (16, 64, 64)])
def test_any_shape_is_filled_with_structure(shape: tuple[int, int, int]) -> None:
    phantom = tissue(shape=shape, seed=0)
    assert phantom.raw.shape == shape
    assert np.isfinite(phantom.truth).all()
    assert 0.05 < phantom.mask.mean() < 0.6

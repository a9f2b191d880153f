"""The simulated nuclei: their truth is the truth, and depth makes them harder to see."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.metrics.iou import iou
from deepcontrast.synth.nuclei import nuclei

SMALL = (16, 64, 64)


def test_equal_arguments_give_equal_bytes_and_other_seeds_others() -> None:
    first, second, other = (nuclei(shape=SMALL, seed=seed) for seed in (5, 5, 6))
    for name in ("raw", "truth", "mask"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
        assert getattr(first, name).tobytes() != getattr(other, name).tobytes()
    assert set(first.parameters) == set(inspect.signature(nuclei).parameters)


def test_nuclei_have_the_size_that_was_asked_for() -> None:
    phantom = nuclei(shape=(80, 96, 96), seed=0, spacing_um=9.0, radius_um=2.4, nucleoli=0.0)
    labels, count = ndimage.label(phantom.mask)
    inside = [i for i, box in enumerate(ndimage.find_objects(labels), 1) if _is_whole(box, labels.shape)]
    volumes = np.bincount(labels.ravel())[inside]
    assert count > 20
    # Axes are uniform in 0.75 .. 1.3 radii, so the mean volume is that of a ball times 1.025 cubed.
    assert volumes.mean() == pytest.approx(4 / 3 * np.pi * (1.025 * 2.4 / 0.3) ** 3, rel=0.2)


def _is_whole(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return all(b.start > 0 and b.stop < n for b, n in zip(box, shape, strict=True))


def test_nucleoli_are_holes_in_nuclei() -> None:
    full, holed = (nuclei(shape=SMALL, seed=3, nucleoli=n, light=100.0) for n in (0.0, 4.0))
    assert holed.mask.sum() < full.mask.sum()
    assert holed.mask.any()


def test_in_clear_tissue_the_camera_sees_the_truth_and_the_autofluorescence() -> None:
    phantom = nuclei(shape=SMALL, seed=2, light=100.0, scatter_um=1e6, attenuation_um=1e6)
    photons = (phantom.raw.astype(np.float64) - 100) / 2
    error = photons - (phantom.truth + 0.02 * 100)
    noise = np.sqrt(phantom.truth + 2 + (3 / 2) ** 2 + 1 / 48)
    assert abs(error.mean()) < 4 * noise.mean() / np.sqrt(error.size)
    assert np.std(error / noise) == pytest.approx(1, rel=0.02)


def test_depth_makes_it_harder() -> None:
    phantom = nuclei(shape=(60, 96, 96), seed=1)
    found = np.array([iou(v, m)[0].value for v, m in zip(phantom.raw, phantom.mask, strict=True)])
    assert found[:12].mean() > 1.5 * found[-12:].mean()


def test_impossible_nuclei_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="radius_um"):
        nuclei(shape=SMALL, radius_um=0.0)

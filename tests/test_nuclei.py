"""The simulated nuclei: of the size that was asked for, with nucleoli."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.synth.nuclei import _add_nucleus, nuclei

SMALL = (16, 64, 64)


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


def test_every_nucleus_has_one_number_and_its_nucleoli_the_same() -> None:
    phantom = nuclei(shape=(40, 64, 64), seed=3, spacing_um=9.0, nucleoli=4.0)
    assert phantom.labels is not None
    # Far from each other, nuclei are what hangs together once the holes are filled.
    filled = ndimage.binary_fill_holes(np.pad(phantom.mask, 1))[1:-1, 1:-1, 1:-1]
    apart, count = ndimage.label(filled)
    assert count > 5
    for number in range(1, count + 1):
        assert len(np.unique(phantom.labels[apart == number])) == 1
    assert (phantom.labels[~phantom.mask] > 0).any()
    assert (phantom.labels[phantom.mask] > 0).all()


def test_where_nuclei_overlap_the_number_is_of_the_one_in_front() -> None:
    rng = np.random.default_rng(0)
    shape = (24, 24, 24)
    density, mask, labels = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, np.int32)
    texture = np.zeros(shape, np.float32)
    _add_nucleus(rng, density, mask, labels, 1, texture, np.array([12.0, 12.0, 9.0]), 5.0, 0.0, 1.0)
    before = density.copy()
    _add_nucleus(rng, density, mask, labels, 2, texture, np.array([12.0, 12.0, 14.0]), 5.0, 0.0, 1.0)
    drawn = density != before
    assert (labels == 1).sum() > 100
    assert not drawn[labels == 1].any()
    assert (drawn & mask).sum() > 100
    assert (labels[drawn & mask] == 2).all()

"""The simulated nuclei: of the size that was asked for, with nucleoli."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast.synth.nuclei import nuclei

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

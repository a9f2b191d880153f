"""The simulated spots: as large and as many as was asked for, in cells of uneven cytoplasm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import clear_border

from deepcontrast.synth.spots import spots


def test_spots_are_balls_of_the_size_that_was_asked_for() -> None:
    mask = spots(shape=(40, 128, 128), seed=0, density=0.005, radius_um=1.0).mask
    labels, _ = ndimage.label(clear_border(mask))
    sides = np.array([[b.stop - b.start for b in box] for box in ndimage.find_objects(labels)])
    volumes = np.bincount(labels.ravel())[1:]
    assert len(volumes) > 20
    assert np.median(volumes / sides.prod(axis=1)) == pytest.approx(np.pi / 6, rel=0.1)
    # Radii are uniform in 0.7 .. 1.4 of the mean.
    assert np.median(volumes) == pytest.approx(4 / 3 * np.pi * (1.05 / 0.3) ** 3, rel=0.25)


def test_the_volume_is_as_full_as_was_asked_for() -> None:
    masks = [spots(shape=(24, 80, 80), seed=seed, density=0.1).mask for seed in range(2)]
    # Balls thrown at random overlap.
    cube = (1.4**4 - 0.7**4) / (4 * 0.7) * 0.6**3
    assert np.mean(masks) == pytest.approx(1 - np.exp(-0.1 * 4 / 3 * np.pi * cube), rel=0.1)


def test_spots_are_cut_by_the_faces_not_kept_from_them() -> None:
    mask = np.mean([spots(shape=(12, 48, 48), seed=seed, density=0.3).mask for seed in range(5)], axis=0)
    border = np.ones(mask.shape, bool)
    border[2:-2, 3:-3, 3:-3] = False
    assert mask[border].mean() == pytest.approx(mask[~border].mean(), rel=0.2)


def test_cytoplasm_differs_slowly_and_is_dim() -> None:
    made = spots(shape=(32, 96, 96), seed=0, psf_um=(1e-3, 1e-3))
    cytoplasm = made.truth[~ndimage.binary_dilation(made.mask, iterations=2)] / made.truth.max()
    assert cytoplasm.mean() == pytest.approx(0.012, rel=0.25)
    assert np.percentile(cytoplasm, 95) > 2 * np.percentile(cytoplasm, 5)
    neighbours = made.truth[:, :, 1:] / made.truth[:, :, :-1]
    assert np.percentile(neighbours, [25, 75]) == pytest.approx([1, 1], abs=0.1)

"""The simulated sarcomeres: discs as far apart and as thick as was asked for, in register but for dislocations."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.synth.sarcomeres import draw

VOXEL_UM = (0.3, 0.15, 0.15)
ONE_CELL = {"cell_um": 400.0, "turn": 0.0, "spread": 0.0, "gaps": 0.0, "dislocations": 0.0, "shear_um": 0.0}


def spectrum(plane: NDArray[np.float32], pixel: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the power of a windowed plane and the frequency in 1/um at every place of it."""
    window = np.outer(*(np.hanning(n) for n in plane.shape))
    power = np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, pixel) for n in plane.shape), indexing="ij"))
    return power, frequency


@pytest.mark.parametrize("spacing", [1.8, 2.2])
@pytest.mark.parametrize("seed", range(3))
def test_the_spectrum_peaks_at_one_over_the_spacing(spacing: float, seed: int) -> None:
    drawn = draw(np.random.default_rng(seed), (1, 256, 256), voxel_um=VOXEL_UM, spacing_um=(spacing, spacing))
    power, frequency = spectrum(drawn[0], 0.15)
    rings = np.arange(0.1, 1.4, 0.02)
    ring = np.digitize(frequency, rings)
    profile = np.array([power[ring == i].sum() for i in range(1, len(rings))])
    peak = rings[:-1][profile.argmax()] + 0.01
    assert peak == pytest.approx(1 / spacing, rel=0.06)


def test_a_disc_has_its_thickness_also_below_a_pixel() -> None:
    means = [
        draw(np.random.default_rng(0), (1, 200, 200), voxel_um=VOXEL_UM, thickness_um=(t, t), **ONE_CELL).mean()
        for t in (0.05, 0.1, 0.2)
    ]
    assert means[1] / means[0] == pytest.approx(2, rel=0.02)
    assert means[2] / means[1] == pytest.approx(2, rel=0.02)
    # Of the length a share thickness / spacing, of the width all but 0.2 of 1.2 um.
    assert means[2] == pytest.approx(0.2 / 2.0 * 1.0 / 1.2, rel=0.12)


def test_a_disc_thinner_than_a_pixel_has_its_share_of_it() -> None:
    drawn = draw(np.random.default_rng(0), (1, 200, 200), voxel_um=VOXEL_UM, thickness_um=(0.06, 0.06), **ONE_CELL)
    assert drawn.max() == pytest.approx(0.06 / 0.15, rel=1e-5)


def test_gaps_are_the_share_of_missing_discs() -> None:
    whole, half = (
        np.mean(
            [
                draw(np.random.default_rng(s), (1, 200, 200), voxel_um=VOXEL_UM, **{**ONE_CELL, "gaps": g})
                for s in range(3)
            ]
        )
        for g in (0.0, 0.5)
    )
    assert half / whole == pytest.approx(0.5, rel=0.08)


def test_neighbours_are_in_register_and_dislocations_end_that() -> None:
    def contrast(**given: float) -> float:
        """Share of the power near 1 / spacing, in a spectrum whose rows add up where they are in register."""
        found = []
        for seed in range(4):
            drawn = draw(
                np.random.default_rng(seed),
                (1, 256, 256),
                voxel_um=VOXEL_UM,
                spacing_um=(2.0, 2.0),
                **{**ONE_CELL, **given},
            )
            power, frequency = spectrum(drawn[0], 0.15)
            near = (frequency > 0.4) & (frequency < 0.6)
            found.append(power[near].max() / power[near].sum())
        return float(np.mean(found))

    assert contrast() > 1.5 * contrast(dislocations=0.5)


def test_cells_differ_in_direction() -> None:
    drawn = draw(np.random.default_rng(3), (1, 400, 400), voxel_um=VOXEL_UM, cell_um=20.0, turn=0.6)[0]
    rows, columns = (ndimage.gaussian_filter(drawn, 1.5, order) for order in ((1, 0), (0, 1)))
    two = ndimage.gaussian_filter(2 * rows * columns, 12), ndimage.gaussian_filter(columns**2 - rows**2, 12)
    angle = np.arctan2(*two) / 2
    # Between regions the direction of the structure tensor differs.
    turned = np.abs(np.exp(2j * angle).mean())
    assert turned < 0.9
    alone = draw(np.random.default_rng(3), (1, 400, 400), voxel_um=VOXEL_UM, **ONE_CELL)[0]
    rows, columns = (ndimage.gaussian_filter(alone, 1.5, order) for order in ((1, 0), (0, 1)))
    two = ndimage.gaussian_filter(2 * rows * columns, 12), ndimage.gaussian_filter(columns**2 - rows**2, 12)
    assert np.abs(np.exp(1j * np.arctan2(*two)).mean()) > turned + 0.03


@pytest.mark.parametrize("shape", [(1, 64, 64), (6, 48, 48)])
def test_the_same_seed_draws_the_same_discs_and_another_others(shape: tuple[int, int, int]) -> None:
    first, second, other = (draw(np.random.default_rng(s), shape, voxel_um=VOXEL_UM) for s in (7, 7, 8))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert first.dtype == np.float32
    assert first.min() == 0


def test_in_space_fibrils_lie_above_one_another() -> None:
    drawn = draw(np.random.default_rng(0), (40, 96, 96), voxel_um=(0.1, 0.15, 0.15), **ONE_CELL)
    column = drawn[:, drawn.max(axis=0) > 0.3]
    # Along z there is a gap of 0.2 um after a fibril of 1.2 um in the mean.
    dark = (column < 0.05).mean(axis=1)
    assert drawn.std(axis=0).max() > 0.2
    assert 0.1 < dark.mean() < 0.9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"spacing_um": (2.2, 1.8)}, "the least, then the largest"),
        ({"thickness_um": (0.2, 0.1)}, "the least, then the largest"),
        ({"gaps": 1.2}, "a share"),
        ({"dislocations": 1.2}, "a share"),
        ({"fibril_um": 0.0}, "fibril_um = 0.0"),
    ],
)
def test_impossible_sarcomeres_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw(np.random.default_rng(0), (1, 32, 32), voxel_um=VOXEL_UM, **wrong)

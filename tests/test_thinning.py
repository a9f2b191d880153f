"""One image as two of the same mean whose noise is independent: photons split at random, or noise added."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepcontrast.noise.recorruption import recorrupt
from deepcontrast.noise.thinning import thin
from deepcontrast.stack import Optics

SIDE = 1000


def camera_image(read: float, gain: float, photons: float, offset: float = 100.0, seed: int = 1) -> torch.Tensor:
    """Return an image without structure (Y, X), read noise in electrons, whole grey levels."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((SIDE, SIDE), float(photons)), generator=generator)
    noise = read * torch.randn(SIDE, SIDE, generator=generator)
    return (gain * (counts + noise) + offset).round()


def halves(image: torch.Tensor, read: float, gain: float, share: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    optics = Optics(gain=gain, offset=100 - read**2 * gain)
    return thin(image, optics, generator=torch.Generator().manual_seed(2), share=share)


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1])


def test_without_read_noise_the_halves_know_nothing_of_each_other() -> None:
    # The mean correlation of twelve million pairs has a standard error of 0.0003.
    found = [correlation(*halves(camera_image(0, 2.0, 20, seed=seed), 0, 2.0)) for seed in range(12)]
    assert abs(float(np.mean(found))) < 0.001


@pytest.mark.parametrize("read", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("gain", "photons"), [(1.0, 20.0), (2.0, 8.0), (4.0, 60.0)])
def test_read_noise_hardly_correlates(read: float, gain: float, photons: float) -> None:
    assert abs(correlation(*halves(camera_image(read, gain, photons), read, gain))) < 0.02


@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_a_gain_that_is_a_little_wrong_correlates_a_little(wrong: float) -> None:
    assert 0.02 < abs(correlation(*halves(camera_image(0, 2.0, 20), 0, 2.0 * wrong))) < 0.08


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_means_are_kept_and_noise_grows_by_the_share(share: float) -> None:
    image = camera_image(1.0, 2.0, 20)
    first, second = halves(image, 1.0, 2.0, share)
    # Photons and read noise: variance gain^2 (photons + read^2), of a half that many times 1 / share.
    variance = 2.0**2 * (20 + 1)
    for half, part in ((first, share), (second, 1 - share)):
        assert float(half.mean()) == pytest.approx(float(image.mean()), abs=0.05)
        assert float(half.var()) == pytest.approx(variance / part, rel=0.03)


def test_equal_generators_give_equal_halves_and_the_next_draw_others() -> None:
    image, optics = camera_image(0, 1.0, 5)[:64, :64], Optics(gain=1.0, offset=100.0)
    generator = torch.Generator().manual_seed(0)
    first, again = (thin(image, optics, generator=g)[0] for g in (generator, torch.Generator().manual_seed(0)))
    assert torch.equal(first, again)
    assert not torch.equal(first, thin(image, optics, generator=generator)[0])


def test_nothing_below_the_intercept_is_split() -> None:
    first, second = thin(torch.full((8, 8), 50.0), Optics(gain=2.0, offset=100.0), generator=torch.Generator())
    assert torch.equal(first, second)
    assert float(first.max()) == 100.0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_added_noise_makes_two_images_that_share_none(share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    scene = torch.tensor([10.0, 30.0, 60.0]).repeat_interleave(SIDE // 3)
    variance = {10.0: 4.0, 30.0: 1.0, 60.0: 9.0}
    image = scene + torch.tensor([variance[v] ** 0.5 for v in scene.tolist()]) * torch.randn(
        SIDE, len(scene), generator=generator
    )
    # The variance is known where noise does not carry a voxel to another one's.
    curve = ((15.0, 25.0, 40.0, 50.0), (4.0, 1.0, 1.0, 9.0))
    first, second = recorrupt(image, *curve, generator=generator, share=share)
    for n, truth in enumerate(variance.values()):
        part = np.s_[:, n * (SIDE // 3) : (n + 1) * (SIDE // 3)]
        # 333,000 pairs: a standard error of 0.0017.
        assert abs(correlation(first[part], second[part])) < 0.006
        assert float(first[part].var()) == pytest.approx(truth / share, rel=0.02)
        assert float(second[part].var()) == pytest.approx(truth / (1 - share), rel=0.02)
        assert float(second[part].mean()) == pytest.approx(float(image[part].mean()), abs=0.02)


def test_variance_is_linear_between_what_is_known_and_constant_beyond() -> None:
    levels = torch.tensor([0.0, 10.0, 15.0, 20.0, 50.0])
    image = levels.repeat_interleave(200_000)[None]
    first, _ = recorrupt(image, (10.0, 20.0), (4.0, 8.0), generator=torch.Generator().manual_seed(4))
    found = (first - image).view(len(levels), -1).var(1)
    np.testing.assert_allclose(found, [4, 4, 6, 8, 8], rtol=0.02)
    first, _ = recorrupt(image, (10.0,), (4.0,), generator=torch.Generator().manual_seed(4))
    np.testing.assert_allclose(float((first - image).var()), 4, rtol=0.02)

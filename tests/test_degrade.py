"""Every registered degradation, and the physics of the ones there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.degrade.blur import blur
from deepcontrast.degrade.camera import camera
from deepcontrast.degrade.scatter import scatter
from deepcontrast.stack import Optics

OPTICS = Optics(gain=2.5, offset=100.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", registry.names("degrade"))
def test_every_degradation_keeps_shape_and_type_and_obeys_its_generator(name: str) -> None:
    degrade = registry.load("degrade", name)
    image = 200 + 100 * torch.rand(2, 24, 32, generator=seeded())
    kept = image.clone()
    state = torch.get_rng_state()
    one, two, other = (degrade(image, OPTICS, generator=seeded(s)) for s in (1, 1, 2))
    assert one.shape == image.shape
    assert one.dtype == image.dtype
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert name == "blur" or not torch.equal(one, other)
    assert torch.equal(image, kept), "the input was changed"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_shot_noise_variance_equals_mean_in_photons() -> None:
    flat = torch.full((200, 200), 100.0 + 2.5 * 7.3)
    noisy = camera(flat, OPTICS, generator=seeded())
    photons = (noisy - 100) / 2.5
    assert float(photons.mean()) == pytest.approx(7.3, rel=0.01)
    assert float(photons.var()) == pytest.approx(7.3, rel=0.03)


def test_counts_are_not_truncated_before_the_draw() -> None:
    flat = torch.full((300, 300), 100.0 + 2.5 * 0.9)
    assert float(((camera(flat, OPTICS, generator=seeded()) - 100) / 2.5).mean()) == pytest.approx(0.9, rel=0.02)


@pytest.mark.parametrize("sigma", [1.0, 6.5, 20.0])
def test_blur_equals_scipys(sigma: float) -> None:
    image = torch.rand(2, 60, 80, generator=seeded())
    expected = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), mode="reflect")
    np.testing.assert_allclose(blur(image, OPTICS, sigma=sigma).numpy(), expected, atol=2e-5)


def test_invalid_voxels_give_nothing_to_their_neighbours() -> None:
    image = torch.full((60, 60), 50.0)
    image[:, :20] = 0.0
    valid = image > 0
    torch.testing.assert_close(blur(image, OPTICS, sigma=8.0, valid=valid), torch.full((60, 60), 50.0))
    assert float(blur(image, OPTICS, sigma=8.0)[30, 22]) < 35


def test_scatter_is_the_blend_of_equation_1() -> None:
    image = 100 + 500 * torch.rand(3, 40, 40, generator=seeded())
    alpha = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
    degraded = scatter(image, OPTICS, generator=seeded(3), alpha=alpha, sigma=5.0)
    noisy = camera(blur(image, OPTICS, sigma=5.0), OPTICS, generator=seeded(3))
    torch.testing.assert_close(degraded[0], image[0])
    torch.testing.assert_close(degraded[1], (image[1] + noisy[1]) / 2)
    torch.testing.assert_close(degraded[2], noisy[2])
    same = scatter(image, OPTICS, generator=seeded(3), alpha=alpha, blurred=blur(image, OPTICS, sigma=5.0))
    torch.testing.assert_close(degraded, same)

"""Every registered degradation, and the physics of the ones there are."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.degrade.background import background
from deepcontrast.degrade.binning import binning
from deepcontrast.degrade.black_level import black_level
from deepcontrast.degrade.blur import blur
from deepcontrast.degrade.camera import camera
from deepcontrast.degrade.convolve import convolve
from deepcontrast.degrade.exposure import exposure
from deepcontrast.degrade.gaussian import gaussian
from deepcontrast.degrade.minimum import minimum
from deepcontrast.degrade.poisson import poisson
from deepcontrast.degrade.scatter import scatter
from deepcontrast.errors import InputError
from deepcontrast.io import write_stack
from deepcontrast.stack import Optics, Stack

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
    random = inspect.signature(degrade).parameters["generator"].default is inspect.Parameter.empty
    assert torch.equal(one, other) is not random
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


@pytest.mark.parametrize("light", [0.7, 9.0, 250.0])
def test_photon_variance_is_mean_at_any_light_without_truncation(light: float) -> None:
    flat = torch.full((400, 400), 0.37)
    photons = light * poisson(flat, OPTICS, generator=seeded(), light=light)
    assert float(photons.mean()) == pytest.approx(0.37 * light, rel=0.02)
    assert float(photons.var()) == pytest.approx(0.37 * light, rel=0.03)


def test_gaussian_noise_has_the_product_of_sigma_and_intensity() -> None:
    noise = gaussian(torch.zeros(300, 300), OPTICS, generator=seeded(), sigma=0.2, intensity=0.5)
    assert float(noise.mean()) == pytest.approx(0, abs=0.001)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("kind", ["widefield", "confocal"])
def test_the_microscope_keeps_the_sum_of_an_image(kind: str) -> None:
    image = torch.rand(2, 40, 56, generator=seeded()) ** 4
    seen = convolve(image, Optics(voxel_size=(0.2, 0.08, 0.08)), kind=kind, excitation=488.0)
    torch.testing.assert_close(seen.sum((1, 2)), image.sum((1, 2)), rtol=1e-5, atol=0)
    assert float(seen.std()) < 0.7 * float(image.std())


def test_the_microscope_spreads_a_point_by_a_half_of_the_wavelength_over_the_aperture() -> None:
    point = torch.zeros(1, 201, 201)
    point[0, 100, 100] = 1
    seen = convolve(point, Optics(voxel_size=(0.1, 0.02, 0.02)), na=0.8, wavelength=600.0, index=1.33)[0]
    across = seen[100].numpy()
    at = np.interp(across[100] / 2, across[100:160][::-1], np.arange(60)[::-1])
    # Born & Wolf: the Airy disc is half as bright at 0.257 wavelengths over the aperture from its middle.
    assert 2 * at * 0.02 == pytest.approx(2 * 0.257 * 0.6 / 0.8, rel=0.03)


def test_the_microscope_in_space_mixes_planes_and_keeps_the_sum() -> None:
    image = torch.rand(9, 24, 24, generator=seeded())
    optics = Optics(voxel_size=(0.3, 0.1, 0.1))
    seen = convolve(image, optics, planes=5)
    assert float(seen.sum()) == pytest.approx(float(image.sum()), rel=1e-5)
    apart = convolve(image, optics)
    assert float((seen.mean((1, 2)) - image.mean((1, 2))).abs().max()) > 0.001
    torch.testing.assert_close(apart.mean((1, 2)), image.mean((1, 2)))


def test_no_blur_is_left_out_and_other_kinds_are_refused() -> None:
    image = torch.rand(8, 8, generator=seeded())
    torch.testing.assert_close(convolve(image, OPTICS, kind="none"), image)
    with pytest.raises(InputError, match="accepted: widefield, confocal, none"):
        convolve(image, OPTICS, kind="sted")
    with pytest.raises(InputError, match="needs its excitation"):
        convolve(image, OPTICS, kind="confocal")
    with pytest.raises(InputError, match=r"wavelength 0\.52; accepted: nanometres"):
        convolve(image, OPTICS, wavelength=0.52)
    with pytest.raises(InputError, match="odd numbers"):
        convolve(image, OPTICS, planes=2)
    with pytest.raises(InputError, match=r"aperture 1\.6 in a medium of index 1\.515"):
        convolve(image, OPTICS, na=1.6)


def test_a_measured_spread_of_other_pixels_is_refused(tmp_path: Path) -> None:
    spot = np.zeros((5, 9, 9), np.float32)
    spot[2, 4, 4] = 1
    write_stack(tmp_path / "psf.tif", Stack(spot, "ZYX", Optics((0.2, 0.05, 0.05))))
    with pytest.raises(InputError, match=r"has pixels of 0\.05 x 0\.05 um"):
        convolve(torch.ones(15, 15), Optics((0.2, 0.1, 0.1)), file=str(tmp_path / "psf.tif"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("poisson", {"light": 0.0}), ("poisson", {"light": -5.0}), ("binning", {"factor": 0}),
        ("minimum", {"radius": -1.0}), ("black_level", {"black": 120.0}),
        ("black_level", {"black": 50.0, "bright": 50.0}),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="accepted"):
        registry.load("degrade", name)(torch.rand(9, 9), OPTICS, generator=seeded(), **settings)


def test_a_measured_spread_is_used_instead(tmp_path: Path) -> None:
    spot = np.zeros((5, 9, 9), np.float32)
    spot[2, 3:6, 3:6] = 1
    write_stack(tmp_path / "psf.tif", Stack(spot, "ZYX"))
    point = torch.zeros(15, 15)
    point[7, 7] = 9
    seen = convolve(point, OPTICS, file=str(tmp_path / "psf.tif"))
    expected = torch.zeros(15, 15)
    expected[6:9, 6:9] = 1
    torch.testing.assert_close(seen, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("radius", "pixels"), [(0.0, 1), (0.5, 5), (1.0, 9), (2.0, 21)])
def test_the_minimum_filter_has_the_neighbours_of_fijis(radius: float, pixels: int) -> None:
    image = torch.ones(21, 21)
    image[10, 10] = 0
    assert int((minimum(image, OPTICS, radius=radius) == 0).sum()) == pixels


def test_black_and_bright_are_percentiles() -> None:
    image = torch.arange(1001, dtype=torch.float32).view(7, 143) * 3 + 50
    scaled = black_level(image, OPTICS, black=10, bright=90)
    assert float(scaled.min()) == 0
    assert float(scaled.view(-1)[100]) == 0
    assert float(scaled.view(-1)[900]) == pytest.approx(1)
    assert float(scaled.max()) == pytest.approx(900 / 800)
    with pytest.raises(InputError, match="both 5"):
        black_level(torch.full((20, 20), 5.0), OPTICS)


def test_overexposure_saturates_and_underexposure_scales() -> None:
    image = torch.linspace(0, 1, 11).view(1, 11)
    torch.testing.assert_close(exposure(image, OPTICS, factor=0.5), image / 2)
    assert float(exposure(image, OPTICS, factor=3.0).max()) == 1
    assert float(exposure(image, OPTICS, factor=3.0, saturation=2.5).max()) == 2.5


def test_a_background_lies_between_its_level_and_its_glow_and_is_smooth() -> None:
    light = background(torch.zeros(1, 200, 200), OPTICS, generator=seeded(), level=0.5, glow=0.2, period=50.0)
    assert 0.5 <= float(light.min()) < float(light.max()) <= 0.7
    steps = light.diff(dim=-1).abs().max()
    # The steepest fade rises by 15/8 of a gradient per period; gradients are at most sqrt(2) here.
    assert 0 < float(steps) < 4 * 0.2 / 50


def test_binned_pixels_share_the_mean_of_their_block() -> None:
    image = torch.arange(35, dtype=torch.float32).view(5, 7)
    binned = binning(image, OPTICS, factor=2)
    assert binned.shape == image.shape
    torch.testing.assert_close(binned[:2, :2], torch.full((2, 2), (0 + 1 + 7 + 8) / 4))
    torch.testing.assert_close(binned[4, 6], image[4, 6])
    torch.testing.assert_close(binning(image, OPTICS, factor=1), image)
    even = torch.rand(1, 30, 30, generator=seeded())
    assert float(binning(even, OPTICS, factor=3).sum()) == pytest.approx(float(even.sum()), rel=1e-5)

"""Planes seen through aberrations, and a network that learns from the shallow ones of a stack what they were."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from deepcontrast.degrade.aberration import (
    SPREAD,
    Lens,
    aberration,
    draw_waves,
    lens_of,
    polynomials,
    through,
    transfer,
)
from deepcontrast.depth import depths
from deepcontrast.enhancing import enhance
from deepcontrast.errors import InputError
from deepcontrast.patches import draw
from deepcontrast.psf import aberrated, zernike
from deepcontrast.recipe import load_recipe
from deepcontrast.report import sections
from deepcontrast.stack import Optics, Stack
from deepcontrast.story import report_data
from deepcontrast.task import Source
from deepcontrast.tasks import aberration as task

from .conftest import TINY

LENS = Lens(1.1, 0.532, 1.33, (0.1, 0.1))
OPTICS = Optics(
    voxel_size=(0.3, 0.1, 0.1), numerical_aperture=1.1, wavelengths=(532.0,), refractive_index=1.33, surface="first"
)
CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def source_of(volume: np.ndarray, optics: Optics = OPTICS) -> Source:
    stack = Stack(volume, "ZYX", optics)
    return Source(stack, 0, 0, depths(stack))


def photons(rng: np.random.Generator, planes: int = 24, mean: float = 20.0) -> np.ndarray:
    return (3 * rng.poisson(mean, (planes, 100, 120)) + 100).astype(np.uint16)


def fitted(sources: list[Source], *settings: str) -> tuple[task.Fit, object]:
    """Return the fit, with the camera that the images were made with: without structure none can be estimated."""
    config = load_recipe("aberration", (*TINY, "task.remove_pattern=false", *settings))
    fit = task.fit(sources, config)
    camera = replace(fit.camera, gain=3.0, intercept=100.0, spread=1.0)
    return replace(fit, camera=camera, thin=config.task["thin"]), config


def test_the_polynomials_are_zernikes() -> None:
    y, x = 1.4 * torch.rand(2, 50, generator=seeded(), dtype=torch.float64) - 0.7
    rho, theta = np.hypot(y.numpy(), x.numpy()), np.arctan2(y.numpy(), x.numpy())
    found = polynomials(y, x)
    assert list(SPREAD) == list(range(3, 15))
    for j, one in zip(SPREAD, found, strict=True):
        np.testing.assert_allclose(one.numpy(), zernike(j, rho, theta), atol=1e-12)


@pytest.mark.parametrize(("seed", "rms"), [(0, 0.5), (1, 1.0), (2, 2.0)])
def test_the_ideal_spot_becomes_the_aberrated_one(seed: int, rms: float) -> None:
    wave = rms * draw_waves(1, seeded(seed), CPU)[0]
    optics = {"na": 1.1, "wavelength_um": 0.532, "index": 1.33, "voxel_um": (0.1, 0.1, 0.1)}
    ideal = aberrated((1, 129, 129), aberrations={}, **optics)[0]  # type: ignore[arg-type]
    amounts = dict(zip(SPREAD, wave.tolist(), strict=True))
    expected = aberrated((1, 129, 129), aberrations=amounts, **optics)[0]  # type: ignore[arg-type]
    seen = through(torch.from_numpy(ideal), wave, LENS)[0].numpy()
    # A pupil sampled at 36 places along its radius, against quadrature.
    np.testing.assert_allclose(seen, expected, atol=0.02 * float(expected.max()))


def test_no_aberration_raises_a_frequency() -> None:
    waves = 3 * draw_waves(20, seeded(), CPU)
    for pixel in (0.05, 0.1, 0.3):
        passed = transfer(waves, (64, 48), replace(LENS, pixel_um=(pixel, 1.2 * pixel)))
        assert passed.shape == (20, 64, 48)
        assert float(passed.abs().max()) < 1 + 1e-4
        torch.testing.assert_close(passed[:, 0, 0], torch.ones(20, dtype=torch.complex64))


def test_what_is_in_the_band_passes_without_an_aberration() -> None:
    # Whole periods, so that the mirror images go on; of 9 and 7 pixels, far from the end of the band, 2.4 pixels.
    y, x = np.mgrid[:91, :71]
    image = torch.from_numpy(100 + 10 * np.cos(2 * np.pi * y / 9) * np.cos(2 * np.pi * x / 7)).float()
    seen, _ = through(image, torch.zeros(12), LENS)
    torch.testing.assert_close(seen, image, atol=0.1, rtol=0)


def test_waves_have_the_strength_that_is_asked_for() -> None:
    waves = draw_waves(400, seeded(), CPU)
    torch.testing.assert_close(waves.square().sum(1), torch.ones(400))
    # Of even draws the mean square goes with the square of the spread: 4 of 3 units, 8 of 1.
    shares = waves.square().mean(0)
    assert float(shares[list(SPREAD).index(12)]) == pytest.approx(9 / 44, rel=0.15)
    assert float(shares[list(SPREAD).index(7)]) < 0.04


def test_deeper_planes_are_blurred_more_and_keep_their_brightness() -> None:
    plane = 100 + 50 * torch.rand(80, 80, generator=seeded())
    image = plane.expand(6, 80, 80).clone()
    seen = aberration(image, OPTICS, generator=seeded(4), rms=(0.0, 2.0))
    spread = seen.std((1, 2))
    assert (spread.diff() < 0).all()
    torch.testing.assert_close(seen.mean((1, 2)), image.mean((1, 2)), rtol=0.01, atol=0)
    flat = torch.full((3, 40, 40), 7.0)
    torch.testing.assert_close(aberration(flat, OPTICS, generator=seeded()), flat, rtol=1e-4, atol=0)


def test_every_volume_has_a_wave_of_its_own_and_its_planes_the_same() -> None:
    point = torch.zeros(2, 3, 61, 61)
    point[..., 30, 30] = 1
    seen = aberration(point, OPTICS, generator=seeded(), rms=(1.0, 1.0))
    torch.testing.assert_close(seen[:, 0], seen[:, 2])
    assert float((seen[0, 0] - seen[1, 0]).abs().max()) > 0.1 * float(seen.max())


def test_the_variance_of_noise_that_is_left_is_told() -> None:
    noise = torch.randn(1, 300, 300, generator=seeded())
    seen, left = through(noise, 0.7 * draw_waves(1, seeded(1), CPU), LENS)
    assert float(seen.var()) == pytest.approx(float(left[0]), rel=0.1)


@pytest.mark.parametrize(
    ("optics", "given", "expected"),
    [
        (Optics(), {}, Lens(1.1, 0.532, 1.33, (0.532 / 4.4, 0.532 / 4.4))),
        (OPTICS, {}, LENS),
        (OPTICS, {"na": 1.4, "index": 1.515, "wavelength": 600.0}, Lens(1.4, 0.6, 1.515, (0.1, 0.1))),
        (Optics(voxel_size=(1.0, 0.2, 0.2), numerical_aperture=0.8), {}, Lens(0.8, 0.532, 1.0, (0.2, 0.2))),
    ],
)
def test_optics_are_given_or_known_or_assumed(optics: Optics, given: dict[str, float], expected: Lens) -> None:
    assert lens_of(optics, **given) == Lens(
        expected.na, pytest.approx(expected.wavelength_um), expected.index, pytest.approx(expected.pixel_um)
    )  # fmt: skip


def test_what_cannot_be_is_refused() -> None:
    image = torch.zeros(2, 16, 16)
    with pytest.raises(InputError, match=r"aperture 1\.5 in a medium of index 1\.33"):
        aberration(image, OPTICS, generator=seeded(), na=1.5)
    with pytest.raises(InputError, match=r"0 to -1 radians of aberration; accepted: 0 to 50"):
        aberration(image, OPTICS, generator=seeded(), rms=(0, -1))


def test_patches_are_cut_from_the_shallow_planes_only(rng: np.random.Generator) -> None:
    for surface, shallow in (("first", range(7)), ("last", range(17, 24))):
        # Every plane has a grey level of its own.
        volume = photons(rng) + 50 * np.arange(24, dtype=np.uint16)[:, None, None]
        sources = [source_of(volume, replace(OPTICS, surface=surface))]
        fit, config = fitted(sources, "task.shallow=0.3", "net.context=2")
        bank = task.prepare(sources, fit, config, seed=0, round=0)
        assert bank.depth.tolist() == pytest.approx(sources[0].depth[list(shallow)].tolist())
        assert bank.validation_depth.max() <= fit.shallow
        levels = bank.images["raw"].view(7, -1).mean(1).numpy()
        np.testing.assert_allclose(levels, volume[list(shallow)].mean((1, 2)), rtol=1e-3)


def test_a_stack_without_shallow_planes_is_restored_but_not_learned_from(rng: np.random.Generator) -> None:
    deep = source_of(photons(rng), replace(OPTICS, depth_um=20.0))
    sources = [deep, source_of(photons(rng, mean=40.0))]
    fit, config = fitted(sources, "net.context=1")
    bank = task.prepare(sources, fit, config, seed=0, round=0)
    assert len(bank.depth) == 23  # a quarter of 26.9 um in planes of 0.3
    assert float(bank.images["raw"].mean()) == pytest.approx(3 * 40 + 100, rel=0.01)
    # The only stack in the bank is the second, whose square is held out.
    [(y, x)] = [(y, x) for n, y, x in fit.held_out if n == 1]
    volume = sources[1].volume()[0, y : y + fit.patch, x : x + fit.patch]
    np.testing.assert_array_equal(bank.validation["raw"][0, 1].numpy(), volume)


def test_input_and_target_share_no_noise_and_the_input_has_that_of_a_plane(rng: np.random.Generator) -> None:
    sources = [source_of(photons(rng))]

    def drawn(*settings: str) -> tuple[np.ndarray, np.ndarray]:
        fit, config = fitted(sources, "net.context=1", "task.shallow=1", *settings)
        bank = task.prepare(sources, fit, config, seed=0, round=0)
        batch, depth = draw(bank, 200, fit.patch, seeded(), augment=True)
        x, y, weight = task.sample(batch, depth, replace(fit, dimmest=1.0), seeded(1), config)
        assert x.shape == (200, 3, fit.patch, fit.patch)
        assert y.shape == weight.shape == (200, 1, fit.patch, fit.patch)
        inner = slice(fit.patch // 4, -(fit.patch // 4))
        assert (weight[..., inner, inner] == 1).all()
        assert (weight[..., 0, :] == 0).all()
        assert (weight[..., :, -1] == 0).all()
        return fit.norm.invert(x[:, 1].numpy()), fit.norm.invert(y[:, 0].numpy())

    for rms in (0.01, 3.0):
        x, y = drawn("task.thin=0.5", f"task.rms={rms}")
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 0.01
        # 20 photons of 3 grey levels.
        assert x.var() == pytest.approx(9 * 20, rel=0.06)
        assert y.var() == pytest.approx(9 * 40, rel=0.06)
    x, y = drawn("task.thin=0", "task.rms=0.01")
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.4


def test_inputs_are_as_dim_as_the_deepest_planes_and_targets_too(rng: np.random.Generator) -> None:
    sources = [source_of(photons(rng))]
    fit, config = fitted(sources, "task.shallow=1")
    bank = task.prepare(sources, fit, config, seed=0, round=0)
    batch, depth = draw(bank, 100, fit.patch, seeded(), augment=True)
    x, y, _ = task.sample(batch, depth, replace(fit, dimmest=0.2), seeded(1), config)
    x, y = (fit.norm.invert(image.mean((1, 2, 3))) - 100 for image in (x, y))
    torch.testing.assert_close(x, y, rtol=0.1, atol=0)
    assert 0.2 * 60 < float(x.min()) < 0.25 * 60
    assert 0.95 * 60 < float(x.max()) < 1.05 * 60


def test_too_few_planes_for_the_network_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"has 4 planes; accepted: 5.*smaller net\.context"):
        fitted([source_of(photons(rng, planes=4))], "net.context=2")


def test_what_is_assumed_of_the_optics_is_said(tiny_stack: Stack) -> None:
    source = Source(tiny_stack, 0, 0, depths(tiny_stack))
    fit = task.fit([source], load_recipe("aberration", TINY))
    assert fit.camera.notes[-1] == (
        "The file does not say of the optics, so assumed: aperture 1.1, wavelength 532 nm, index 1.33 "
        "(task.na, task.wavelength_nm, task.index)."
    )
    given = ("task.na=0.9", "task.wavelength_nm=600", "task.index=1.0")
    fit = task.fit([source], load_recipe("aberration", (*TINY, *given)))
    assert (fit.lens.na, fit.lens.wavelength_um, fit.lens.index) == (0.9, 0.6, 1.0)
    assert not any("assumed" in note for note in fit.camera.notes)


def test_a_stack_is_enhanced_by_its_own_shallow_planes(tiny_stack: Stack, tmp_path: Path) -> None:
    result = enhance([tiny_stack], load_recipe("aberration", (*TINY, "predict.iterations=1")), folder=tmp_path)
    [[[restored]]] = result.restored
    assert (restored.chosen == 1).all()
    assert restored.enhanced.shape == tiny_stack.shape
    assert np.isfinite(restored.enhanced).all()
    said = sections.degradation(report_data(result, 0, 0, title="tiny"))
    assert (said["blur"], said["share"]) == ("", None)
    assert said["why"].startswith("that of aberrations of up to 2 radians at aperture 1.1")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "aberration.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_aberration", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the names in their annotations.
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def test_the_phantom_is_sharp_at_the_surface_and_blurred_in_the_deep(benchmark: ModuleType) -> None:
    scene = benchmark.scene((3, 48, 48), 400.0, 0)
    # Gain 2, offset 100, read noise 3 and rounding: at the surface nothing else is between raw and truth.
    noise = scene.raw[0] - 100 - 2 * scene.truth[0]
    assert float(noise.var()) == pytest.approx(4 * float(scene.truth[0].mean()) + 9 + 1 / 12, rel=0.1)
    scores = [benchmark.pearson(raw, truth)[0].value for raw, truth in zip(scene.raw, scene.truth, strict=True)]
    assert scores[0] > scores[1] > scores[2]
    # A blur keeps the light, but at the borders.
    light = (scene.raw - 100).mean((1, 2)) / (2 * scene.truth.mean((1, 2)))
    assert light == pytest.approx([1, 1, 1], abs=0.15)
    again = benchmark.scene((3, 48, 48), 400.0, 0)
    np.testing.assert_array_equal(again.raw, scene.raw)


def test_the_phantoms_waves_grow_to_their_strongest(benchmark: ModuleType, rng: np.random.Generator) -> None:
    directions = rng.normal(size=(2, 18))
    for share in (0.0, 0.4, 1.0):
        waves = benchmark.waves_at(share, directions)
        assert list(waves) == list(range(3, 21))
        assert np.linalg.norm(list(waves.values())) == pytest.approx(1.5 * share)

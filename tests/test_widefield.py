"""What the widefield phantoms share: blur that keeps the light, borders like the middle, optics as given."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from deepcontrast import registry
from deepcontrast.synth import Phantom
from deepcontrast.synth._widefield import around, inside, picture, spot

CAMERA = {"gain": 1.0, "offset": 0.0, "read_noise": 1e-6, "autofluorescence": 0.0, "light": 1e4}
MICROSCOPE = {"na": 1.3, "wavelength_um": 0.58, "index": 1.518, "voxel_um": (0.25, 0.1, 0.1)}
KINDS = [n for n in registry.names("synth") if hasattr(registry.module("synth", n), "draw")]
SHAPES = [(1, 48, 48), (24, 40, 40)]


def seen(structure: np.ndarray, shape: tuple[int, int, int], **given: object) -> Phantom:
    parameters = {"shape": shape, **CAMERA, **MICROSCOPE, **given}
    mask = np.zeros(shape, bool)
    return picture(np.random.default_rng(0), structure, spot(parameters), mask, parameters)


@pytest.mark.parametrize("shape", [(1, 140, 140), (24, 140, 140)])
def test_blur_keeps_the_light_of_what_is_inside(shape: tuple[int, int, int]) -> None:
    kernel = spot({"shape": shape, **MICROSCOPE})
    structure = np.zeros(around(shape, kernel), np.float32)
    # Enough of it for a percentile of 99.9.
    inside(structure, shape)[shape[0] // 2 - (shape[0] > 1) :, 62:78, 62:78][:2] = 1
    if shape[0] > 1:
        inside(structure, shape)[10:14, 62:78, 62:78] = 1
    made = seen(structure, shape)
    assert made.raw.sum() == pytest.approx(made.truth.sum(), rel=0.01)
    assert made.raw.max() < made.truth.max() * 1.05


@pytest.mark.parametrize("shape", SHAPES)
def test_borders_look_like_the_middle(shape: tuple[int, int, int]) -> None:
    structure = np.ones(around(shape, spot({"shape": shape, **MICROSCOPE})), np.float32)
    made = seen(structure, shape)
    assert made.raw.shape == shape
    middle = made.raw[:, 10:-10, 10:-10].mean()
    assert made.raw[:, 0].mean() == pytest.approx(middle, rel=0.005)
    assert made.raw[[0, -1]].mean() == pytest.approx(middle, rel=0.005)
    assert middle == pytest.approx(1e4, rel=0.005)


def test_autofluorescence_has_its_mean_and_changes_slowly() -> None:
    shape = (1, 512, 512)
    structure = np.zeros(around(shape, spot({"shape": shape, **MICROSCOPE})), np.float32)
    inside(structure, shape)[:, :20, :20] = 1
    made = seen(structure, shape, autofluorescence=0.1)
    away = made.raw[0, 80:, 80:].astype(np.float64)
    assert away.mean() == pytest.approx(1e3, rel=0.1)
    assert away.max() < 2.1e3
    assert away.std() > 3 * np.sqrt(1e3)
    # Neighbours differ by their photons alone.
    assert np.diff(away, axis=1).std() == pytest.approx(np.sqrt(2 * 1e3), rel=0.1)


def test_there_are_the_kinds_that_can_be_drawn_while_training() -> None:
    assert set(KINDS) == {"granules", "mitochondria", "sarcomeres", "tubules"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(1, 48, 48), (5, 40, 40)])
def test_arrays_optics_and_parameters_are_what_they_say(name: str, shape: tuple[int, int, int]) -> None:
    made: Phantom = registry.load("synth", name)(
        shape=shape, seed=4, na=1.2, wavelength_um=0.6, index=1.4, gain=3.0, offset=50.0, read_noise=2.0
    )
    optics = made.optics
    assert (optics.numerical_aperture, optics.wavelengths, optics.refractive_index) == (1.2, (600.0,), 1.4)
    assert (optics.gain, optics.offset, optics.read_noise) == (3.0, 50.0, 2.0)
    assert optics.voxel_size == made.parameters["voxel_um"]
    assert set(made.parameters) == set(inspect.signature(registry.load("synth", name)).parameters)
    assert made.raw.shape == made.truth.shape == made.mask.shape == shape
    assert made.truth.dtype == np.float32
    assert made.truth.min() >= 0
    assert made.truth_optics is None


@pytest.mark.parametrize("name", KINDS)
def test_truth_knows_no_microscope_and_no_camera(name: str) -> None:
    function = registry.load("synth", name)
    # An aperture that changes the reach of the spot would change the field that is drawn: the noise alone.
    clear, noisy = (
        function(shape=(1, 40, 40), seed=3, autofluorescence=a, gain=g, offset=o, read_noise=r)
        for a, g, o, r in ((0.0, 1.0, 0.0, 0.0), (0.3, 5.0, 300.0, 20.0))
    )
    np.testing.assert_array_equal(clear.truth, noisy.truth)
    assert not np.array_equal(clear.raw, noisy.raw)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_drawn_has_the_parameters_of_the_phantom(name: str) -> None:
    phantom, draw = (
        inspect.signature(f).parameters for f in (registry.load("synth", name), registry.module("synth", name).draw)
    )
    assert {n: p.default for n, p in draw.items() if n not in ("rng", "shape", "voxel_um")}.items() <= {
        n: p.default for n, p in phantom.items()
    }.items()

"""Every phantom: true to its camera, its truth is the truth, and depth makes it harder to see."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.cli import run
from deepcontrast.errors import InputError
from deepcontrast.metrics.iou import iou
from deepcontrast.synth import Phantom

SMALL = (16, 64, 64)
PHANTOMS = registry.names("synth")
DEEP = tuple(n for n in PHANTOMS if "scatter_um" in inspect.signature(registry.load("synth", n)).parameters)

every_phantom = pytest.mark.parametrize("name", PHANTOMS)
every_deep_phantom = pytest.mark.parametrize("name", DEEP)


def phantom(name: str, **arguments: object) -> Phantom:
    made: Phantom = registry.load("synth", name)(**{"shape": SMALL, **arguments})
    return made


@every_phantom
def test_equal_arguments_give_equal_bytes_and_other_seeds_others(name: str) -> None:
    first, second, other = (phantom(name, seed=seed) for seed in (5, 5, 6))
    for array in ("raw", "truth", "mask"):
        assert getattr(first, array).tobytes() == getattr(second, array).tobytes()
        assert getattr(first, array).tobytes() != getattr(other, array).tobytes()


@every_deep_phantom
def test_arrays_and_optics_are_what_they_say(name: str) -> None:
    made = phantom(name, gain=3.0, offset=200.0, read_noise=4.0, voxel_um=0.25)
    assert made.raw.dtype == np.uint16
    assert made.truth.dtype == np.float32
    assert made.mask.dtype == np.bool_
    assert made.raw.shape == made.truth.shape == made.mask.shape == SMALL
    optics = made.optics
    assert (optics.gain, optics.offset, optics.read_noise, optics.surface) == (3.0, 200.0, 4.0, "first")
    assert optics.voxel_size == (0.25, 0.25, 0.25)
    assert set(made.parameters) == set(inspect.signature(registry.load("synth", name)).parameters)
    assert made.height is None
    assert made.truth_optics is None


@every_phantom
def test_truth_mask_and_labels_share_a_grid(name: str) -> None:
    made = phantom(name)
    assert made.raw.dtype == np.uint16
    assert made.raw.shape == SMALL
    assert made.truth.dtype == np.float32
    assert made.mask.dtype == np.bool_
    assert made.truth.shape == made.mask.shape
    if made.labels is not None:
        assert made.labels.dtype == np.int32
        assert made.labels.shape == made.truth.shape
        assert made.labels.min() == 0


@every_deep_phantom
def test_all_deep_phantoms_share_their_tissue_microscope_and_camera(name: str) -> None:
    shared = ("shape", "light", "voxel_um", "psf_um", "scatter_um", "attenuation_um", "haze_um")
    shared += ("autofluorescence", "gain", "offset", "read_noise")
    own, tissue = (inspect.signature(registry.load("synth", n)).parameters for n in (name, "tissue"))
    assert {n: own[n].default for n in shared} == {n: tissue[n].default for n in shared}


@every_deep_phantom
def test_truth_has_no_haze_no_noise_no_attenuation_no_camera(name: str) -> None:
    clear = phantom(name, seed=1)
    murky = phantom(
        name,
        seed=1,
        scatter_um=0.5,
        attenuation_um=2.0,
        haze_um=(2.0, 4.0, 9.0),
        autofluorescence=0.5,
        gain=9.0,
        offset=500.0,
        read_noise=30.0,
    )
    np.testing.assert_array_equal(clear.truth, murky.truth)
    assert not np.array_equal(clear.raw, murky.raw)


@every_deep_phantom
def test_truth_is_bright_in_the_mask_and_dark_far_from_it(name: str) -> None:
    made = phantom(name, seed=1)
    # Far from the faces too: beyond them are structures of which the mask knows nothing.
    far = ndimage.distance_transform_edt(np.pad(~made.mask, 1))[1:-1, 1:-1, 1:-1] > 5
    assert far.any()
    assert made.truth[far].max() < 0.1 * 25
    assert made.truth[made.mask].mean() > 10 * made.truth[far].mean()
    # Without cytoplasm nothing is there.
    assert phantom(name, seed=1, cytoplasm=0.0).truth[far].max() < 0.01 * 25


@every_phantom
def test_truth_is_in_photons_and_light_is_its_scale(name: str) -> None:
    dim, bright = (phantom(name, seed=2, light=light) for light in (5.0, 100.0))
    assert np.percentile(bright.truth, 99.9) == pytest.approx(100, rel=1e-3)
    np.testing.assert_allclose(bright.truth, 20 * dim.truth, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(bright.mask, dim.mask)


@every_deep_phantom
def test_in_clear_tissue_the_camera_sees_the_truth_and_the_autofluorescence(name: str) -> None:
    made = phantom(name, seed=2, light=100.0, scatter_um=1e6, attenuation_um=1e6)
    photons = (made.raw.astype(np.float64) - 100) / 2
    error = photons - (made.truth + 0.02 * 100)
    noise = np.sqrt(made.truth + 2 + (3 / 2) ** 2 + 1 / 48)
    assert abs(error.mean()) < 4 * noise.mean() / np.sqrt(error.size)
    assert np.std(error / noise) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("name", ["filaments", "nuclei", "spots"])
def test_faint_structures_lie_beside_bright_ones(name: str) -> None:
    made = phantom(name, seed=0, shape=(24, 96, 96), psf_um=(1e-3, 1e-3))
    labels, count = ndimage.label(made.mask)
    brightness = ndimage.median(made.truth, labels, np.arange(1, count + 1))
    assert np.percentile(brightness, 90) > 2 * np.percentile(brightness, 10)
    # A faint one is still far brighter than what lies around it.
    assert np.percentile(brightness, 10) > 4 * np.median(made.truth[~made.mask])


@every_deep_phantom
def test_depth_makes_it_harder(name: str) -> None:
    made = phantom(name, shape=(60, 80, 80), seed=1)
    found = np.array([iou(v, m)[0].value for v, m in zip(made.raw, made.mask, strict=True)])
    assert found[:12].mean() > 1.5 * found[-12:].mean()


@every_phantom
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 7, 50)])
def test_any_shape_is_simulated(name: str, shape: tuple[int, int, int]) -> None:
    made = phantom(name, shape=shape)
    assert made.raw.shape == shape
    assert np.isfinite(made.truth).all()


WRONG: tuple[tuple[dict[str, object], str], ...] = (
    ({"shape": (64, 64)}, "three sizes"),
    ({"shape": (0, 64, 64)}, "three sizes"),
    ({"light": 0.0}, "light = 0.0"),
    ({"psf_um": (1.0, -1.0)}, "psf_um"),
    ({"read_noise": -1.0}, "0 or more"),
    ({"cytoplasm": -1.0}, "0 or more"),
    ({"gain": float("nan")}, "above 0"),
    ({"na": 1.6}, "below the index"),
    ({"wavelength_um": 580.0}, "micrometres"),
    ({"spread": -0.1}, "spread = -0.1"),
)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        (name, wrong, said)
        for name in PHANTOMS
        for wrong, said in WRONG
        if set(wrong) <= set(inspect.signature(registry.load("synth", name)).parameters)
    ],
)
def test_impossible_tissue_is_refused_in_one_line(name: str, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        phantom(name, **wrong)
    assert "\n" not in str(caught.value)


@every_deep_phantom
def test_haze_without_width_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="haze_um"):
        phantom(name, haze_um=(1.0, -1.0, 2.0))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("filaments", "straight_um"), ("filaments", "density"), ("nuclei", "radius_um"), ("spots", "cell_um")],
)
def test_structures_without_size_are_refused(name: str, wrong: str) -> None:
    with pytest.raises(InputError, match=f"{wrong} = 0.0"):
        phantom(name, **{wrong: 0.0})


@pytest.mark.parametrize("name", ["filaments", "spots"])
def test_a_tissue_in_which_nothing_glows_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"less than 0\.1 % glows"):
        phantom(name, density=1e-9, cytoplasm=0.0)


def test_help_names_every_phantom(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in PHANTOMS)

"""A stack with an empty border or an empty plane is treated like the same stack without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepcontrast import registry
from deepcontrast.accept import surfaced
from deepcontrast.brightness import match_brightness
from deepcontrast.depth import bins, depths
from deepcontrast.enhancing import enhance
from deepcontrast.recipe import load_recipe
from deepcontrast.select import structures_kept
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue
from deepcontrast.task import Source

from .conftest import TINY


def holed(volume: np.ndarray) -> np.ndarray:
    """Return the volume with the drifting empty border of a registration, and two empty planes."""
    volume = volume.copy()
    for z in range(len(volume)):
        volume[z, : 4 + z // 2] = 0
        volume[z, :, -(6 + z // 2) :] = 0
    volume[9] = 0
    return volume


def source(volume: np.ndarray) -> Source:
    stack = Stack(volume, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3), surface="first"))
    return Source(stack, 0, 0, depths(stack))


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return tissue(shape=(24, 112, 128), seed=4).raw


@pytest.mark.parametrize("upside_down", [False, True])
def test_the_surface_is_the_same(volume: np.ndarray, upside_down: bool) -> None:
    turned = volume[::-1] if upside_down else volume
    found = [surfaced(Stack(v, "ZYX"), "auto")[0].optics.surface for v in (turned, holed(turned))]
    assert found == ["last" if upside_down else "first"] * 2


def test_camera_scale_and_blur_are_the_same(volume: np.ndarray) -> None:
    task = registry.load("tasks", "contrast")
    config = load_recipe("contrast", [*TINY, "task.sigma_um=0.1"])
    whole, holes = (task.fit([source(v)], config) for v in (volume, holed(volume)))
    assert holes.sigma == pytest.approx(whole.sigma, rel=0.15)
    assert holes.norm.offset == pytest.approx(whole.norm.offset, abs=5)
    assert holes.norm.scale == pytest.approx(whole.norm.scale, rel=0.1)
    assert holes.camera.gain == pytest.approx(whole.camera.gain, rel=0.15)


def test_the_rules_see_no_rim(volume: np.ndarray) -> None:
    task = registry.load("tasks", "contrast")
    one = source(holed(volume))
    fit = task.fit([one], load_recipe("contrast", TINY))
    filled = task.clean(one.volume(), fit, one.invalid)
    edges = bins([one.depth])
    scores = structures_kept([filled, volume.astype(np.float32)], one.depth, edges, one.invalid.valid)
    np.testing.assert_allclose(scores[:, 1], scores[:, 0], atol=0.02)
    found = match_brightness([[filled, filled]], [one.depth], edges, [one.invalid.valid])
    np.testing.assert_allclose(found.scale, 1, atol=1e-4)


def test_fidelity_does_not_blame_the_holes(volume: np.ndarray, tmp_path: Path) -> None:
    config = load_recipe("contrast", TINY)
    whole, holes = (
        enhance([Stack(v, "ZYX", Optics(voxel_size=(0.3, 0.3, 0.3)))], config, folder=tmp_path / name, iterations=1)
        for v, name in ((volume, "whole"), (holed(volume), "holes"))
    )
    for a, b in zip(whole.restored[0][0][0].fidelity, holes.restored[0][0][0].fidelity, strict=True):
        assert b.correlation == pytest.approx(a.correlation, abs=0.05)
    enhanced = holes.restored[0][0][0].enhanced
    np.testing.assert_array_equal(enhanced[holed(volume) == 0], 0)


def test_a_full_disk_is_an_error_not_a_crash(
    volume: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        enhance([Stack(volume, "ZYX")], load_recipe("contrast", TINY), folder=tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))

"""FCE-Net: its layers counted by hand, its reach, and that it learns from the stack what its target does."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.baselines import Scene
from deepcontrast.baselines import fce_net as baseline
from deepcontrast.baselines._fce_network import fce_net as network
from deepcontrast.baselines.fce_net import fce_net, passes
from deepcontrast.errors import Cancelled, InputError
from deepcontrast.progress import Event
from deepcontrast.stack import Optics

Volume = NDArray[np.float32]
TINY: dict[str, Any] = {"steps": 3, "features": 2, "trunk": 2, "patch": 32, "batch": 2}


def cells(shape: tuple[int, int, int] = (3, 64, 64), seed: int = 0) -> Volume:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, 3, 3), mode="wrap")
    return np.asarray(200 + 1000 * np.exp(-30 * np.abs(noise)), np.float32)


def correlation(a: Volume, b: Volume) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def parameters(net: torch.nn.Module, *parts: str) -> int:
    return sum(tensor.numel() for part in parts for tensor in net.get_submodule(part).parameters())


@pytest.mark.parametrize("n", [16, 64])
def test_every_path_has_the_parameters_of_its_description(n: int) -> None:
    net = network(features=n)
    # k k in out of each convolution and 2 out of its batch normalisation.
    assert parameters(net, "spatial") == (49 * n + 2 * n) + (9 * n * 2 * n + 4 * n) + (9 * 2 * n * 2 * n + 4 * n)
    # The published 11,689,512 less the classifier's 512 * 1000 + 1000, and one channel in for three.
    assert parameters(net, "stem", "stages") == 11_689_512 - 513_000 - 2 * 49 * 64
    assert parameters(net, "attention") == 49 * 2
    # Before a pixel shuffle, four times the maps after it: 512 -> 256 and 256 -> 2 n.
    assert parameters(net, "grow_32") == 512 * 4 * 256 + 4 * 256
    assert parameters(net, "grow_16") == (256 * 4 * 2 * n + 4 * 2 * n) + (9 * 2 * n * 2 * n + 4 * n)
    assert parameters(net, "merge") == 9 * 4 * n * n + 2 * n
    assert parameters(net, "last") == (9 * 2 * n * n + 2 * n) + (n + 1)
    parts = ("spatial", "stem", "stages", "attention", "grow_32", "grow_16", "merge", "last")
    assert parameters(net, "") == parameters(net, *parts)


def test_halo_is_how_far_a_value_that_is_not_a_number_spreads() -> None:
    net = network(features=1, trunk=1).eval()
    baseline._initialise(net, torch.Generator().manual_seed(0))
    step = net.step
    assert isinstance(step, int)
    blocks = 27
    image = torch.zeros(step, 1, step, blocks * step)
    middle = blocks // 2 * step
    for offset in range(step):
        image[offset, 0, :, middle + offset] = torch.nan
    with torch.no_grad():
        reached = net(image).isnan().any(dim=2)[:, 0]
    furthest = 0
    for offset in range(step):
        first = reached[offset].nonzero()[[0, -1], 0] // step * step
        furthest = max(furthest, middle + offset - (int(first[0]) + step - 1), int(first[1]) - (middle + offset))
    assert net.halo == furthest
    assert furthest < middle  # the field was wide enough to tell


def test_result_is_finite_repeatable_and_leaves_input_and_global_generator_as_they_were() -> None:
    volume = cells()
    before, state = volume.copy(), torch.get_rng_state()
    out = fce_net(volume, **TINY)
    assert out.shape == volume.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out, fce_net(volume, **TINY))
    assert not np.array_equal(out, fce_net(volume, **TINY, seed=1))
    np.testing.assert_array_equal(volume, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(2, 37, 51), (1, 20, 9), (4, 33, 96)])
def test_planes_of_any_size_work(shape: tuple[int, int, int]) -> None:
    out = fce_net(cells(shape), **TINY)
    assert out.shape == shape
    assert np.isfinite(out).all()


def test_grey_levels_scale_with_the_volume() -> None:
    volume = cells()
    # A power of two is exact in floating point.
    np.testing.assert_array_equal(fce_net(4 * volume, **TINY), 4 * fce_net(volume, **TINY))


def test_result_stays_within_the_percentiles_that_become_0_and_1() -> None:
    volume = cells()
    volume[0, 0, 0], volume[0, 0, 1] = -1e5, 1e5
    low, high = np.percentile(volume, (0.1, 99.9))
    out = fce_net(volume, **TINY)
    assert low - 0.01 <= out.min() <= out.max() <= high + 0.01


def test_a_constant_volume_is_left_as_it_is() -> None:
    flat = np.full((2, 20, 20), 7.0, np.float32)
    for out in passes(flat, iterations=2, **TINY):
        np.testing.assert_array_equal(out, flat)


def test_every_pass_is_returned_and_the_first_do_not_depend_on_how_many_follow() -> None:
    volume = cells()
    three = passes(volume, iterations=3, **TINY)
    assert len(three) == 3
    np.testing.assert_array_equal(three[0], fce_net(volume, **TINY))
    np.testing.assert_array_equal(three[1], fce_net(volume, iterations=2, **TINY))
    assert not np.array_equal(three[0], three[1])


def test_loss_falls_on_a_stack() -> None:
    events: list[Event] = []
    fce_net(cells(), learning_rate=1e-2, progress=events.append, **TINY | {"steps": 25, "batch": 4})
    losses = [float(str(event.values["loss"])) for event in events if event.stage == "train"]
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2
    assert [(e.done, e.total) for e in events if e.stage == "predict"] == [(1, 3), (2, 3), (3, 3)]


def test_network_learns_what_its_target_does(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = cells()
    # No teacher is further from doing nothing than one that turns black to white: correlation -1 before training.
    monkeypatch.setitem(baseline._TARGETS, "negative", lambda unit: 1 - unit)
    settings = TINY | {"steps": 60, "features": 8, "batch": 4, "learning_rate": 2e-2}
    assert correlation(fce_net(volume, target="negative", **settings), -volume) > 0.6


@pytest.mark.parametrize("choice", baseline.CHOICES)
def test_suggestion_and_choices_are_settings_of_the_function(choice: dict[str, Any]) -> None:
    scene = Scene(radius=2.0, anisotropy=1.0, noise=3.0, background=100.0, gain=2.0, optics=Optics())
    settings = {**baseline.suggested(scene), **choice}
    inspect.signature(fce_net).bind(cells(), **settings)
    assert settings["iterations"] in (1, 2, 3)


def test_fce_net_and_passes_take_the_same_settings() -> None:
    one, every = (inspect.signature(function).parameters for function in (fce_net, passes))
    assert list(one) == list(every)
    same = [name for name in one if one[name].default == every[name].default]
    assert set(one) - set(same) == {"iterations"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": "clahe2d"}, "no target 'clahe2d'; accepted: clahe_2d, clahe_3d; did you mean 'clahe_2d'?"),
        ({"patch": 40}, "patch is 40; it must be a positive multiple of 32"),
        ({"iterations": 0}, "iterations is 0; it must be at least 1"),
        ({"batch": 1}, "batch is 1; it must be at least 2"),
    ],
)
def test_wrong_setting_is_refused_in_one_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        fce_net(cells(), **TINY | wrong)
    assert str(error.value) == message


def test_what_is_not_finite_is_refused() -> None:
    volume = cells()
    volume[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fce_net(volume, **TINY)
    with pytest.raises(InputError, match="lower learning_rate, now 1e\\+30"):
        fce_net(cells(), **TINY, learning_rate=1e30)


def test_listener_can_stop_it() -> None:
    def stop(event: Event) -> None:
        if event.done == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        partial(fce_net, progress=stop)(cells(), **TINY)

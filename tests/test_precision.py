"""Precisions a device has, and the trial of which is faster."""

from __future__ import annotations

import time

import pytest
import torch

from deepcontrast.compute.layout import channels_last
from deepcontrast.compute.precision import autocast, has_bfloat16, rounding, try_out


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "avx2": True}, False),
        ({"cpu_name": "some"}, False),
    ],
)
def test_a_processor_has_bfloat16_where_torch_says_so(
    able: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert has_bfloat16("cpu") is expected


def test_a_torch_that_does_not_say_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16("cpu")


def test_autocast_is_that_of_convolutions_alone() -> None:
    conv, x = torch.nn.Conv2d(1, 2, 3, bias=False), torch.ones(1, 1, 8, 8)
    with autocast("cpu", "bfloat16"):
        assert conv(x).dtype == torch.bfloat16
        assert (x + x).dtype == torch.float32
    with autocast("cpu", "float32"):
        assert conv(x).dtype == torch.float32
    assert conv.weight.dtype == torch.float32


def test_float32_on_a_gpu_is_not_rounded_and_torch_left_as_it_was() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    assert before == "tf32", "torch no longer rounds: there is nothing to do"
    with pytest.raises(ValueError, match="stop"), rounding("cuda", "float32"):
        assert convolutions.fp32_precision == "ieee"
        raise ValueError("stop")
    assert convolutions.fp32_precision == before
    with rounding("cpu", "bfloat16"):
        assert torch.is_autocast_enabled("cpu")


def test_a_trial_finds_what_takes_less_time() -> None:
    took = {"float32": 0.02, "bfloat16": 0.005}
    calls: list[str] = []

    def work(precision: str) -> None:
        # The first turn is not counted: it may compile, or fill caches.
        end = time.process_time() + (0.05 if precision not in calls else took[precision])
        calls.append(precision)
        while time.process_time() < end:
            pass

    found = try_out(work, ("float32", "bfloat16"), seconds=0.0)
    assert calls == ["float32", "bfloat16"] * 2
    for precision, seconds in found.items():
        assert took[precision] <= seconds < took[precision] + 0.02


def test_the_layout_of_convolutions_follows_their_axes() -> None:
    for dims, conv in ((1, torch.nn.Conv1d), (2, torch.nn.Conv2d), (3, torch.nn.Conv3d)):
        x = torch.zeros(2, 4, *[6] * dims).contiguous(memory_format=channels_last(dims + 2))
        expected = 1 if dims > 1 else 6
        assert x.stride(1) == expected
        assert conv(4, 2, 3).to(memory_format=channels_last(dims + 2)).weight.ndim == dims + 2

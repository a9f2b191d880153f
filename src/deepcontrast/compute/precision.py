"""What precisions a device has, computing in one of them, and trying which is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def has_bfloat16(device: str) -> bool:
    """Return whether a device multiplies bfloat16 in hardware, not by way of float32."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        # Older versions of torch do not say.
        able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(bool(has) for name, has in able.items() if "bf16" in name)
    return False


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Compute convolutions and matrix products in a precision; what needs float32 stays in it (torch's own list)."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=DTYPES[precision])


def rounding(device: str, precision: str) -> AbstractContextManager[object]:
    """As :func:`autocast`, and float32 stays whole on a GPU, where torch has convolutions round it to 10 bits.

    For a result that is compared with others of its kind: tiled with whole, reduced precision with full.
    """
    return _unrounded() if precision == "float32" and device.startswith("cuda") else autocast(device, precision)


@contextmanager
def _unrounded() -> Iterator[None]:
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def try_out(work: Callable[[str], object], precisions: Sequence[str], *, seconds: float = 1.0) -> dict[str, float]:
    """Return the least CPU seconds that ``work(precision)`` took, per precision.

    All take turns for about ``seconds``, at least once, after a first turn that is not counted. CPU time, not time on
    the clock: what else the machine does must not decide.
    """
    for precision in precisions:
        work(precision)
    least = dict.fromkeys(precisions, float("inf"))
    end = time.monotonic() + seconds
    while True:
        for precision in precisions:
            begun = time.process_time()
            work(precision)
            least[precision] = min(least[precision], time.process_time() - begun)
        if time.monotonic() > end:
            return least

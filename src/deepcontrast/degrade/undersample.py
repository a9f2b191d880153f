"""The axis of a microscope: a blur along the rows, few planes, their noise, and what interpolation makes of them."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from deepcontrast.stack import Optics

Kernel = tuple[tuple[float, ...], ...]


def undersample(
    image: Tensor,
    optics: Optics,
    *,
    generator: torch.Generator,
    kernel: Kernel = ((1.0,),),
    factor: float = 4.0,
    phase: Tensor | None = None,
    noisier: float = 1.0,
) -> Tensor:
    """Return planes as if their rows lay along the axis: blurred, of few rows, noisy, interpolated to all rows again.

    Rows are taken at ``phase + n factor``, between two pixels by a cubic. Each gets as much noise as the blur took
    away, so that it has that of the microscope. Between them the image is interpolated linearly; beyond its borders it
    is mirrored.

    Args:
        image: (..., Y, X), float32, grey levels.
        optics: a grey level has noise of the variance ``gain (level - offset)``; none where there is no ``gain``.
        generator: of the image's device.
        kernel: of the blur, rows along the axis, odd sizes, sum 1.
        factor: rows between two that are taken, 1 or more; need not be whole.
        phase: where the first one lies (...), at least 0 and below ``factor``; drawn where ``None``.
        noisier: how many times the variance of the microscope's noise the image has.

    Source: CARE supplement, section 2.4; CSBDeep's ``anisotropic_distortions`` takes whole rows and a fixed phase.
    """
    leading, (rows, columns) = image.shape[:-2], image.shape[-2:]
    if phase is None:
        phase = torch.rand(leading, generator=generator, device=image.device) * factor
    planes = image.reshape(-1, 1, rows, columns)
    weights = _kernel(kernel, image.device)
    half, margin = len(kernel) // 2, math.ceil(factor) + 2
    tall = planes.index_select(2, _mirrored(rows, margin + half, image.device))
    wide = tall.index_select(3, _mirrored(columns, len(kernel[0]) // 2, image.device))
    blurred = functional.conv2d(wide, weights)[:, 0]

    count = math.ceil(rows / factor) + 3
    steps = torch.arange(-1, count - 1, device=image.device)
    at = phase.reshape(-1, 1) + steps * factor
    everywhere = torch.arange(-margin, rows + margin, device=image.device)
    taken = _cubic(at.unsqueeze(2) - everywhere) @ blurred
    if optics.gain:
        variance = optics.gain * (1 - noisier * float(sum(w * w for row in kernel for w in row)))
        noise = torch.randn(taken.shape, generator=generator, device=image.device)
        taken = taken + noise * ((taken - (optics.offset or 0.0)).clamp(min=0) * max(variance, 0.0)).sqrt()
    between = (1 - (torch.arange(rows, device=image.device).view(1, -1, 1) - at.unsqueeze(1)).abs() / factor).clamp(
        min=0
    )
    return (between @ taken).reshape(image.shape)


def _mirrored(length: int, reach: int, device: torch.device) -> Tensor:
    """Return the indices of so many pixels, and of those beyond both borders, which are the ones before them."""
    period = max(1, 2 * (length - 1))
    at = torch.arange(-reach, length + reach, device=device).remainder(period)
    return torch.minimum(at, period - at) if length > 1 else torch.zeros_like(at)


def _cubic(apart: Tensor) -> Tensor:
    """Return the weights of pixels so far away (Keys 1981, a = -1/2)."""
    d = apart.abs()
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


@lru_cache(maxsize=16)
def _kernel(kernel: Kernel, device: torch.device) -> Tensor:
    # Made on the device, so that a step can be captured; a convolution of torch does not turn its kernel.
    rows = [torch.stack([torch.full((), value, device=device) for value in row[::-1]]) for row in kernel[::-1]]
    return torch.stack(rows)[None, None]

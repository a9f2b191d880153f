"""What the contrast task cuts patches from: planes, and their haze of every width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast.bank import WEIGHT, fill_bank
from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config
from deepcontrast.degrade.blur import blur
from deepcontrast.stack import Optics
from deepcontrast.task import Bank, Source
from deepcontrast.tasks._contrast_fit import Fit, Params, cleaned
from deepcontrast.valid import Box, within


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return planes or windows of planes, their blur, and where patches may start.

    Where not all planes fit ``task.bank_mb``, a random choice, another one every round. Only what is in the bank is
    read, and around it as far as the blur reaches.

    Raises:
        InputError: no patch is free of invalid voxels and clear of the held-out squares.
    """
    params = Params(**config.task)
    names = ["raw", *hazes_of(fit)]
    if params.balance or not all(source.survey.all_valid for source in sources):
        names.append(WEIGHT)

    @cache
    def volume(i: int) -> Cleaned:
        return cleaned(sources[i].frame, fit, sources[i].survey)

    def read(i: int, box: Box) -> Iterator[tuple[str, Tensor]]:
        return _read(sources[i], volume(i), box, names, fit, params)

    return fill_bank(
        sources, names, read,
        patch=fit.patch, offsets=fit.layers, slabs=fit.in_space, held_out=fit.held_out, megabytes=params.bank_mb,
        rng=np.random.default_rng((seed, round)),
    )  # fmt: skip


def hazes_of(fit: Fit) -> list[str]:
    """Return the names of the images that haze is mixed from."""
    return [f"haze {n}" for n in range(len(fit.widths))]


def blur_planes(image: Tensor, sigma: float, valid: Tensor | None) -> Tensor:
    """Blur plane by plane, so that memory stays that of the result."""
    optics = Optics()
    planes = [blur(image[z], optics, sigma=sigma, valid=None if valid is None else valid[z]) for z in range(len(image))]
    return torch.stack(planes)


def _read(
    source: Source, volume: Cleaned, box: Box, names: Sequence[str], fit: Fit, params: Params
) -> Iterator[tuple[str, Tensor]]:
    """Yield raw, hazes and, where ``names`` has it, the weight of a box (Z, Y, X) of a source, with their names.

    One after the other: all of them together would take several times the memory of the planes. The weight is 0 where a
    voxel is invalid.
    """
    z, y, x = box
    reach = int(4 * fit.sigma + 0.5)  # where SciPy cuts a Gaussian
    _, height, width = source.frame.shape
    around = (
        slice(max(0, y.start - reach), min(height, y.stop + reach)),
        slice(max(0, x.start - reach), min(width, x.stop + reach)),
    )
    inner = within((y, x), around)
    image = torch.from_numpy(volume[z, *around])
    yield "raw", image[:, *inner]
    valid = source.valid((z, *around))
    known = None if valid is None else torch.from_numpy(valid)
    for name, sigma in zip(hazes_of(fit), fit.sigmas, strict=True):
        yield name, blur_planes(image, sigma, known)[:, *inner]
    if WEIGHT in names:
        weight = torch.ones_like(image) if known is None else known.float()
        if params.balance:
            weight *= _dimness(source.depth[z], fit)[:, None, None]
        yield WEIGHT, weight[:, *inner]


def _dimness(depth: NDArray[np.float64], fit: Fit) -> Tensor:
    """Return how much dimmer than the whole the structure is at depths (N,), read at the nearest sampled depth."""
    index = np.searchsorted(np.array(fit.plane_depth, np.float32), depth.astype(np.float32))
    return 1 / torch.tensor(fit.plane_scale)[index.clip(max=len(fit.plane_depth) - 1)]

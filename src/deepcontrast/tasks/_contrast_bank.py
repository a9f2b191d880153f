"""What the contrast task cuts patches from: planes, their haze of every width, and where patches may start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config
from deepcontrast.degrade.blur import blur
from deepcontrast.errors import InputError
from deepcontrast.patches import (
    Window,
    corners,
    cut,
    jitter,
    layers,
    patch_box,
    squares,
    validation_places,
    windows,
    with_layers,
)
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
    rng = np.random.default_rng((seed, round))
    shapes = [source.frame.shape for source in sources]
    names = ["raw", *hazes_of(fit)]
    voxel = 4 * (len(names) + 1)  # a weight may come to them
    reach = max(fit.layers)
    inside = reach if fit.in_space else 0
    wanted, complete = windows(shapes, int(params.bank_mb * 1e6) // voxel, 2 * fit.patch, rng, reach, inside)
    pieces, shown, trained = with_layers(wanted, [shape[0] for shape in shapes], fit.layers, slabs=fit.in_space)
    spacing, held_out = jitter(fit.patch), squares(sources, fit.held_out)
    if params.balance or not all(source.survey.all_valid for source in sources):
        names.append("weight")
    places = validation_places(sources, held_out, fit.patch, inside=inside)
    used = sorted({one.source for one in pieces} | {i for i, *_ in places})
    volumes = {i: cleaned(sources[i].frame, fit, sources[i].survey) for i in used}
    start: list[int] = []
    width: list[int] = []
    depth: list[float] = []
    rows = []
    images = {name: torch.empty(sum(math.prod(_shape(one)) for one in pieces)) for name in names}
    end = 0
    for one in pieces:
        box, shape = (one.z, one.y, one.x), _shape(one)
        valid: NDArray[np.bool_] | None = None
        for name, planes in _read(sources[one.source], volumes[one.source], box, names, fit, params):
            images[name][end : end + math.prod(shape)].view(shape).copy_(planes)
            if name == "weight":
                valid = planes.numpy() > 0
        clear = [(y - one.y.start, x - one.x.start) for y, x in held_out[one.source]]
        found = corners(valid, shape, fit.patch, spacing, clear) + np.array([len(start), 0, 0])
        rows.append(found[trained[found[:, 0]]])
        start += [end + n * shape[1] * shape[2] for n in range(shape[0])]
        width += [shape[2]] * shape[0]
        depth += sources[one.source].depth[one.z].tolist()
        end += math.prod(shape)
    if not sum(len(r) for r in rows) or not places:
        raise InputError(
            f"no patch of {fit.patch} pixels is free of empty and saturated voxels; try a smaller train.patch"
        )
    bank = Bank(
        images=images,
        start=torch.tensor(start),
        width=torch.tensor(width),
        layers=torch.from_numpy(shown),
        depth=torch.tensor(depth, dtype=torch.float32),
        corners=torch.from_numpy(np.concatenate(rows)),
        jitter=spacing,
        validation={},
        validation_depth=torch.tensor([sources[i].depth[z] for i, z, _, _ in places], dtype=torch.float32),
        complete=complete,
    )
    if complete:
        first = np.cumsum([0, *(len(source.depth) for source in sources)])
        held = cut(bank, torch.tensor([(first[i] + z, y, x) for i, z, y, x in places]), fit.patch)
    else:
        patches = [
            _held(sources[i], volumes[i], z, patch_box(z, y, x, fit.patch), names, fit, params) for i, z, y, x in places
        ]
        held = {name: torch.stack([patch[name] for patch in patches]) for name in names}
    return replace(bank, validation=held)


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
    if "weight" in names:
        weight = torch.ones_like(image) if known is None else known.float()
        if params.balance:
            weight *= _dimness(source.depth[z], fit)[:, None, None]
        yield "weight", weight[:, *inner]


def _held(
    source: Source, volume: Cleaned, z: int, box: Box, names: Sequence[str], fit: Fit, params: Params
) -> dict[str, Tensor]:
    """Return a held-out patch of a plane with its neighbours, each image (C, Y, X)."""
    around = layers(len(source.depth), fit.layers)[z]
    planes = slice(int(around.min()), int(around.max()) + 1)
    images = _read(source, volume, (planes, *box[1:]), names, fit, params)
    return {name: image[around - planes.start] for name, image in images}


def _dimness(depth: NDArray[np.float64], fit: Fit) -> Tensor:
    """Return how much dimmer than the whole the structure is at depths (N,), read at the nearest sampled depth."""
    index = np.searchsorted(np.array(fit.plane_depth, np.float32), depth.astype(np.float32))
    return 1 / torch.tensor(fit.plane_scale)[index.clip(max=len(fit.plane_depth) - 1)]


def _shape(one: Window) -> tuple[int, int, int]:
    return one.z.stop - one.z.start, one.y.stop - one.y.start, one.x.stop - one.x.start

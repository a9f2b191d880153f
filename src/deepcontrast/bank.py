"""A bank filled: the planes that patches are cut from, read piece by piece, whatever their images are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast.errors import InputError
from deepcontrast.patches import (
    Column,
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
from deepcontrast.task import Bank, Source
from deepcontrast.valid import Box

WEIGHT = "weight"
"""The image that says how much a voxel counts; 0 where it holds no measurement."""
CENTRE = "centre"
"""The image that is not kept: it is above 0 where the middle of a patch should lie."""

Read = Callable[[int, Box], Iterator[tuple[str, Tensor]]]
"""Yields the images of a box (Z, Y, X) of a source, by its number, with their names, one after the other."""


def fill_bank(
    sources: Sequence[Source],
    names: Sequence[str],
    read: Read,
    *,
    patch: int,
    offsets: Sequence[int],
    slabs: bool,
    held_out: Sequence[Column],
    megabytes: int,
    rng: np.random.Generator,
) -> Bank:
    """Return planes or windows of planes and where patches may start, as much as fits.

    Where not all planes fit it is a random choice of ``rng``. Only what is in the bank is read.

    Args:
        sources: what is trained on.
        names: of the images.
        read: gives them, and may give a ``CENTRE``.
        patch: side of a patch in pixels.
        offsets: of the planes that a patch is cut from, 0 in their middle.
        slabs: whether all planes of a patch are trained on.
        held_out: squares of the stacks that no training patch may touch.
        megabytes: that the planes may take.
        rng: chooses.

    Raises:
        InputError: no patch is free of invalid voxels and clear of the held-out squares.
    """
    shapes = [source.frame.shape for source in sources]
    voxel = 4 * (len([name for name in names if name != WEIGHT]) + 1)  # a weight may come to them
    reach = -min(offsets), max(offsets)
    inside = reach if slabs else (0, 0)
    wanted, complete = windows(shapes, megabytes * 10**6 // voxel, 2 * patch, rng, reach, inside)
    pieces, shown, trained = with_layers(wanted, [shape[0] for shape in shapes], offsets, slabs=slabs)
    spacing, closed = jitter(patch), squares(sources, held_out)
    places = validation_places(sources, closed, patch, inside=inside)
    start: list[int] = []
    width: list[int] = []
    depth: list[float] = []
    rows, central = [], []
    images = {name: torch.empty(sum(math.prod(_shape(one)) for one in pieces)) for name in names}
    end = 0
    for one in pieces:
        shape = _shape(one)
        valid: NDArray[np.bool_] | None = None
        centre: NDArray[np.bool_] | None = None
        for name, planes in read(one.source, (one.z, one.y, one.x)):
            if name == CENTRE:
                centre = planes.numpy() > 0
                continue
            images[name][end : end + math.prod(shape)].view(shape).copy_(planes)
            if name == WEIGHT:
                valid = planes.numpy() > 0
        clear = [(y - one.y.start, x - one.x.start) for y, x in closed[one.source]]
        found = corners(valid, shape, patch, spacing, clear)
        found = found[trained[len(start) + found[:, 0]]]
        middle = found + np.array([0, *[(patch + spacing) // 2] * 2])
        central.append(np.ones(len(found), bool) if centre is None else centre[tuple(middle.T)])
        rows.append(found + np.array([len(start), 0, 0]))
        start += [end + n * shape[1] * shape[2] for n in range(shape[0])]
        width += [shape[2]] * shape[0]
        depth += sources[one.source].depth[one.z].tolist()
        end += math.prod(shape)
    every, chosen = np.concatenate(rows), np.concatenate(central)
    if not len(every) or not places:
        raise InputError(f"no patch of {patch} pixels is free of empty and saturated voxels; try a smaller train.patch")
    bank = Bank(
        images=images,
        start=torch.tensor(start),
        width=torch.tensor(width),
        layers=torch.from_numpy(shown),
        depth=torch.tensor(depth, dtype=torch.float32),
        # Where no patch has what is wanted in its middle, any will do.
        corners=torch.from_numpy(every[chosen] if chosen.any() else every),
        jitter=spacing,
        validation={},
        validation_depth=torch.tensor([sources[i].depth[z] for i, z, _, _ in places], dtype=torch.float32),
        complete=complete,
    )
    if complete:
        first = np.cumsum([0, *(shape[0] for shape in shapes)])
        held = cut(bank, torch.tensor([(first[i] + z, y, x) for i, z, y, x in places]), patch)
    else:
        patches = [_held(read, i, shapes[i][0], patch_box(z, y, x, patch), offsets) for i, z, y, x in places]
        held = {name: torch.stack([one[name] for one in patches]) for name in names}
    return replace(bank, validation=held)


def _held(read: Read, source: int, planes: int, box: Box, offsets: Sequence[int]) -> dict[str, Tensor]:
    """Return a held-out patch of a plane with its neighbours, each image (C, Y, X)."""
    around = layers(planes, offsets)[box[0].start]
    z = slice(int(around.min()), int(around.max()) + 1)
    images = read(source, (z, *box[1:]))
    return {name: image[around - z.start] for name, image in images if name != CENTRE}


def _shape(one: Window) -> tuple[int, int, int]:
    return one.z.stop - one.z.start, one.y.stop - one.y.start, one.x.stop - one.x.start

"""A bank of columns: patches that are cut through all planes of a stack, with a plane that is their target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast.errors import InputError
from deepcontrast.patches import Column, corners, cut, jitter, squares, validation_places, windows
from deepcontrast.task import Bank, Source
from deepcontrast.valid import Box

COLUMNS, WEIGHT = "columns", "weight"
"""The images of the bank: the planes of a stack, then its target; how much a pixel counts."""

Read = Callable[[int, Box], tuple[Tensor, Tensor]]
"""Gives a box of the plane of a source, by its number: all its planes (Z, Y, X), and the target (1, Y, X)."""


def fill_columns(
    sources: Sequence[Source],
    read: Read,
    *,
    planes: int,
    patch: int,
    held_out: Sequence[Column],
    megabytes: int,
    rng: np.random.Generator,
) -> Bank:
    """Return windows of stacks through all their planes, and where patches may start, as much as fits.

    The last of the ``planes + 1`` layers of a patch is its target. A stack of fewer planes shows its last one again.
    Where not everything fits it is a random choice of ``rng``, and only that is read.

    Args:
        sources: flattened stacks with their targets, planes (1, Y, X).
        read: gives them.
        planes: of the deepest stack.
        patch: side of a patch in pixels.
        held_out: squares of the stacks that no training patch may touch.
        megabytes: that the windows may take.
        rng: chooses.

    Raises:
        InputError: no patch is free of invalid pixels and clear of the held-out squares.
    """
    shapes = [source.frame.shape for source in sources]
    weighed = not all(source.all_valid for source in sources)
    voxel = 4 * (planes + 1) * (1 + weighed)
    wanted, complete = windows(shapes, megabytes * 10**6 // voxel, 2 * patch, rng)
    spacing, closed = jitter(patch), squares(sources, held_out)
    images: dict[str, list[Tensor]] = {COLUMNS: [], WEIGHT: []}
    start, width, shown, rows = list[int](), list[int](), list[list[int]](), list[NDArray[np.int64]]()
    end = 0

    def add(i: int, box: Box) -> int:
        """Put a window into the bank and return the piece that is its target."""
        nonlocal end
        columns, target = read(i, box)
        height, length = target.shape[1:]
        first = len(start)
        depth = len(columns)
        start.extend(end + n * height * length for n in range(depth + 1))
        width.extend([length] * (depth + 1))
        shown.extend([[first + min(z, depth - 1) for z in range(planes)] + [first + depth]] * (depth + 1))
        images[COLUMNS] += [columns.flatten(), target.flatten()]
        if weighed:
            valid = sources[i].valid(box)
            weight = torch.ones(target.shape) if valid is None else torch.from_numpy(valid).float()
            images[WEIGHT].append(weight.expand(depth + 1, -1, -1).flatten())
        end += (depth + 1) * height * length
        return first + depth

    for one in wanted:
        box = (slice(0, 1), one.y, one.x)
        piece = add(one.source, box)
        clear = [(y - one.y.start, x - one.x.start) for y, x in closed[one.source]]
        shape = (1, one.y.stop - one.y.start, one.x.stop - one.x.start)
        found = corners(sources[one.source].valid(box), shape, patch, spacing, clear)
        rows.append(found + np.array([piece, 0, 0]))
    every = np.concatenate(rows)
    places = validation_places(sources, closed, patch)
    if not len(every) or not places:
        raise InputError(f"no patch of {patch} pixels is free of empty pixels; try a smaller train.patch")
    held = [(add(i, (slice(0, 1), slice(y, y + patch), slice(x, x + patch))), 0, 0) for i, _, y, x in places]
    bank = Bank(
        images={name: torch.cat(parts) for name, parts in images.items() if parts},
        start=torch.tensor(start),
        width=torch.tensor(width),
        layers=torch.tensor(shown),
        depth=torch.zeros(len(start)),
        corners=torch.from_numpy(every),
        jitter=spacing,
        validation={},
        validation_depth=torch.zeros(len(held)),
        complete=complete,
    )
    return replace(bank, validation=cut(bank, torch.tensor(held), patch))

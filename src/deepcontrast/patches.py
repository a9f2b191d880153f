"""Where patches may start, which region is held out, and how a batch is cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast.errors import InputError
from deepcontrast.task import Bank, Source
from deepcontrast.valid import Box

SIDE = 1024
"""Pixels of the longest plane that a bank holds whole where not everything fits."""
LONGEST = 4096
"""The same where everything fits: the blur of a plane is a product with a matrix of its length."""
TOGETHER = 4
"""Neighbouring planes read together: a chunk of a large stack has about 16, of which so many are used, not one."""

Column = tuple[int, int, int]
"""A held-out square of one stack, through all its planes: (stack, y, x) of its corner."""

VALIDATION = 64
"""Held-out patches."""
ASKED = 2048
"""Places of held-out patches, more than which are not all asked whether they are valid."""


def patch_size(shape: tuple[int, int], patch: int, step: int) -> int:
    """Return the patch that fits a field (Y, X) beside a held-out square of the same size.

    Raises:
        InputError: not even the smallest patch the network takes fits twice.
    """
    short, long = min(shape), max(shape)
    # A jittered patch is an eighth longer than itself, and must fit beside a held-out square.
    size = int(min(patch, short / 1.125, long / 2.125)) // step * step
    if size < step or size < 8:
        raise InputError(
            f"planes of {shape[0]} x {shape[1]} pixels are too small to train on; "
            f"at least {max(8, step)} x {2 * max(8, step)} are needed for this network"
        )
    return size


def hold_out(
    shapes: Sequence[tuple[int, int]], patch: int, share: float, rng: np.random.Generator
) -> tuple[Column, ...]:
    """Choose held-out squares of ``patch`` pixels, about ``share`` of every field, at least one each.

    A square is held out through all planes and time points of its stack: neighbouring planes show the same
    structures, so a plane-wise split would leak.
    """
    columns = []
    for stack, (height, width) in enumerate(shapes):
        grid = [(y, x) for y in range(0, height - patch + 1, patch) for x in range(0, width - patch + 1, patch)]
        # In a small field only a square at the rim leaves a whole patch beside it.
        rim = [(y, x) for y in (0, height - patch) for x in (0, width - patch)]
        count = max(1, min(len(grid) // 4, round(share * height * width / patch**2)))
        chosen: list[tuple[int, int]] = []
        for y, x in [grid[i] for i in rng.permutation(len(grid))] + rim:
            if len(chosen) < count and len(corners(None, (1, height, width), patch, jitter(patch), [*chosen, (y, x)])):
                chosen.append((y, x))
        columns += [(stack, y, x) for y, x in sorted(chosen)]
    return tuple(columns)


def squares(sources: Sequence[Source], held_out: Sequence[Column]) -> list[list[tuple[int, int]]]:
    """Return the held-out squares (y, x) of every source, numbered by stacks in the order of the sources."""
    stacks = list(dict.fromkeys(id(source.stack) for source in sources))
    return [[(y, x) for n, y, x in held_out if n == stacks.index(id(source.stack))] for source in sources]


def retiled(held_out: Sequence[Column], size: int, patch: int) -> tuple[Column, ...]:
    """Return held-out squares of ``patch`` pixels, at most ``size``, that cover the same pixels as squares of ``size``.

    They overlap where ``patch`` does not divide ``size``.
    """
    first = np.unique(np.linspace(0, size - patch, -(-size // patch)).round().astype(int)).tolist()
    return tuple((stack, y + down, x + right) for stack, y, x in held_out for down in first for right in first)


def validation_places(
    sources: Sequence[Source],
    held_out: Sequence[Sequence[tuple[int, int]]],
    patch: int,
    *,
    inside: tuple[int, int] = (0, 0),
) -> list[tuple[int, int, int, int]]:
    """Return held-out patches (source, z, y, x), evenly spaced, mostly valid, so many planes before and after them."""
    columns = [(i, y, x) for i, corners_of in enumerate(held_out) for y, x in corners_of]
    ends = np.cumsum([len(sources[i].depth) for i, _, _ in columns])

    def place(number: int) -> tuple[int, int, int, int]:
        column = int(np.searchsorted(ends, number, "right"))
        i, y, x = columns[column]
        return i, number - int(ends[column]) + len(sources[i].depth), y, x

    def mostly_valid(number: int) -> bool:
        i, z, y, x = place(number)
        valid = sources[i].valid(patch_box(z, y, x, patch))
        return valid is None or bool(valid.mean() > 0.5)

    numbers = np.arange(ends[-1] if len(ends) else 0)
    if any(inside):
        first, last = inside
        numbers = np.array(
            [n for n in numbers.tolist() if first <= place(n)[1] < len(sources[place(n)[0]].depth) - last], np.int64
        )
    if not all(source.all_valid for source in sources):
        if len(numbers) > ASKED:
            numbers = evenly(numbers, 2 * VALIDATION)
        numbers = np.array([n for n in numbers.tolist() if mostly_valid(n)], np.int64)
    return [place(n) for n in evenly(numbers, VALIDATION).tolist()]


def patch_box(z: int, y: int, x: int, patch: int) -> Box:
    return slice(z, z + 1), slice(y, y + patch), slice(x, x + patch)


def evenly(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return up to so many of the values (n,), evenly spaced."""
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), count)).round().astype(int))
    chosen: NDArray[np.int64] = values[places]
    return chosen


def unseen(held_out: Sequence[Column], patch: int, shape: tuple[int, int], stack: int = 0) -> NDArray[np.bool_]:
    """Return the pixels (Y, X) of a stack, by its number, that were held out of training through all planes."""
    region = np.zeros(shape, bool)
    for of, y, x in held_out:
        if of == stack:
            region[y : y + patch, x : x + patch] = True
    return region


def jitter(patch: int) -> int:
    """Return the spacing of the grid of corners that a patch is drawn from."""
    return max(1, patch // 8)


def corners(
    valid: NDArray[np.bool_] | None,
    shape: tuple[int, int, int],
    patch: int,
    spacing: int,
    held_out: Sequence[tuple[int, int]],
) -> NDArray[np.int64]:
    """Return (M, 3) corners (plane, y, x) whose patch, shifted by up to ``spacing - 1``, may be trained on.

    It lies inside the field, clear of the held-out squares, and at least 9 of 10 of its voxels are valid.
    """
    planes, height, width = shape
    box = patch + spacing - 1
    if height < box or width < box:
        raise InputError(f"patches of {patch} pixels do not fit planes of {height} x {width}")
    y, x = np.arange(0, height - box + 1, spacing), np.arange(0, width - box + 1, spacing)
    free = np.ones((len(y), len(x)), bool)
    for top, left in held_out:
        in_y, in_x = (y > top - box) & (y < top + patch), (x > left - box) & (x < left + patch)
        free[np.ix_(in_y, in_x)] = False
    allowed = np.broadcast_to(free, (planes, *free.shape)).copy()
    if valid is not None:
        for z in range(planes):
            total = np.pad(valid[z].astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
            inside = (
                total[np.ix_(y + box, x + box)]
                - total[np.ix_(y, x + box)]
                - total[np.ix_(y + box, x)]
                + total[np.ix_(y, x)]
            )
            allowed[z] &= inside >= 0.9 * box * box
    plane, row, column = np.nonzero(allowed)
    return np.stack([plane, y[row], x[column]], axis=1).astype(np.int64)


@dataclass(frozen=True)
class Window:
    """Neighbouring planes of a source, by its number, or the same window of each; slices with start and stop."""

    source: int
    z: slice
    y: slice
    x: slice


def windows(
    shapes: Sequence[tuple[int, int, int]],
    voxels: int,
    least: int,
    rng: np.random.Generator,
    around: tuple[int, int] = (0, 0),
    inside: tuple[int, int] = (0, 0),
) -> tuple[list[Window], bool]:
    """Return what of some volumes (Z, Y, X) a bank of so many voxels is drawn from, and whether that is everything.

    Where not everything fits, it is a random choice of runs of ``TOGETHER`` neighbouring planes, and of planes longer
    than ``SIDE`` pixels of windows that cover them, at least ``least`` pixels long. They come in the order they lie in.
    With every run there is room for the planes ``around`` it, so many before and after, and none begins in the first or
    last planes that are not ``inside``, which are not trained on.
    """
    complete = sum(math.prod(shape) for shape in shapes) <= voxels and max(max(s[1:]) for s in shapes) <= LONGEST
    side = LONGEST if complete else max(SIDE, least)
    first, last = (0, 0) if complete else inside
    more = 0 if complete else sum(around)
    grids = [
        (np.arange(first, planes - last, TOGETHER), _cover(height, side), _cover(width, side))
        for planes, height, width in shapes
    ]
    ends = np.cumsum([math.prod(len(axis) for axis in grid) for grid in grids]).tolist()
    chosen: list[tuple[int, Window]] = []
    left = voxels
    for number in range(ends[-1]) if complete else rng.permutation(ends[-1]):
        source = int(np.searchsorted(ends, number, "right"))
        planes, height, width = shapes[source]
        grid = grids[source]
        place = np.unravel_index(number - ends[source] + math.prod(map(len, grid)), [len(axis) for axis in grid])
        z, y, x = (int(axis[i]) for axis, i in zip(grid, place, strict=True))
        window = (slice(y, min(y + side, height)), slice(x, min(x + side, width)))
        size = math.prod(s.stop - s.start for s in window)
        depth = min(TOGETHER, planes - last - z, max(left // size - more, 0 if chosen else 1))
        if depth < 1:
            break
        left -= (depth + more) * size
        chosen.append((int(number), Window(source, slice(z, z + depth), *window)))
    return [window for _, window in sorted(chosen, key=lambda one: one[0])], complete


def _cover(length: int, side: int) -> NDArray[np.int64]:
    """Return where the least number of windows start that cover a length, evenly spaced."""
    count = -(-length // side)
    return np.linspace(0, max(0, length - side), count).round().astype(np.int64)


def layers(length: int, offsets: Sequence[int]) -> NDArray[np.int64]:
    """Return for each plane of a stack the planes (length, C) at some offsets, mirrored at the first and last plane."""
    period = max(1, 2 * (length - 1))
    there = (np.arange(length)[:, None] + np.array(offsets)) % period
    folded: NDArray[np.int64] = np.minimum(there, period - there) if length > 1 else there
    return folded


def with_layers(
    wanted: Sequence[Window], planes: Sequence[int], offsets: Sequence[int], *, slabs: bool = False
) -> tuple[list[Window], NDArray[np.int64], NDArray[np.bool_]]:
    """Return what is read for some windows and the planes around them, each plane once.

    A plane that mirroring makes its own neighbour is not trained on: shown twice, it tells more of its noise than a
    plane with true neighbours does.

    Args:
        wanted: windows, those of equal place in y and x by rising z.
        planes: of every source.
        offsets: of the planes that a patch is cut from, 0 in their middle.
        slabs: whether all planes of a patch are trained on; then none may be there twice.

    Returns:
        Windows whose planes are the pieces of the bank, int64 (P, C) the pieces that each is shown with, and (P,)
        those that may be trained on.
    """
    before, after = -min(offsets), max(offsets)
    number: dict[tuple[int, int, int, int], int] = {}
    asked: set[tuple[int, int, int, int]] = set()
    read = []
    for one in wanted:
        source, y, x = one.source, one.y.start, one.x.start
        last = min(planes[source], one.z.stop + after)
        new = [z for z in range(max(0, one.z.start - before), last) if (source, z, y, x) not in number]
        asked |= {(source, z, y, x) for z in range(one.z.start, one.z.stop)}
        number |= {(source, z, y, x): len(number) + n for n, z in enumerate(new)}
        if new:
            read.append(Window(source, slice(new[0], new[-1] + 1), one.y, one.x))
    tables = {source: layers(planes[source], offsets) for source in {one.source for one in wanted}}
    shown, trained = np.empty((len(number), len(offsets)), np.int64), np.zeros(len(number), bool)
    for (source, z, y, x), piece in number.items():
        around = tables[source][z]
        once = len(set(around.tolist())) == len(around) if slabs else (around == z).sum() == 1
        trained[piece] = (source, z, y, x) in asked and once
        shown[piece] = [number.get((source, int(other), y, x), piece) for other in around]
    return read, shown, trained


def cut(bank: Bank, rows: Tensor, patch: int) -> dict[str, Tensor]:
    """Return the patches that start at places (N, 3), piece, y and x, each image (N, C, Y, X)."""
    piece, y, x = rows.unbind(1)
    return _gathered(bank, _places(bank, piece, y, x, torch.zeros_like(piece), patch), patch)


def draw(
    bank: Bank, count: int, patch: int, generator: torch.Generator, *, augment: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Return ``count`` random training patches, each image (N, C, Y, X), and the depth of each (N,).

    All is arithmetic on the bank's device, the generator's too, in shapes that do not depend on what is drawn.
    """
    device = bank.corners.device
    chosen = torch.randint(len(bank.corners), (count,), generator=generator, device=device)
    piece, y, x = bank.corners.index_select(0, chosen).unbind(1)
    down, right = torch.randint(bank.jitter, (count, 2), generator=generator, device=device).unbind(1)
    turn = torch.zeros_like(piece)
    if augment:
        turn = torch.randint(8, (count,), generator=generator, device=device)
    places = _places(bank, piece, y + down, x + right, turn, patch)
    return _gathered(bank, places, patch), bank.depth.index_select(0, piece)


def _gathered(bank: Bank, places: Tensor, patch: int) -> dict[str, Tensor]:
    shape = (-1, bank.layers.shape[1], patch, patch)
    return {name: image.index_select(0, places).view(shape) for name, image in bank.images.items()}


def _places(bank: Bank, piece: Tensor, y: Tensor, x: Tensor, turn: Tensor, patch: int) -> Tensor:
    """Return where the voxels of patches (N,) and their layers lie in the flat images, (N * C * patch * patch,).

    ``turn`` is one of the eight orientations of a square: quarter turns as of ``torch.rot90``, 4 and above also
    mirrored along x. A step down or right in the turned patch is a step along y or x of the piece, forth or back;
    one that goes back starts from the far end.
    """
    quarter, mirror = turn % 4, 1 - 2 * (turn // 4)
    cos, sin = (1 - quarter) * (1 - quarter % 2), (2 - quarter) * (quarter % 2)
    down_y, down_x, right_y, right_x = cos, -sin, mirror * sin, mirror * cos
    width = bank.width.index_select(0, piece)
    y = y + (patch - 1) * ((down_y < 0) | (right_y < 0))
    x = x + (patch - 1) * ((down_x < 0) | (right_x < 0))
    shown = bank.layers.index_select(0, piece)
    first = bank.start.index_select(0, shown.flatten()).view(shown.shape) + (y * width + x).unsqueeze(1)
    along = torch.arange(patch, device=first.device)
    rows = torch.outer(down_y * width + down_x, along)
    columns = torch.outer(right_y * width + right_x, along)
    inside = rows.unsqueeze(2) + columns.unsqueeze(1)
    return (first.unsqueeze(2).unsqueeze(3) + inside.unsqueeze(1)).flatten()

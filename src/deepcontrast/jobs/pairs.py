"""Pairs of images that a task learns from: found by their names, checked one by one, registered where that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.accept import check_pairs
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.io import stem
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.say import Say, describe_stack
from deepcontrast.noise.detail import detail
from deepcontrast.registration import Shift, shift_between
from deepcontrast.stack import Stack

REGISTERED = 0.25
"""Pixels by which a pair may be shifted and still be trained on as it is."""
SWAPPED = 1.5
"""How many times noisier a target must be than its input for the two to be taken for swapped."""
OTHER = 0.1
"""By how much better an image may agree with another's target than with its own."""
ALIKE = 0.3
"""Correlation from which an image agrees with another's target not just by chance."""


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and a target of the same place and shape, with their files.

    Attributes:
        files: of both.
        image: on the grid of its target, see ``Task.paired``.
        target: on that grid.
        read: both as they were read.
    """

    files: tuple[Path, Path]
    image: Stack
    target: Stack
    read: tuple[Stack, Stack]


def open_pairs(
    inputs: Sequence[Path],
    targets: Sequence[Path],
    reading: Reading,
    config: Config,
    *,
    register: bool = False,
    say: Say = print,
) -> list[Pair]:
    """Return the pairs that files and folders stand for, by name.

    Args:
        inputs: files and folders of images.
        targets: likewise; see :func:`matched` for which belongs to which.
        reading: how both are to be understood.
        config: the settings; its task says on which grid they belong together.
        register: shift targets onto their images where they are shifted.
        say: gets what is to be told.

    Raises:
        InputError: names the file that has no partner, another shape, no structure, or is not of the same place.
    """
    task: Any = registry.load("tasks", config.task_name)
    pairs = []
    for file, truth in matched(list_images(inputs), list_images(targets)):
        image, target = reading.open(file), reading.open(truth)
        describe_stack(image, say)
        say(f"  its target is {truth}")
        seen, shown = task.paired(image, target, config)
        if target.size("Z") > 1 and shown.size("Z") == 1:
            say(f"  which is a stack: the surface in it was found by {config.task['truth']}")
        pairs.append(Pair((file, truth), seen, shown, (image, target)))
    check_pairs([pair.image for pair in pairs], [pair.target for pair in pairs])
    for n, pair in enumerate(pairs):
        _check_order(pair)
        if len(pairs) > 1:
            _check_place(pair, pairs[(n + 1) % len(pairs)])
    return [_registered(pair, register, task, config, say) for pair in pairs]


def matched(inputs: Sequence[Path], targets: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return which target belongs to which input: that of the same name, but for what all of them begin and end with.

    ``low/cell1.tif`` belongs to ``high/cell1.tif``, ``low_cell1.tif`` to ``high_cell1.tif``, a single input to a single
    target.

    Raises:
        InputError: names the first file without a partner.
    """
    if len(inputs) == len(targets) == 1:
        return [(inputs[0], targets[0])]
    ways = (
        [{stem(file): file for file in files} for files in (inputs, targets)],
        [{_key(file, files): file for file in files} for files in (inputs, targets)],
    )
    keys = max(ways, key=lambda way: len(way[0].keys() & way[1].keys()))
    for one, other, kind in ((keys[0], keys[1], "target"), (keys[1], keys[0], "input")):
        for name, file in one.items():
            if name not in other:
                raise InputError(
                    f"'{file}' has no {kind} of its name; given {len(inputs)} inputs and {len(targets)} targets"
                )
    return [(file, keys[1][name]) for name, file in keys[0].items()]


def _key(file: Path, files: Sequence[Path]) -> str:
    """Return what of a name is its own among others."""
    names = [stem(one) for one in files]
    first = _alike(names)
    last = _alike([name[first:][::-1] for name in names])
    own = stem(file)[first:]
    return own[: len(own) - last]


def _alike(names: Sequence[str]) -> int:
    """Return how many letters all names begin with."""
    return next(
        (n for n, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )


def _planes(pair: Pair) -> list[NDArray[np.float64]]:
    """Return a plane of a pair, both images of it: of five, the one whose target varies most."""
    image, target = pair.image.frame(), pair.target.frame()
    some = np.unique(np.linspace(0, len(target) - 1, 5).round().astype(int)).tolist()
    z = max(some, key=lambda z: float(np.std(np.asarray(target[z], np.float64))))
    return [np.asarray(frame[z], np.float64) for frame in (image, target)]


def _check_order(pair: Pair) -> None:
    """Refuse a target that is noisier than its input.

    Raises:
        InputError: says so.
    """
    noise = [detail(plane) for plane in _planes(pair)]
    if noise[0] > 0 and noise[1] > SWAPPED * noise[0]:
        raise InputError(
            f"the target '{pair.files[1]}' is {noise[1] / noise[0]:.1f} times noisier than its input "
            f"'{pair.files[0]}': are the two swapped?"
        )


def _check_place(pair: Pair, other: Pair) -> None:
    """Refuse an image that agrees better with the target of another.

    Raises:
        InputError: names both.
    """
    image, target = _planes(pair)
    own, theirs = _agreement(image, target), _agreement(image, _planes(other)[1])
    if theirs > max(ALIKE, own + OTHER):
        raise InputError(
            f"'{pair.files[0]}' does not show what its target '{pair.files[1]}' shows (correlation {own:.2f}), "
            f"'{other.files[1]}' agrees better ({theirs:.2f})"
        )


def _registered(pair: Pair, register: bool, task: Any, config: Config, say: Say) -> Pair:
    """Return a pair that lies one image upon the other.

    Raises:
        InputError: it does not, and shall not be shifted.
    """
    shift = shift_between(*_planes(pair))
    if not shift.known:
        say(f"{pair.files[1].name}: too little structure in common to say whether it is shifted; taken as it is")
    if not shift.beyond(REGISTERED):
        return pair
    if not register:
        raise InputError(
            f"'{pair.files[0]}' lies {shift.describe()} from its target '{pair.files[1]}'; --register shifts the target"
        )
    say(f"{pair.files[1].name} was shifted by {shift.describe()}")
    image, target = pair.read
    image, target = _cropped(image, shift), _cropped(_shifted(target, shift), shift)
    seen, shown = task.paired(image, target, config)
    return Pair(pair.files, seen, shown, (image, target))


def _shifted(stack: Stack, shift: Shift) -> Stack:
    by = [0.0] * (len(stack.axes) - 2) + list(shift.pixels)
    array = np.asarray(stack.array, np.float32)
    return replace(stack, array=ndimage.shift(array, by, order=3, mode="nearest"))


def _cropped(stack: Stack, shift: Shift) -> Stack:
    """Return a stack without the borders that a shift leaves unknown."""
    rims = [int(np.ceil(abs(p))) for p in shift.pixels]
    place: list[Any] = [slice(None)] * (len(stack.axes) - 2)
    place += [slice(rim, stack.size(axis) - rim) for rim, axis in zip(rims, "YX", strict=True)]
    return replace(stack, array=np.asarray(stack.array[tuple(place)]))


def _agreement(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the correlation of the structures of two planes, noise taken away; 0 where their shapes differ."""
    if one.shape != other.shape:
        return 0.0
    smooth = [ndimage.gaussian_filter(plane, 2.0).ravel() for plane in (one, other)]
    return float(np.corrcoef(smooth[0], smooth[1])[0, 1])

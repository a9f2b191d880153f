"""Truth, mask and labels that a result is scored against; refused in one line where they cannot be that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.accept import check_volume
from deepcontrast.comparison import Known
from deepcontrast.errors import InputError
from deepcontrast.jobs.images import open_image
from deepcontrast.stack import Stack

ALIKE = 0.25
"""Share of equal neighbours inside the objects of a label image: noise and slopes leave less, 3 px objects 0.5."""


def open_known(paths: Mapping[str, Path | None], beside: Stack) -> dict[str, Stack]:
    """Return the images of those paths that are given, by their names.

    Raises:
        InputError: one has not the shape of the image it belongs to.
    """
    stacks = {name: open_image(path) for name, path in paths.items() if path is not None}
    wanted = _shape(beside)
    for name, stack in stacks.items():
        if _shape(stack) != wanted:
            raise InputError(
                f"the {name} '{stack.source}' has shape {_shape(stack)}, '{beside.source}' has {wanted} (T, C, Z, Y, X)"
            )
    return stacks


def known_of(stacks: Mapping[str, Stack], t: int = 0, c: int = 0) -> Known:
    """Return truth, mask and labels of one time point and channel.

    Raises:
        InputError: NaN; a constant truth; a mask that marks nothing or everything; labels that are none.
    """
    volumes = {name: (stack.volume(t, c), stack.source) for name, stack in stacks.items()}
    truth, mask, labels = (volumes.get(name) for name in ("truth", "mask", "labels"))
    return Known(
        None if truth is None else _truth(*truth),
        None if mask is None else _mask(*mask),
        None if labels is None else _labels(*labels),
    )


def _shape(stack: Stack) -> tuple[int, ...]:
    return tuple(stack.size(axis) for axis in "TCZYX")


def _truth(volume: NDArray[np.generic], source: str) -> NDArray[np.float32]:
    check_volume(volume, source)
    return volume.astype(np.float32)


def _mask(volume: NDArray[np.generic], source: str) -> NDArray[np.bool_]:
    _refuse_nan(volume, "mask", source)
    marked = np.asarray(volume) > 0
    if not marked.any() or marked.all():
        raise InputError(f"the mask '{source}' marks no voxel, or all of them; it must mark the structures")
    return np.asarray(marked)


def _labels(volume: NDArray[np.generic], source: str) -> NDArray[np.int_]:
    """Return labels as integers: whole numbers, 0 outside, and one number wherever an object is."""
    _refuse_nan(volume, "labels", source)
    values = np.asarray(volume)
    accepted = "labels are whole numbers: 0 outside the objects, one number for each object"
    if np.issubdtype(values.dtype, np.floating) and (values != np.rint(values)).any():
        raise InputError(f"'{source}' has fractions, so it holds intensities, not labels; {accepted}")
    numbers = values.astype(np.int64)
    if numbers.min() < 0 or not numbers.any():
        raise InputError(f"'{source}' has {'numbers below 0' if numbers.any() else 'no object'}; {accepted}")
    left, right = numbers[..., :-1], numbers[..., 1:]
    inside = (left > 0) | (right > 0)
    alike = float((left == right)[inside].mean()) if inside.any() else 1.0
    if alike < ALIKE:
        raise InputError(
            f"'{source}' holds intensities, not labels: {alike:.0%} of neighbouring voxels are equal; {accepted}"
        )
    if len(np.unique(numbers[numbers > 0])) == 1 and ndimage.label(numbers)[1] > 1:
        raise InputError(
            f"'{source}' gives all its objects the number {numbers.max()}: it is a mask, for --mask; {accepted}"
        )
    return numbers


def _refuse_nan(volume: NDArray[np.generic], name: str, source: str) -> None:
    bad = int(np.size(volume) - np.isfinite(np.asarray(volume)).sum())
    if bad:
        raise InputError(f"the {name} '{source}' has {bad} voxels that are NaN or infinite; replace them first")

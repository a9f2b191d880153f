"""Images of a job: those that paths stand for, opened in grey levels, and written in a type that fits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.equalise import EQUALISED, undone
from deepcontrast.errors import InputError, OutputExistsError
from deepcontrast.io import container_suffix, find_images, open_stack, read_attributes, stem, write_stack
from deepcontrast.io.names import is_zarr
from deepcontrast.io.view import Computed, arrange
from deepcontrast.output_checks import check_inputs_stay, check_writable
from deepcontrast.outputs import Written, to_dtype
from deepcontrast.stack import Stack


@dataclass(frozen=True)
class Reading:
    """How images are to be understood, where their files do not say or say wrongly.

    Attributes:
        axes: letters out of TCZYX in that order.
        voxel_size: (z, y, x) in micrometres.
        channel: name or number of one channel; all of them where ``None``.
        surface: which plane lies at the surface: ``"first"``, ``"last"`` or ``"auto"``.
    """

    axes: str | None = None
    voxel_size: tuple[float, float, float] | None = None
    channel: str | None = None
    surface: str = "auto"

    def open(self, path: Path) -> Stack:
        """Return the image so understood, in grey levels; the surface is found later, from what is in it."""
        return open_image(path, axes=self.axes, voxel_size=self.voxel_size, channel=self.channel)


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Return the images that files and folders stand for.

    Raises:
        InputError: two of them have the same stem.
    """
    files = [file for path in paths for file in find_images(path)]
    stems: dict[str, Path] = {}
    for file in files:
        if stem(file) in stems:
            raise InputError(f"'{stems[stem(file)]}' and '{file}' would both be written as '{stem(file)}'")
        stems[stem(file)] = file
    return files


def open_image(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
) -> Stack:
    """Open an image in grey levels: TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, .npy.

    A result of ours whose integers were shifted to fit is shifted back, in float32, where it is sliced.

    Args:
        path: the file, or the folder of an OME-Zarr.
        axes: letters out of TCZYX in that order; wins over what the file says.
        voxel_size: (z, y, x) in micrometres; wins over what the file says.
        channel: name or number of one channel; the axis C is then dropped.

    Returns:
        A stack with its axes in the order TCZYX; ``notes`` say what had to be assumed.

    Raises:
        InputError: not an image, or the channel is not there.
    """
    stack = open_stack(path, axes=axes, voxel_size=voxel_size)
    kept = read_attributes(path)
    offset, scale = float(kept.get("intensity_offset", 0.0)), float(kept.get("intensity_scale", 1.0))
    if (offset, scale) != (0.0, 1.0):
        grey = Computed(stack.array, partial(_grey, offset=offset, scale=scale), np.dtype(np.float32))
        note = f"grey levels are value * {scale:.6g} + {offset:g}, as the file says"
        stack = replace(stack, array=grey, notes=(*stack.notes, note))
    if EQUALISED in kept:
        note = "planes were multiplied to be equally bright at all depths; deepcontrast.undo_equalise divides it out"
        stack = replace(stack, notes=(*stack.notes, note))
    return stack if channel is None else _channel(stack, channel)


def undo_equalise(path: str | os.PathLike[str]) -> Stack:
    """Open what ``enhance --equalise-depth`` wrote as it would have been without, in float32, where it is sliced.

    In every plane of every channel, ``before = offset + (grey level - offset) / factor``, with the numbers that the
    file keeps. Of an integer type, what was rounded is back within half a grey level (half a step of the
    file's scale, where it has one); what was clipped stays clipped. Voxels that hold no measurement were
    not multiplied: take them from the raw.

    Raises:
        InputError: not an image, or one that does not say how it was equalised.
    """
    record = read_attributes(path).get(EQUALISED)
    if not isinstance(record, str):
        raise InputError(
            f"'{path}' does not say how it was equalised; accepted: what enhance --equalise-depth wrote, but for .npy, "
            "whose factors are in run.json"
        )
    return undone(open_image(path), json.loads(record))


def is_image_name(path: Path) -> bool:
    """Return whether a path ends in the suffix of a container that can be written."""
    return path.name.lower().endswith((".tif", ".tiff", ".zarr", ".npy"))


def check_target(target: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse, before anything is done, a file that cannot be written.

    Raises:
        OutputExistsError: something is there and must stay.
        InputError: it is one of the inputs.
        OutputError: no permission.
    """
    check_inputs_stay(target, inputs)
    if target.is_dir() and any(target.iterdir()) and not (container_suffix(target) == ".ome.zarr" and is_zarr(target)):
        raise OutputExistsError(f"output '{target}' is a folder with other files in it; choose another --out")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"output '{target}' exists; choose another --out, or --overwrite it")
    check_writable(target)


def dtype_in(container: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that values of a type are written in: TIFF readers do not know them all."""
    unknown = container.endswith(".tif") and dtype.name in ("float16", "int64", "uint64")
    return np.dtype(np.float32) if unknown else dtype


def write_image(
    target: Path, image: Stack, dtype: np.dtype[Any], attributes: Mapping[str, float | str] | None = None
) -> str:
    """Write a float result in a type, and return what was done to make it fit; it is read in slabs."""
    dtype = dtype_in(container_suffix(target), dtype)
    written = to_dtype(image.array, dtype)
    if written.attributes and container_suffix(target) == ".npy":
        note = f"written as float32: .npy has no place for the offset and scale that {dtype.name} would need"
        written = Written(image.array, {}, note)
    write_stack(target, replace(image, array=written.array), attributes={**(attributes or {}), **written.attributes})
    return written.note


def _channel(stack: Stack, wanted: str) -> Stack:
    """Return the stack of one channel, named or numbered from 0, without the axis C."""
    names = stack.channels or tuple(str(c) for c in range(stack.size("C")))
    if wanted in names:
        index = names.index(wanted)
    elif wanted.isdigit() and int(wanted) < stack.size("C"):
        index = int(wanted)
    else:
        raise InputError(f"no channel '{wanted}'; accepted: {', '.join(names)}, or a number from 0")
    if "C" not in stack.axes:
        return stack
    place = stack.axes.index("C")
    array = arrange(stack.array, tuple(a for a in range(len(stack.axes)) if a != place), {place: index})
    kept = (stack.channels[index],) if stack.channels else ()
    waves = stack.optics.wavelengths
    optics = replace(stack.optics, wavelengths=waves[index : index + 1] if len(waves) == stack.size("C") else waves)
    return replace(stack, array=array, axes=stack.axes.replace("C", ""), channels=kept, optics=optics)


def _grey(values: NDArray[Any], *, offset: float, scale: float) -> NDArray[np.float32]:
    return values.astype(np.float32) * np.float32(scale) + np.float32(offset)

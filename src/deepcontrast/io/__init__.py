"""Opening and writing stacks: TIFF (plain, ImageJ, OME), OME-Zarr and .npy.

A container is one file of this folder with ``read(path) -> Contents`` and ``write(path, stack, attributes)``,
imported when a path first needs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcontrast.errors import DeepContrastError, InputError, OutputError
from deepcontrast.io.contents import Contents, refuse_type, to_stack
from deepcontrast.io.fingerprint import fingerprint
from deepcontrast.io.names import container_suffix, find_images, is_zarr, require, stem
from deepcontrast.stack import Stack

if TYPE_CHECKING:
    from deepcontrast.io.shards import StackWriter, create_stack, open_writer

__all__ = [
    "StackWriter",
    "container_suffix",
    "create_stack",
    "find_images",
    "fingerprint",
    "open_stack",
    "open_writer",
    "read_attributes",
    "stem",
    "write_stack",
]

# Their module imports zarr, which reading a TIFF does not need.
_OF_SHARDS = ("StackWriter", "create_stack", "open_writer")
FORMATS = {".tif": "tiff", ".ome.tif": "tiff", ".ome.zarr": "ome_zarr", ".npy": "npy"}


def __getattr__(name: str) -> Any:
    if name not in _OF_SHARDS:
        raise AttributeError(f"module 'deepcontrast.io' has no attribute '{name}'")
    return getattr(import_module("deepcontrast.io.shards"), name)


def open_stack(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
) -> Stack:
    """Open an image: TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr 0.4 or 0.5 (full resolution), .npy.

    Nothing is read before the array is sliced, and then that part only: of an OME-Zarr the chunks, of a
    compressed TIFF the strips or tiles that the part lies in. Several threads may slice at once.

    Args:
        path: the file, or the folder of an OME-Zarr.
        axes: letters out of TCZYX in that order; wins over what the file says.
        voxel_size: (z, y, x) in micrometres; wins over what the file says.

    Returns:
        A stack with its axes in the order TCZYX; ``notes`` say what had to be assumed. No value is looked at.

    Raises:
        InputNotFoundError: there is no such file; the message names the nearest.
        InputError: not an image, truncated, RGB, of a type that is no intensity, or of axes not understood.
    """
    path = Path(path)
    return to_stack(_read(path), str(path), axes, voxel_size)


def read_attributes(path: str | os.PathLike[str]) -> dict[str, float | str]:
    """Return the ``attributes`` given to :func:`write_stack`; empty for .npy and other programs' files.

    Raises:
        InputNotFoundError, InputError: as :func:`open_stack`.
    """
    return dict(_read(Path(path)).attributes)


def write_stack(
    path: str | os.PathLike[str], stack: Stack, *, attributes: Mapping[str, float | str] | None = None
) -> None:
    """Write a stack, atomically, in the container its suffix names, replacing what was there.

    ``.ome.tif`` is OME-TIFF (BigTIFF from 4 GB); ``.tif`` an ImageJ hyperstack for uint8, uint16 and float32
    below 4 GB, else OME-TIFF; ``.ome.zarr`` OME-Zarr 0.5, sharded, with a pyramid; ``.npy`` the values alone.
    Axes, voxel size, channel names, type and attributes are kept (.npy keeps only the type; OME-Zarr has no
    place for the z size of an image without Z). The same stack gives the same bytes. Planes are streamed: a
    stack larger than memory can be written.

    Args:
        path: where to write; its folder must be there.
        stack: any axes out of TCZYX; voxel size in micrometres.
        attributes: numbers and words to keep with the image, e.g. offset and scale of rescaled integers.

    Raises:
        InputError: the suffix or the type of the values is not supported by the container.
        OutputExistsError: a folder that is no zarr stands where an OME-Zarr should go.
        OutputError: disk full, no permission, no such folder; nothing is left behind.
    """
    path = Path(path)
    container = import_module(f"deepcontrast.io.{FORMATS[container_suffix(path)]}")
    refuse_type(stack.dtype, "the stack")
    try:
        container.write(path, stack, dict(attributes or {}))
    except DeepContrastError:
        raise
    except OSError as error:
        missing = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
        raise OutputError(f"cannot write {path}: {error.strerror or _one_line(error)}{missing}") from error


def _read(path: Path) -> Contents:
    require(path)
    # A folder inside a plate has no suffix of its own: what is in it says that it is a zarr.
    if path.is_dir() and not is_zarr(path):
        raise InputError(f"not an image: {path} is a folder, and no OME-Zarr; give an image in it")
    name = "ome_zarr" if path.is_dir() else FORMATS[container_suffix(path)]
    if path.is_file() and name == "ome_zarr":
        raise InputError(f"not an image: {path} is a file; an OME-Zarr is a folder")
    container: Any = import_module(f"deepcontrast.io.{name}")
    try:
        contents: Contents = container.read(path)
    except DeepContrastError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path} does not fit into memory; OME-Zarr and uncompressed TIFF are read in parts"
        ) from error
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:
        # tifffile, zarr, numpy and the XML parser each fail in their own way on the same broken file.
        raise InputError(f"not an image: {path} cannot be read ({_one_line(error)})") from error
    return contents


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

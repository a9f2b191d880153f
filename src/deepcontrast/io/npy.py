"""NumPy's own file: the values and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepcontrast.atomic import new_file
from deepcontrast.errors import InputError
from deepcontrast.io.contents import UNNAMED, Contents
from deepcontrast.io.planes import planes
from deepcontrast.io.raw import Raw, Unchanged
from deepcontrast.io.units import UNKNOWN
from deepcontrast.io.view import arrange
from deepcontrast.stack import Stack

_log = logging.getLogger(__name__)


def read(path: Path) -> Contents:
    """Return what a .npy file holds, unread; no axis is named, no voxel size known."""
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(mapped, np.memmap) or mapped.ndim < 2:
        raise InputError(f"{path} is not an image: it has fewer than two axes")
    file, axes = Unchanged.now(path), tuple(range(mapped.ndim))
    if mapped.flags.c_contiguous:
        array = Raw(file, mapped.offset, mapped.dtype, mapped.shape)
    else:
        array = arrange(Raw(file, mapped.offset, mapped.dtype, mapped.shape[::-1]), axes[::-1])
    return Contents(array, UNNAMED * mapped.ndim)


def write(path: Path, stack: Stack, attributes: Mapping[str, float | str]) -> None:
    """Write the values of a stack in C order, little-endian."""
    if attributes or stack.channels or stack.optics.voxel_size != UNKNOWN:
        _log.info("%s: .npy has no place for voxel size, channel names and attributes", path)
    header = {
        "descr": np.lib.format.dtype_to_descr(stack.dtype.newbyteorder("<")),
        "fortran_order": False,
        "shape": stack.shape,
    }
    with new_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for plane in planes(stack):
            file.write(plane.data)

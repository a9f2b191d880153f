"""How the voxels of an OME-Zarr lie in files, and the one way in which they are written.

A shard is a file and the unit of writing: of every coarser level it has exactly the voxels that are means of its
own, so that whoever writes a shard writes whole files and asks nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec

from deepcontrast.atomic import new_folder
from deepcontrast.errors import InputError
from deepcontrast.io.ome_json import describe_channels, describe_levels, known_channels
from deepcontrast.io.record import plain
from deepcontrast.io.shard_file import write_shard
from deepcontrast.io.view import Box
from deepcontrast.stack import Stack

# One chunk is what a viewer fetches, half a megabyte of uint16.
CHUNK = {"T": 1, "C": 1, "Z": 16, "Y": 128, "X": 128}
# 16 Mvoxel: two workers get several each of half a gigabyte, and a worker holds one in tens of megabytes.
SHARD = (64, 512, 512)
# From this many shards on they are four times as large: 1 TB is then some 8,000 files a level, not 30,000.
MANY = 1024
# The pyramid ends at the first level smaller than this in y and x.
SMALLEST = 128
# Level 1 writes two to three times as fast as level 3 and takes 8 % more space. Not Blosc: its threads put the
# blocks in the order in which they finish.
LEVEL = 1
UNFINISHED = "deepcontrast_unfinished"


@dataclass(frozen=True, eq=False)
class StackWriter:
    """An OME-Zarr that is being written, by one process or several.

    Attributes:
        path: its folder.
        levels: the arrays, full resolution first.
        factors: of each level, how many voxels of the first it averages along each axis.
        shards: the parts of the full resolution that are written at one stroke, as slices over the stack's axes.
    """

    path: Path
    levels: tuple[Any, ...]
    factors: tuple[tuple[int, ...], ...]
    shards: tuple[Box, ...]

    @property
    def array(self) -> Any:
        """The full resolution, to be sliced; shards that were not written read as zeros."""
        return self.levels[0]

    def write(self, index: int, block: NDArray[Any]) -> None:
        """Write the voxels of ``shards[index]`` and their means in every level; on the disk when this returns.

        Shards may be written in any order, by several processes at once, and again: the same values give the
        same bytes. A file appears whole or not at all.

        Raises:
            InputError: the block is of another shape or type than the shard.
            OSError: disk full, no permission.
        """
        box, dtype = self.shards[index], self.array.dtype
        shape = tuple(part.stop - part.start for part in box)
        if (block.shape, block.dtype.newbyteorder("=")) != (shape, dtype):
            raise InputError(f"shard {index} of {self.path} is {shape} of {dtype}, not {block.shape} of {block.dtype}")
        finer = (1,) * len(shape)
        for array, factors in zip(self.levels, self.factors, strict=True):
            block = _mean(block, tuple(a // b for a, b in zip(factors, finer, strict=True)))
            start = tuple(part.start // f for part, f in zip(box, factors, strict=True))
            key = tuple(a // n for a, n in zip(start, array.shards or array.chunks, strict=True))
            write_shard(self.path / array.basename / array.metadata.encode_chunk_key(key), block, array)
            finer = factors

    def finish(self) -> None:
        """Write the OME metadata, which make an image of the folder, when all shards are written.

        Raises:
            OSError: disk full, no permission.
        """
        group = zarr.open_group(str(self.path), mode="r+")
        kept: Any = group.attrs[UNFINISHED]
        # Of writers that were killed.
        for left in self.path.rglob(".*.tmp"):
            left.unlink()
        ome = kept["ome"]
        if kept["channels"]:
            ome["omero"] = describe_channels(kept["channels"], self.array.dtype, self._coarse)
        group.attrs.put({"ome": ome, "deepcontrast": kept["attributes"]})

    def _coarse(self, channel: int) -> Iterator[NDArray[Any]]:
        """Yield the voxels of a channel at the coarsest level."""
        array = self.levels[-1]
        axes = array.metadata.dimension_names
        for box in _boxes(array.shape, array.shards or array.chunks):
            if "c" not in axes or box[axes.index("c")].start == channel:
                yield np.asarray(array[box])


def create_stack(
    path: Path,
    like: Stack,
    *,
    dtype: np.dtype[Any],
    attributes: Mapping[str, float | str] | None = None,
    compressed: bool = True,
    shard: tuple[int, int, int] | None = None,
) -> StackWriter:
    """Create an OME-Zarr whose voxels are yet to be written, whole or not at all, replacing what was there.

    It cannot be opened as an image before :meth:`StackWriter.finish`.

    Args:
        path: a folder in which a run works; it takes its final name when it is finished.
        like: gives the shape, axes, voxel size and channel names; its values are not looked at.
        dtype: of the voxels.
        attributes: numbers and words to keep with the image.
        compressed: with a pyramid, for a result. Else the bare values at full resolution, for what the same run
            reads again.
        shard: voxels (z, y, x) of a shard, powers of two; (64, 512, 512) by default, and (64, 1024, 1024) for a
            stack that would have more than 1,024 of them.

    Raises:
        InputError: a shard that is none.
        OSError: disk full, no permission, no such folder.
    """
    size = dict(zip("ZYX", _good_shard(like) if shard is None else _checked(shard), strict=True))
    extents = tuple(size.get(axis, 1) for axis in like.axes)
    factors = _factors(like, extents)[: None if compressed else 1]
    channels = known_channels(like)
    kept = {
        "ome": describe_levels(like, factors),
        "channels": channels,
        "attributes": plain(attributes or {}),
        "shard": extents,
        "factors": factors,
    }
    with new_folder(path) as folder:
        group = zarr.create_group(str(folder), zarr_format=3, attributes={UNFINISHED: kept})
        for n, factor in enumerate(factors):
            _create(group, str(n), like, dtype, extents, factor, LEVEL if compressed else None)
    return open_writer(path)


def open_writer(path: Path) -> StackWriter:
    """Open what :func:`create_stack` created and nobody finished, to go on writing it.

    Raises:
        InputError: there is no such folder, or it is finished.
    """
    try:
        group = zarr.open_group(str(path), mode="r+")
        kept: Any = group.attrs[UNFINISHED]
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is not an unfinished OME-Zarr, of which more could be written") from error
    factors = tuple(tuple(factor) for factor in kept["factors"])
    levels: Any = tuple(group[str(n)] for n in range(len(factors)))
    return StackWriter(path, levels, factors, tuple(_boxes(levels[0].shape, kept["shard"])))


def _checked(shard: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(shard) != 3 or any(n < 1 or n & (n - 1) for n in shard):
        given = " x ".join(str(n) for n in shard)
        raise InputError(f"a shard of {given} voxels; accepted: three powers of two z, y, x")
    return shard


def _good_shard(like: Stack) -> tuple[int, int, int]:
    z, y, x = SHARD
    count = math.prod(-(-like.size(axis) // n) for axis, n in zip("TCZYX", (1, 1, z, y, x), strict=True))
    return SHARD if count <= MANY else (z, 2 * y, 2 * x)


def _factors(stack: Stack, shard: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return, level by level, how many voxels of the first level a voxel averages along each axis."""
    z, y, x = stack.optics.voxel_size
    # Halving z where it is as fine as y and x brings voxels nearer to cubes; elsewhere it would stretch them.
    ratio = z / max(y, x) if z and y and x else math.inf
    factor = dict.fromkeys(stack.axes, 1)
    # A shard keeps a voxel at every level.
    room = dict(zip(stack.axes, shard, strict=True))
    levels = []
    while True:
        levels.append(tuple(factor.values()))
        left = {axis: -(-stack.size(axis) // factor[axis]) for axis in stack.axes}
        small = max(left["Y"], left["X"]) < SMALLEST or min(left["Y"], left["X"]) == 1
        if small or any(factor[axis] == room[axis] for axis in "YX"):
            return tuple(levels)
        halved = "YX"
        if left.get("Z", 1) > 1 and factor["Z"] < room["Z"] and ratio * factor["Z"] < math.sqrt(2) * factor["Y"]:
            halved = "ZYX"
        factor |= {axis: 2 * factor[axis] for axis in halved}


def _create(
    group: zarr.Group,
    name: str,
    like: Stack,
    dtype: np.dtype[Any],
    shard: tuple[int, ...],
    factor: tuple[int, ...],
    level: int | None,
) -> None:
    shape = tuple(-(-n // f) for n, f in zip(like.shape, factor, strict=True))
    extents = tuple(s // f for s, f in zip(shard, factor, strict=True))
    chunks = tuple(min(CHUNK[axis], s, n) for axis, s, n in zip(like.axes, extents, shape, strict=True))
    # A shard that reaches over the edge of the stack ends with its last chunk.
    shards = tuple(c * min(s // c, -(-n // c)) for c, s, n in zip(chunks, extents, shape, strict=True))
    group.create_array(
        name,
        shape=shape,
        dtype=dtype.newbyteorder("="),
        chunks=chunks,
        shards=shards if shards != chunks else None,
        dimension_names=list(like.axes.lower()),
        serializer=BytesCodec(endian="little"),
        compressors=() if level is None else (ZstdCodec(level=level),),
        # A chunk of zeros is written as well: a file that is missing is then a file that was lost.
        config={"write_empty_chunks": True},
    )


def _boxes(shape: tuple[int, ...], steps: tuple[int, ...]) -> Iterator[Box]:
    starts = (range(0, n, step) for n, step in zip(shape, steps, strict=True))
    for corner in product(*starts):
        yield tuple(slice(a, min(a + step, n)) for a, step, n in zip(corner, steps, shape, strict=True))


def _mean(block: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    """Return means over cells of one or two voxels along each axis; a cell at an odd edge has one."""
    if set(factors) == {1}:
        return block
    integer = block.dtype.kind in "iu"
    # Sums of eight integers of 16 bit are exact in float32.
    wide = np.float32 if integer and block.dtype.itemsize <= 2 else np.float64
    mean = np.empty([-(-n // f) for n, f in zip(block.shape, factors, strict=True)], block.dtype)
    with np.errstate(all="ignore"):  # infinities pass through
        for place in np.ndindex(mean.shape[:-2]):
            planes = block[tuple(slice(a * f, (a + 1) * f) for a, f in zip(place, factors, strict=False))]
            plane = planes.reshape(-1, *block.shape[-2:]).mean(axis=0, dtype=wide)
            for axis, f in enumerate(factors[-2:]):
                if f == 2:
                    plane = np.moveaxis(plane, axis, 0)
                    pairs = np.array(plane[::2])
                    odd = plane[1::2]
                    pairs[: len(odd)] = (pairs[: len(odd)] + odd) / 2
                    plane = np.moveaxis(pairs, 0, axis)
            mean[place] = np.rint(plane) if integer else plane
    return mean

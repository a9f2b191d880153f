"""OME-Zarr: read 0.4 and 0.5, written 0.5 (https://ngff.openmicroscopy.org/0.5/)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from yaozarrs import v05
from zarr.codecs import BytesCodec, ZstdCodec

from deepcontrast.atomic import new_folder
from deepcontrast.errors import InputError, OutputExistsError
from deepcontrast.io.contents import UNNAMED, Contents
from deepcontrast.io.names import is_zarr
from deepcontrast.io.record import plain
from deepcontrast.io.units import VoxelSize, micrometres
from deepcontrast.stack import AXES, Stack

_log = logging.getLogger(__name__)

# One chunk is what a viewer fetches (half a megabyte of uint16); a shard, 4 x 4 x 4 of them, is a file.
CHUNK = {"T": 1, "C": 1, "Z": 16, "Y": 128, "X": 128}
SHARD = 4
# The pyramid ends at the first level smaller than this in y and x.
SMALLEST = 128
TYPES = {"time": "T", "channel": "C"}
COLOURS = ("FF00FF", "00FF00", "00FFFF", "FFFF00", "FF0000", "0000FF")


def read(path: Path) -> Contents:
    """Return the full resolution of an OME-Zarr image, or a plain zarr array, as a zarr array, unread.

    Raises:
        InputError: a plate, or a group without an image.
    """
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return Contents(node, UNNAMED * node.ndim)
    attributes = node.attrs.asdict()
    ome: Any = attributes.get("ome", attributes)
    if "multiscales" not in ome and "bioformats2raw.layout" in ome:
        return read(path / "0")
    if "multiscales" not in ome:
        kind = "a plate" if "plate" in ome else "a well" if "well" in ome else "a zarr group without an image"
        inside = ", ".join(sorted(node.keys())[:8])
        raise InputError(f"{path} is {kind}; give the folder of one image in it (it holds: {inside})")
    image = ome["multiscales"][0]
    level = image["datasets"][0]
    array = node[str(level["path"])]
    if not isinstance(array, zarr.Array):
        raise InputError(f"not an image: {path / str(level['path'])} is not a zarr array")
    # Before 0.3 the axes were always these five; in 0.3 they are words, later objects.
    entries = [a if isinstance(a, dict) else {"name": a} for a in image.get("axes", AXES.lower())]
    axes = "".join(_letter(entry) for entry in entries)
    if len(axes) != array.ndim:
        raise InputError(f"not an image: {path} names {len(axes)} axes of {array.ndim}")
    size, notes = _voxel_size(image, level, entries, axes)
    names = tuple(str(c.get("label") or "") for c in ome.get("omero", {}).get("channels", ()))
    kept: Any = attributes.get("deepcontrast", {})
    if len(ome["multiscales"]) > 1:
        notes = (*notes, f"the zarr holds {len(ome['multiscales'])} images; the first was read")
    return Contents(array, axes, size, names if any(names) else (), notes, dict(kept))


def _letter(axis: Mapping[str, Any]) -> str:
    name = str(axis.get("name", "")).upper()
    return name if name in set(AXES) else TYPES.get(str(axis.get("type", "")), UNNAMED)


def _voxel_size(
    image: Mapping[str, Any], level: Mapping[str, Any], entries: list[dict[str, Any]], axes: str
) -> tuple[VoxelSize, tuple[str, ...]]:
    """Return the voxel size (z, y, x), the product of the level's scale and the image's, and notes."""
    scale = np.ones(len(axes))
    for holder in (level, image):
        for transformation in holder.get("coordinateTransformations") or ():
            if transformation.get("type") == "scale":
                scale = scale * np.asarray(transformation["scale"], dtype=float)
    known = dict(zip(axes, zip(scale.tolist(), entries, strict=True), strict=True))
    z, y, x = (micrometres(known[a][0], known[a][1].get("unit")) if a in known else None for a in "ZYX")
    lost = [a for a in "ZYX" if a in known and not known[a][1].get("unit") and known[a][0] != 1.0]
    note = f"the file gives a scale without a unit for {', '.join(lost)}; the voxel size there is unknown"
    return (z, y, x), ((note,) if lost else ())


def write(path: Path, stack: Stack, attributes: Mapping[str, float | str]) -> None:
    """Write OME-Zarr 0.5: a pyramid of means over 2 x 2 (x 2) voxels, in shards, one shard at a time.

    Raises:
        OutputExistsError: at ``path`` stands a folder, neither empty nor a zarr: not ours to replace.
    """
    if path.is_dir() and not is_zarr(path) and any(path.iterdir()):
        raise OutputExistsError(f"{path} is a folder with other files in it; give a path that is free")
    levels = _levels(stack)
    with new_folder(path) as folder:
        group = zarr.create_group(str(folder), zarr_format=3)
        arrays = [_create(group, str(n), level, stack) for n, level in enumerate(levels)]
        for box in _shards(arrays[0]):
            arrays[0][box] = np.asarray(stack.array[box])
        for n in range(1, len(levels)):
            factors = tuple(a // b for a, b in zip(levels[n][1], levels[n - 1][1], strict=True))
            for box in _shards(arrays[n]):
                fine = tuple(slice(b.start * f, b.stop * f) for b, f in zip(box, factors, strict=True))
                arrays[n][box] = _mean(np.asarray(arrays[n - 1][fine]), factors)
        ome = _metadata(stack, levels, np.asarray(arrays[-1]))
        group.attrs.update({"ome": ome, "deepcontrast": dict(plain(attributes))})


def _levels(stack: Stack) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shape of each level and its factor to the first one, axis by axis."""
    z, y, x = stack.optics.voxel_size
    # Halving z where it is as fine as y and x brings voxels nearer to cubes; elsewhere it would stretch them.
    ratio = z / max(y, x) if z and y and x else math.inf
    factors = dict.fromkeys(stack.axes, 1)
    shape = dict(zip(stack.axes, stack.shape, strict=True))
    levels = [(stack.shape, tuple(factors.values()))]
    while max(shape["Y"], shape["X"]) >= SMALLEST and min(shape["Y"], shape["X"]) > 1:
        halved = "YX"
        if shape.get("Z", 1) > 1 and ratio * factors["Z"] < math.sqrt(2) * factors["Y"]:
            halved = "ZYX"
        for axis in halved:
            factors[axis] *= 2
            shape[axis] = -(-shape[axis] // 2)
        levels.append((tuple(shape.values()), tuple(factors.values())))
    return levels


def _create(group: zarr.Group, name: str, level: tuple[tuple[int, ...], Any], stack: Stack) -> Any:
    shape = level[0]
    chunks = tuple(min(CHUNK[axis], n) for axis, n in zip(stack.axes, shape, strict=True))
    shards = tuple(
        c * min(SHARD, -(-n // c)) if axis in "ZYX" else c for axis, c, n in zip(stack.axes, chunks, shape, strict=True)
    )
    return group.create_array(
        name,
        shape=shape,
        dtype=stack.dtype.newbyteorder("="),
        chunks=chunks,
        shards=shards if shards != chunks else None,
        dimension_names=list(stack.axes.lower()),
        serializer=BytesCodec(endian="little"),
        # Not Blosc: its threads put the blocks in the order in which they finish.
        compressors=(ZstdCodec(level=3),),
        # A chunk of zeros is written as well: a file that is missing is then a file that was lost.
        config={"write_empty_chunks": True},
    )


def _shards(array: Any) -> Iterator[tuple[slice, ...]]:
    steps = array.shards or array.chunks
    starts = (range(0, n, step) for n, step in zip(array.shape, steps, strict=True))
    for corner in product(*starts):
        yield tuple(slice(a, min(a + step, n)) for a, step, n in zip(corner, steps, array.shape, strict=True))


def _mean(block: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    """Return means over cells of ``factors`` voxels; cells that reach over the edge repeat its voxels."""
    odd = [(0, -n % f) for n, f in zip(block.shape, factors, strict=True)]
    block = np.pad(block, odd, mode="edge")
    parts = list(product(*(range(f) for f in factors)))
    with np.errstate(all="ignore"):  # infinities pass through
        total = sum(
            block[tuple(slice(a, None, f) for a, f in zip(part, factors, strict=True))].astype(np.float64)
            for part in parts
        )
        mean = np.asarray(total) / len(parts)
        return (np.rint(mean) if block.dtype.kind in "iu" else mean).astype(block.dtype)


def _metadata(stack: Stack, levels: list[Any], coarse: NDArray[Any]) -> Any:
    """Return the ``ome`` attribute; the display range of a channel is that of the coarsest level."""
    sizes = dict(zip("ZYX", stack.optics.voxel_size, strict=True))
    axes = [_axis(axis, sizes) for axis in stack.axes]
    scale = np.array([sizes.get(axis) or 1.0 for axis in stack.axes])
    datasets = [
        v05.Dataset(
            path=str(n),
            coordinateTransformations=[
                v05.ScaleTransformation(scale=(scale * factors).tolist()),
                # The centre of a coarse voxel lies between those of the fine ones it is the mean of.
                v05.TranslationTransformation(translation=(scale * (np.array(factors) - 1) / 2).tolist()),
            ],
        )
        for n, (_, factors) in enumerate(levels)
    ]
    image = v05.Image(
        multiscales=[v05.Multiscale(axes=axes, datasets=datasets, type="mean")],
        omero=_omero(stack, coarse),
    )
    return image.model_dump(mode="json", exclude_none=True)


def _axis(axis: str, sizes: Mapping[str, float | None]) -> Any:
    if axis == "T":
        return v05.TimeAxis(name="t")
    if axis == "C":
        return v05.ChannelAxis(name="c")
    return v05.SpaceAxis(name=axis.lower(), unit="micrometer" if sizes[axis] else None)


def _omero(stack: Stack, coarse: NDArray[Any]) -> Any:
    count = stack.size("C")
    if not stack.channels:
        return None
    if len(stack.channels) != count:
        _log.warning("%d names for %d channels are left out", len(stack.channels), count)
        return None
    integer = stack.dtype.kind in "iu"
    channels = []
    for c, name in enumerate(stack.channels):
        values = np.take(coarse, c, axis=stack.axes.index("C")) if "C" in stack.axes else coarse
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        limits = (np.iinfo(stack.dtype).min, np.iinfo(stack.dtype).max) if integer else (low, high)
        window = {"start": low, "end": high, "min": float(limits[0]), "max": float(limits[1])}
        colour = "FFFFFF" if count == 1 else COLOURS[c % len(COLOURS)]
        channels.append({"label": name, "color": colour, "window": window, "active": True})
    return {"channels": channels}

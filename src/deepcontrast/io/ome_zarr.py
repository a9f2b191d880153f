"""OME-Zarr: read 0.4 and 0.5, written 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from deepcontrast.atomic import new_folder
from deepcontrast.errors import InputError, OutputExistsError
from deepcontrast.io.contents import UNNAMED, Contents
from deepcontrast.io.names import is_zarr
from deepcontrast.io.shards import UNFINISHED, create_stack
from deepcontrast.io.units import VoxelSize, micrometres
from deepcontrast.stack import AXES, Stack

TYPES = {"time": "T", "channel": "C"}


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
    if UNFINISHED in attributes:
        raise InputError(f"{path} is unfinished: it is still being written, or its writer was stopped")
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
    with new_folder(path) as folder:
        writer = create_stack(folder, stack, dtype=stack.dtype, attributes=attributes)
        for index, box in enumerate(writer.shards):
            writer.write(index, np.asarray(stack.array[box]))
        writer.finish()

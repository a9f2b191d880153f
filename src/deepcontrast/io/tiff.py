"""TIFF: plain, ImageJ hyperstack, OME-TIFF."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from deepcontrast.atomic import new_file
from deepcontrast.errors import InputError
from deepcontrast.io.contents import UNNAMED, Contents
from deepcontrast.io.names import container_suffix
from deepcontrast.io.ome_xml import NO_UUID, TYPES, read_ome_xml, write_ome_xml
from deepcontrast.io.planes import planes
from deepcontrast.io.raw import Raw, Unchanged
from deepcontrast.io.record import Record, read_record, restore_axes, write_record
from deepcontrast.io.segments import Segments
from deepcontrast.io.units import UNKNOWN, VoxelSize, micrometres
from deepcontrast.io.view import Lazy
from deepcontrast.stack import AXES, Stack

# tifffile reports every oddity of a file through logging; without a handler Python would print it on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_log = logging.getLogger(__name__)

IMAGEJ_TYPES = ("uint8", "uint16", "float32")
# Offsets of a classic TIFF have 32 bits; the rest is room for the metadata.
CLASSIC_BYTES = 2**32 - 2**25
# No codec makes even an empty image smaller than this (deflate 1032, LZW 1400, Zstandard 32768 to 1).
RATIO = 50_000
COLOURS = {2: "RGB", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
RGB, SEPARATE = 2, 2


def read(path: Path) -> Contents:
    """Return the first image of a TIFF, unread.

    Raises:
        InputError: RGB, or planes or bytes that the file announces are missing.
    """
    with tifffile.TiffFile(path) as tif:
        if not tif.series:
            raise InputError(f"not an image: {path} has no image in it")
        series = tif.series[0]
        _refuse_colour(path, tif.pages.first, series.axes)
        offset = series.dataoffset
        _require_complete(path, tif, series, offset)
        axes = "".join(axis if axis in AXES else UNNAMED for axis in series.axes.replace("S", "C"))
        size, channels, record, notes = _metadata(tif, series)
        shape, axes = restore_axes(tuple(series.shape), axes, record.axes)
        array: Lazy
        if offset is None:
            array = Segments(tuple(series), shape)
        else:
            dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
            array = Raw(Unchanged.now(path), offset, dtype, shape)
        if len(tif.series) > 1:
            notes = (*notes, f"the file holds {len(tif.series)} images; the first was read")
    return Contents(array, axes, size, channels, notes, record.attributes)


def _refuse_colour(path: Path, page: Any, axes: str) -> None:
    """Refuse a picture; not what tifffile, unasked, marks as one: three channels of 8 bits, whose axes are named.

    Raises:
        InputError: it is one.
    """
    samples = int(page.samplesperpixel)
    if "S" not in axes and "C" in axes and (int(page.photometric), int(page.planarconfig)) == (RGB, SEPARATE):
        return
    if int(page.photometric) in COLOURS or samples in (3, 4):
        kind = COLOURS.get(int(page.photometric), "grey")
        raise InputError(
            f"{path} is a colour picture ({kind}, {samples} samples per pixel); "
            "accepted: one value per voxel, so split its colours into channels first "
            "(tifffile.imwrite(..., photometric='minisblack'))"
        )


def _require_complete(path: Path, tif: Any, series: Any, offset: int | None) -> None:
    """Raise InputError where the file ends before the image: tifffile may open the rest as a smaller one."""
    truncated = InputError(f"not an image: {path} is truncated, or its metadata is damaged")
    if series.kind in ("uniform", "generic"):  # what tifffile falls back to
        imagej = tif.imagej_metadata or {}
        announced = math.prod(int(imagej.get(n, 1)) for n in ("frames", "slices", "channels"))
        if tif.is_ome or max(announced, int(imagej.get("images", 1))) > len(series):
            raise truncated
    size = math.prod(series.shape) * series.dtype.itemsize
    if offset is not None and offset + size > tif.filehandle.size:
        raise truncated
    if offset is None or series.kind != "imagej":
        # The chain of pages must end in a zero, not in a pointer to somewhere beyond the end.
        tif.filehandle.seek(tif.pages.next_page_offset)
        if any(link := tif.filehandle.read(tif.tiff.offsetsize)) or len(link) < tif.tiff.offsetsize:
            raise truncated
        stored = 0
        for page in series:
            if page is None:
                raise InputError(f"{path} lacks planes that its metadata announces (are they in other files?)")
            if len(page.dataoffsets) < math.prod(page.chunked):
                raise truncated
            end = page.parent.filehandle.size
            if any(at + count > end for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)):
                raise truncated
            stored += sum(page.databytecounts)
        # A damaged width asks for more memory than there is, which is better not tried.
        if offset is None and size > stored * (1 if tif.pages.first.compression == 1 else RATIO):
            raise truncated


def _metadata(tif: Any, series: Any) -> tuple[VoxelSize, tuple[str, ...], Record, tuple[str, ...]]:
    """Return voxel size, channel names, our own record, notes."""
    if series.kind == "ome":
        described = read_ome_xml(tif.ome_metadata)
        return described.voxel_size, described.channels, described.record, ()
    if series.kind == "imagej":
        metadata = tif.imagej_metadata
        record = read_record(str(metadata.get("Info", "")))
        size, notes = _imagej_voxel_size(tif.pages.first, metadata)
        count = dict(zip(series.axes, series.shape, strict=True)).get("C", 1)
        names = record.channels if len(record.channels) == count else _imagej_labels(metadata, count)
        return size, names, record, notes
    return UNKNOWN, (), Record(), ()


def _imagej_voxel_size(page: Any, metadata: Mapping[str, Any]) -> tuple[VoxelSize, tuple[str, ...]]:
    unit = str(metadata.get("unit", ""))
    y, x = (_pixel_size(page, tag, unit) for tag in ("YResolution", "XResolution"))
    spacing = metadata.get("spacing")
    notes: tuple[str, ...] = ()
    # ImageJ leaves a spacing of 1 out; tifffile, which signs as 1.11a, leaves out one it was not told.
    by_imagej = metadata.get("ImageJ") != "1.11a"
    if spacing is None and by_imagej and int(metadata.get("slices", 1)) > 1 and micrometres(1, unit) == 1.0:
        spacing = 1.0
        notes = ("the file names no plane spacing; it was taken as 1 um, as ImageJ does",)
    return (micrometres(spacing, unit), y, x), notes


def _pixel_size(page: Any, tag: str, unit: str) -> float | None:
    pixels, length = page.tags.valueof(tag, default=(0, 1))
    return micrometres(length / pixels, unit) if pixels else None


def _imagej_labels(metadata: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Return slice labels where they name channels: one per channel, all different, the same in every plane.

    Bio-Formats' labels (``c:1/2 z:1/45 - series``) count the planes, and never name a channel.
    """
    labels = metadata.get("Labels")
    if count < 2 or not isinstance(labels, list) or len(labels) % count:
        return ()
    names = tuple(str(label) for label in labels[:count])
    named = len(set(names)) == count and all(names) and not any(re.match(r"[ctz]:\d+/\d+", n) for n in names)
    return names if named and labels == list(names) * (len(labels) // count) else ()


def write(path: Path, stack: Stack, attributes: Mapping[str, float | str]) -> None:
    """Write an ImageJ hyperstack, or OME-TIFF by suffix, type and size; uncompressed, so it can be mapped.

    Raises:
        InputError: a type that neither has a name for.
    """
    small = math.prod(stack.shape) * stack.dtype.itemsize < CLASSIC_BYTES
    channels = stack.channels
    if channels and len(channels) != stack.size("C"):
        _log.warning("%s: %d names for %d channels are left out", path, len(channels), stack.size("C"))
        channels = ()
    record = write_record(stack, channels, attributes)
    imagej = container_suffix(path) == ".tif" and stack.dtype.name in IMAGEJ_TYPES and small
    if not imagej and stack.dtype.name not in TYPES:
        raise InputError(
            f"{path}: TIFF has no place for values of type {stack.dtype.name}; "
            f"accepted: {', '.join(TYPES)}, or .ome.zarr or .npy for this type"
        )
    with new_file(path) as file:
        if imagej:
            _write_imagej(file, stack, channels, record)
        else:
            _write_ome(file, stack, channels, record, bigtiff=not small)


def _write_imagej(file: BinaryIO, stack: Stack, channels: tuple[str, ...], record: str) -> None:
    z, y, x = stack.optics.voxel_size
    metadata: dict[str, Any] = {"axes": "TZCYX", "Info": record}
    metadata["mode"] = "composite" if stack.size("C") > 1 else "grayscale"
    if (z, y, x) != UNKNOWN:
        metadata["unit"] = "um"
    if z is not None:
        metadata["spacing"] = repr(float(z))
    if channels:
        metadata["Labels"] = list(channels) * (stack.size("T") * stack.size("Z"))
    with tifffile.TiffWriter(file, imagej=True, byteorder="<") as tif:
        tif.write(
            (plane.tobytes() for plane in planes(stack, channels_inside=True)),
            shape=tuple(stack.size(axis) for axis in "TZCYX"),
            dtype=stack.dtype.newbyteorder("<"),
            photometric="minisblack",
            resolution=(_per_micrometre(x), _per_micrometre(y)),
            software="DeepContrast",
            metadata=metadata,
        )


def _per_micrometre(size: float | None) -> tuple[int, int]:
    """Return pixels per micrometre as TIFF's pair of 32-bit numbers; (0, 1) where the size is not known."""
    if size is None:
        return 0, 1
    limit = 2**32 - 1
    pixels = Fraction(1) / Fraction(float(size))
    if pixels > 1:  # a bound on the numerator as well
        pixels = 1 / Fraction(1 / pixels).limit_denominator(limit)
    pixels = pixels.limit_denominator(limit)
    return pixels.numerator, pixels.denominator


def _write_ome(file: BinaryIO, stack: Stack, channels: tuple[str, ...], record: str, *, bigtiff: bool) -> None:
    xml = write_ome_xml(stack, channels, record)
    digest = hashlib.sha256(xml)

    def hashed() -> Iterator[bytes]:
        for plane in planes(stack):
            data = plane.tobytes()
            digest.update(data)
            yield data

    with tifffile.TiffWriter(file, bigtiff=bigtiff, byteorder="<") as tif:
        tif.write(
            hashed(),
            shape=(math.prod(stack.size(axis) for axis in "TCZ"), stack.size("Y"), stack.size("X")),
            dtype=stack.dtype.newbyteorder("<"),
            photometric="minisblack",
            description=xml,
            software="DeepContrast",
            metadata=None,
        )
    # The UUID is of the values too, which are known only now; the description stands before them.
    file.seek(0)
    place = file.read(len(xml) + 2**16).index(NO_UUID.encode())
    file.seek(place)
    file.write(uuid.UUID(bytes=digest.digest()[:16], version=4).urn.encode())

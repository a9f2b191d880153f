"""OME-XML, the description of an OME-TIFF: what is read from it and what is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from deepcontrast.io.record import Record, read_record
from deepcontrast.io.units import VoxelSize, micrometres
from deepcontrast.stack import Stack

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
# Stands in the file until its sha256 is known: of the same length as any other UUID.
NO_UUID = "urn:uuid:00000000-0000-0000-0000-000000000000"
TYPES = {
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "float32": "float",
    "float64": "double",
}


@dataclass(frozen=True)
class Described:
    """Of the first image: voxel size (z, y, x) in micrometres, channel names, and our own record."""

    voxel_size: VoxelSize
    channels: tuple[str, ...]
    record: Record


def read_ome_xml(text: str) -> Described:
    """Return what the first image of an OME-XML says.

    Raises:
        xml.etree.ElementTree.ParseError: the text is no XML.
    """
    root = ElementTree.fromstring(text)
    # Files of a decade carry different namespaces; the names are the same.
    pixels = root.find(".//{*}Pixels")
    said = {} if pixels is None else pixels.attrib
    z, y, x = (micrometres(said.get(f"PhysicalSize{a}"), said.get(f"PhysicalSize{a}Unit", "um")) for a in "ZYX")
    channels = () if pixels is None else tuple(c.get("Name", "") for c in pixels.iterfind("{*}Channel"))
    notes = "\n".join(value.text or "" for value in root.iterfind(".//{*}MapAnnotation/{*}Value/{*}M"))
    return Described((z, y, x), channels if any(channels) else (), read_record(notes))


def write_ome_xml(stack: Stack, channels: tuple[str, ...], record: str) -> bytes:
    """Return the OME-XML of a stack whose planes lie in the order T, C, Z, in ASCII, with :data:`NO_UUID`.

    By the schema of June 2016: https://www.openmicroscopy.org/Schemas/OME/2016-06/
    """
    new = ElementTree.SubElement
    root = ElementTree.Element("OME", {"xmlns": NAMESPACE, "UUID": NO_UUID, "Creator": "DeepContrast"})
    image = new(root, "Image", {"ID": "Image:0"})
    pixels = new(
        image,
        "Pixels",
        {
            "ID": "Pixels:0",
            "DimensionOrder": "XYZCT",
            "Type": TYPES[stack.dtype.name],
            "BigEndian": "false",
            "Interleaved": "false",
        },
    )
    for axis in "XYZCT":
        pixels.set(f"Size{axis}", str(stack.size(axis)))
    for axis, size in zip("ZYX", stack.optics.voxel_size, strict=True):
        if size is not None:
            pixels.set(f"PhysicalSize{axis}", repr(float(size)))
            pixels.set(f"PhysicalSize{axis}Unit", "\u00b5m")
    for c in range(stack.size("C")):
        channel = new(pixels, "Channel", {"ID": f"Channel:0:{c}", "SamplesPerPixel": "1"})
        if channels:
            channel.set("Name", _printable(channels[c]))
    count = math.prod(stack.size(axis) for axis in "TCZ")
    new(pixels, "TiffData", {"IFD": "0", "PlaneCount": str(count)})
    new(image, "AnnotationRef", {"ID": "Annotation:0"})
    kept = new(root, "StructuredAnnotations")
    annotation = new(kept, "MapAnnotation", {"ID": "Annotation:0", "Namespace": "deepcontrast"})
    new(new(annotation, "Value"), "M", {"K": "record"}).text = record
    xml: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return xml


def _printable(name: str) -> str:
    # XML 1.0 has no place for these at all, not even escaped.
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "", name)

"""The metadata of an OME-Zarr that is written, version 0.5 (https://ngff.openmicroscopy.org/0.5/)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from yaozarrs import v05

from deepcontrast.stack import Stack

_log = logging.getLogger(__name__)

COLOURS = ("FF00FF", "00FF00", "00FFFF", "FFFF00", "FF0000", "0000FF")


def describe_levels(stack: Stack, factors: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return the ``ome`` attribute of a pyramid, of which level ``n`` is a mean over ``factors[n]`` voxels."""
    sizes = dict(zip("ZYX", stack.optics.voxel_size, strict=True))
    scale = np.array([sizes.get(axis) or 1.0 for axis in stack.axes])
    origins = dict(zip("ZYX", stack.optics.origin_um, strict=True))
    origin = np.array([origins.get(axis, 0.0) for axis in stack.axes])
    datasets = [
        v05.Dataset(
            path=str(n),
            coordinateTransformations=[
                v05.ScaleTransformation(scale=(scale * factor).tolist()),
                # The centre of a coarse voxel lies between those of the fine ones it is the mean of.
                v05.TranslationTransformation(translation=(origin + scale * (np.array(factor) - 1) / 2).tolist()),
            ],
        )
        for n, factor in enumerate(factors)
    ]
    axes = [_axis(axis, sizes) for axis in stack.axes]
    image = v05.Image(multiscales=[v05.Multiscale(axes=axes, datasets=datasets, type="mean")])
    ome: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    return ome


def known_channels(stack: Stack) -> tuple[str, ...]:
    """Return the names of the channels where there is one for each, else none."""
    if stack.channels and len(stack.channels) != stack.size("C"):
        _log.warning("%d names for %d channels are left out", len(stack.channels), stack.size("C"))
        return ()
    return stack.channels


def describe_channels(
    names: Sequence[str], dtype: np.dtype[Any], values: Callable[[int], Iterable[NDArray[Any]]]
) -> dict[str, Any]:
    """Return the ``omero`` part of the ``ome`` attribute: names, colours and display ranges.

    Args:
        names: of all channels.
        dtype: of the voxels.
        values: gives the voxels of a channel whose range is to be displayed, in parts.
    """
    channels = []
    for c, name in enumerate(names):
        low, high = _range(values(c))
        limits = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (low, high)
        window = {"start": low, "end": high, "min": float(limits[0]), "max": float(limits[1])}
        colour = "FFFFFF" if len(names) == 1 else COLOURS[c % len(COLOURS)]
        channels.append({"label": name, "color": colour, "window": window, "active": True})
    return v05.Omero.model_validate({"channels": channels}).model_dump(mode="json", exclude_none=True)


def _axis(axis: str, sizes: Mapping[str, float | None]) -> Any:
    if axis == "T":
        return v05.TimeAxis(name="t")
    if axis == "C":
        return v05.ChannelAxis(name="c")
    return v05.SpaceAxis(name=axis.lower(), unit="micrometer" if sizes[axis] else None)


def _range(parts: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the lowest and the highest of the finite values, 0 and 1 where there are none."""
    low, high = math.inf, -math.inf
    for part in parts:
        finite = part[np.isfinite(part)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 1.0)

"""What a TIFF has no place of its own for, as one line of JSON that every container can carry.

The axes, because readers drop the ones of length 1; the channels, because ImageJ has slice labels only; and
the attributes given to ``write_stack``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from deepcontrast.stack import AXES, Stack

MARK = "DeepContrast: "


@dataclass(frozen=True)
class Record:
    """Axes, channel names and attributes as they were written; empty where there is no record."""

    axes: str = ""
    channels: tuple[str, ...] = ()
    attributes: Mapping[str, float | str] = field(default_factory=dict)


def write_record(stack: Stack, channels: tuple[str, ...], attributes: Mapping[str, float | str]) -> str:
    """Return the record as one line of ASCII, the same for the same stack."""
    fields = {"axes": stack.axes, "channels": channels, "attributes": plain(attributes)}
    return MARK + json.dumps(fields, sort_keys=True)


def read_record(text: str) -> Record:
    """Return the record in a text of several lines; an empty one where there is none or it is damaged."""
    for line in text.splitlines():
        if line.startswith(MARK):
            try:
                fields = json.loads(line.removeprefix(MARK))
                axes = str(fields["axes"])
                channels = tuple(str(name) for name in fields["channels"])
                return Record(axes, channels, dict(fields["attributes"]))
            except (ValueError, KeyError, TypeError):
                return Record()
    return Record()


def plain(attributes: Mapping[str, float | str]) -> dict[str, float | str]:
    """Return the attributes with NumPy's numbers as Python's, which JSON can write."""
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in sorted(attributes.items())}


def restore_axes(shape: tuple[int, ...], axes: str, written: str) -> tuple[tuple[int, ...], str]:
    """Return shape and axes with the axes of length 1 that were written but are not in ``axes``, at their front."""
    lost = [axis for axis in written if axis in AXES and axis not in axes]
    if not set(axes) <= set(written):
        return shape, axes
    return (1,) * len(lost) + shape, "".join(lost) + axes

"""What every projection begins and ends with: a checked stack, and its grey levels around a surface."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError

Reading = Literal["maximum", "mean"]


def checked(stack: NDArray[Any]) -> NDArray[np.float32]:
    """Return the stack (Z, Y, X) as float32.

    Raises:
        InputError: not three axes, no voxel, or values that are not finite.
    """
    if stack.ndim != 3 or stack.size == 0:
        raise InputError(f"a stack of shape {stack.shape} to project; accepted: (Z, Y, X), none of them 0")
    out = np.asarray(stack, np.float32)
    if not np.isfinite(out).all():
        raise InputError("a stack to project with values that are not finite; accepted: finite values")
    return out


def read_out(
    stack: NDArray[np.float32],
    height: NDArray[np.float32],
    *,
    thickness: int = 0,
    offset: float = 0.0,
    reading: Reading = "maximum",
) -> NDArray[np.float32]:
    """Return the grey levels of a stack around a surface.

    Along each column the stack is read at ``height + offset`` and at every whole step up to ``thickness`` planes
    above and below, by linear interpolation between planes; beyond the stack its last plane goes on.

    Args:
        stack: (Z, Y, X).
        height: (Y, X), in planes, fractions allowed.
        thickness: planes on either side, 0 or more.
        offset: planes from the surface to where it is read; positive towards the last plane.
        reading: ``maximum`` or ``mean`` of what is read.

    Returns:
        (Y, X), float32. Memory: a few planes.

    Raises:
        InputError: a negative thickness or another reading.
    """
    if thickness < 0:
        raise InputError(f"thickness {thickness} of a surface; accepted: planes on either side, 0 or more")
    if reading not in ("maximum", "mean"):
        raise InputError(f"reading '{reading}' of a surface; accepted: maximum, mean")
    last = len(stack) - 1
    out = np.zeros(height.shape, np.float32)
    for step in range(-thickness, thickness + 1):
        z = np.clip(height + (offset + step), 0, last)
        below = np.floor(z).astype(np.intp)
        share = (z - below).astype(np.float32)
        low, high = (np.take_along_axis(stack, plane[None], 0)[0] for plane in (below, np.minimum(below + 1, last)))
        values = low + share * (high - low)
        if reading == "mean":
            out += values / (2 * thickness + 1)
        else:
            out = values if step == -thickness else np.maximum(out, values)
    return out

"""What most tasks do with an image: nothing but fill what is empty. A task that does more has functions of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.cleaned import Cleaned
from deepcontrast.config import Config
from deepcontrast.stack import Stack
from deepcontrast.valid import Invalid, Survey, fill_empty, find_invalid


def clean(volume: NDArray[Any], fit: Any, invalid: Invalid | None = None) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) in grey levels without empty voxels."""
    return fill_empty(volume.astype(np.float32), find_invalid(volume) if invalid is None else invalid)


def cleaned(volume: Any, fit: Any, known: Survey) -> Cleaned:
    """Return the same of a volume of which only what is sliced is read, given its survey."""
    return Cleaned(volume, known)


def windowed(fit: Any, field: tuple[int, int], y: slice, x: slice) -> Any:
    """Return the fit for a window of the planes: the same."""
    return fit


def on_grid(stack: Stack, fit: Any) -> Stack:
    """Return an image on the grid of its result: itself."""
    return stack


def paired(image: Stack, target: Stack, config: Config) -> tuple[Stack, Stack]:
    """Return an image and its target on one grid: they have one."""
    return image, target

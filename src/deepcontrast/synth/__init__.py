"""Phantoms: simulated images whose truth is known; each file one kind of tissue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.stack import Optics


@dataclass(frozen=True, eq=False)
class Phantom:
    """A stack as a camera would give it, and what is truly there; all arrays (Z, Y, X), surface first.

    Attributes:
        raw: uint16, grey levels.
        truth: float32, expected photons of the structures in focus, as the point-spread function shows them
            at the surface: no haze, no noise, no attenuation, no background.
        mask: bool, the structures (geometry, before any blur).
        optics: voxel size, surface and camera: what a microscopist would know.
        parameters: every argument of the phantom by name.
    """

    raw: NDArray[np.uint16]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    optics: Optics
    parameters: Mapping[str, object]

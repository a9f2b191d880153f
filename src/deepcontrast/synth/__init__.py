"""Phantoms: simulated images whose truth is known; each file one kind of tissue.

Those whose structures are finer than a microscope resolves have a function ``draw(rng, shape, voxel_um=...)`` beside
the phantom, which returns the density of fluorophores (Z, Y, X) alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.stack import Optics


@dataclass(frozen=True, eq=False)
class Phantom:
    """A stack as a camera would give it, and what is truly there; all arrays (Z, Y, X), surface first.

    Truth, mask and labels share a grid. It is raw's, unless ``truth_optics`` says otherwise: of an embryo it is
    isotropic and has more planes than raw, of an epithelium it is a single plane (1, Y, X), the sheet laid flat.

    Attributes:
        raw: uint16, grey levels.
        truth: float32, expected photons of the structures in focus, as the point-spread function shows them
            at the surface: no haze, no noise, no attenuation, no background. Of tubules, granules, mitochondria and
            sarcomeres, which are finer than it shows, without its blur too.
        mask: bool, the structures (geometry, before any blur).
        optics: voxel size, surface and camera: what a microscopist would know.
        parameters: every argument of the phantom by name.
        labels: int32, one number for each object, 0 background; ``None`` where there are no objects to count.
        height: float32 (Y, X), where the sheet lies, in planes of raw from its first one, fractional; ``None``
            where there is no sheet.
        truth_optics: voxel size of truth, mask and labels where they are not on raw's grid, else ``None``.
    """

    raw: NDArray[np.uint16]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    optics: Optics
    parameters: Mapping[str, object]
    labels: NDArray[np.int32] | None = None
    height: NDArray[np.float32] | None = None
    truth_optics: Optics | None = None

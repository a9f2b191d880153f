"""The result in the raw's brightness: how much brighter every pass is, and the mixture that is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.depth import planes_of
from deepcontrast.explain import REBLUR, copies

MATCHED = REBLUR.index(2.0)
"""The re-blurred copy whose brightness is matched to the raw's."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Brightness:
    """By how much every pass is brighter than the raw, as a function of depth.

    Attributes:
        depth: centres of the depth bins, ascending (B,).
        scale: factor that brings the structures of k = 0 .. K back to the raw's brightness (B, K + 1).
    """

    depth: NDArray[np.float64]
    scale: NDArray[np.float64]

    def at(self, depth: float, k: int) -> float:
        """Return the factor of k iterations at a depth; between bin centres its logarithm is linear."""
        return float(np.exp(np.interp(depth, self.depth, np.log(self.scale[:, k]))))


def match_brightness(
    passes: Sequence[Sequence[Volume]],
    depths: Sequence[NDArray[np.float64]],
    edges: NDArray[np.float64],
    valid: Sequence[NDArray[np.bool_] | None],
) -> Brightness:
    """Return the factors that give every pass the raw's brightness of structures, pooled over stacks.

    The network inverts a blend, so structures gain a factor of up to ``1 / alpha`` in every pass; depths that
    take different k would differ in brightness by that. The factor is the slope of the raw on the result, both
    blurred by 2 px and high-passed at 20 px. A bin without structure takes its neighbours' factors.

    Args:
        passes: of every stack, raw and then k = 1 .. K, each (Z, Y, X).
        depths: of the planes of every stack.
        edges: of the depth bins.
        valid: voxels of every stack that hold a measurement.
    """
    count = len(passes[0])
    products = np.zeros((len(edges) - 1, count, 2))
    for volumes, depth, known in zip(passes, depths, valid, strict=True):
        for b, planes in enumerate(planes_of(depth, edges, known)):
            for z in planes:
                inside = np.ones(volumes[0].shape[1:], bool) if known is None else known[z]
                raw = copies(volumes[0][z])[MATCHED][inside]
                for k in range(1, count):
                    result = copies(volumes[k][z])[MATCHED][inside]
                    products[b, k] += float(raw @ result), float(result @ result)
    slope = np.divide(products[..., 0], products[..., 1], out=np.zeros(products.shape[:2]), where=products[..., 1] > 0)
    slope[:, 0] = 1.0
    centres = (edges[:-1] + edges[1:]) / 2
    scale = np.ones_like(slope)
    for k in range(1, count):
        good = slope[:, k] > 1e-6
        if good.any():
            scale[:, k] = np.exp(np.interp(centres, centres[good], np.log(slope[good, k])))
    return Brightness(centres, scale)


def blend(
    passes: Sequence[Volume],
    k: NDArray[np.float64],
    depth: NDArray[np.float64],
    brightness: Brightness,
    *,
    offset: float,
    out: NDArray[np.float32],
) -> None:
    """Write into ``out`` (Z, Y, X) the volume of k(z) iterations in the raw's brightness.

    Between whole numbers of iterations it is a mixture of both.

    Args:
        passes: raw, then k = 1 .. K; each (Z, Y, X), grey levels.
        k: wanted for every plane (Z,).
        depth: of every plane (Z,).
        brightness: of the passes.
        offset: grey level without light, which the factors leave as it is.
        out: where the result goes.
    """
    for z, wanted in enumerate(k):
        low = int(np.floor(wanted))
        share = float(wanted) - low
        plane = np.zeros(out.shape[1:], np.float32)
        for times, weight in ((low, 1 - share), (low + 1, share)):
            if weight:
                factor = np.float32(weight * brightness.at(float(depth[z]), times))
                plane += factor * (passes[times][z] - np.float32(offset))
        out[z] = plane + np.float32(offset)

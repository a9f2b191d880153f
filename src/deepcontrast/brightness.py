"""The result in the raw's brightness: how much brighter every pass is, and the mixture that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, eq=False)
class Blend:
    """How much of every pass a result has, plane by plane.

    Attributes:
        weights: of k = 0 .. K in every plane (K + 1, Z); 0 for a pass that the plane has nothing of.
        offset: grey level without light, which the weights leave as it is.
    """

    weights: NDArray[np.float64]
    offset: float

    def needed(self, planes: slice = slice(None)) -> list[int]:
        """Return the passes that some planes are made of."""
        return [int(k) for k in np.flatnonzero((self.weights[:, planes] != 0).any(axis=1))]

    def scaled(self, factor: NDArray[np.float64]) -> Blend:
        """Return the same result with its planes multiplied above the offset by a factor each (Z,)."""
        return Blend(self.weights * factor, self.offset)

    def write(self, passes: Mapping[int, Any], out: NDArray[np.float32], planes: slice = slice(None)) -> None:
        """Write planes of the result into ``out`` (Z, Y, X).

        Args:
            passes: those that are needed, by k; each (Z, Y, X), grey levels, of these planes only.
            out: where they go.
            planes: their numbers in the whole.
        """
        offset = np.float32(self.offset)
        for z, weights in enumerate(self.weights[:, planes].T):
            plane = np.zeros(out.shape[1:], np.float32)
            for k in np.flatnonzero(weights):
                plane += np.float32(weights[k]) * (passes[int(k)][z] - offset)
            out[z] = plane + offset


def blend(k: NDArray[np.float64], depth: NDArray[np.float64], brightness: Brightness, *, offset: float) -> Blend:
    """Return the blend of k(z) iterations in the raw's brightness; between whole numbers it is a mixture of both.

    Args:
        k: wanted for every plane (Z,).
        depth: of every plane (Z,).
        brightness: of the passes.
        offset: grey level without light.
    """
    weights = np.zeros((brightness.scale.shape[1], len(k)))
    for z, wanted in enumerate(k):
        low = int(np.floor(wanted))
        share = float(wanted) - low
        for times, weight in ((low, 1 - share), (low + 1, share)):
            if weight:
                weights[times, z] = weight * brightness.at(float(depth[z]), times)
    return Blend(weights, offset)

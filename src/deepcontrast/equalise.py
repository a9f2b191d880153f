"""Structures equally bright at all depths: one factor per plane above the offset, recorded, to be divided out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from deepcontrast.depth import middle
from deepcontrast.errors import InputError
from deepcontrast.explain import FINE, band
from deepcontrast.io.view import Box, Lazy
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.stack import Stack

MOST = 10.0
"""The largest factor: what has faded further is mostly error, and would be made to look like structure."""

LEAST = 0.001
"""Share of a plane that must be structure for its brightness to be measured."""

PLANES, USABLE = 60, 0.2
"""Planes that are looked at, evenly spaced, and the share of a plane that must hold a measurement."""

FEWEST = 4
"""Planes with structure that a curve needs."""

KNOTS, STIFFNESS = 16, 1.0
"""Of the curve: changes within less than about half of the depth are taken for chance, not for attenuation."""

EQUALISED = "equalised"
"""The attribute of an image that its offsets and factors are kept in."""

FORMULA = "before = offset + (grey level - offset) / factor"

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Equalisation:
    """By how much the planes of one channel of a stack are multiplied above the offset.

    Attributes:
        offset: grey level without light, which stays where it is.
        depth: knots of the curve (K,), ascending.
        factor: at the knots (K,), 1 or more, never falling with depth.
        measured: depth, and brightness of structures above the offset, of the planes it was estimated from (2, N).
        looked_at: number of planes in which structures were looked for.
    """

    offset: float
    depth: NDArray[np.float64]
    factor: NDArray[np.float64]
    measured: NDArray[np.float64]
    looked_at: int

    def at(self, depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the factors at some depths, of six decimals; beyond the knots they stay what they are at the end."""
        return np.exp(np.interp(depth, self.depth, np.log(self.factor))).round(6)

    def apply(self, volume: Volume, depth: NDArray[np.float64], valid: NDArray[np.bool_] | None) -> Volume:
        """Return a volume (Z, Y, X) whose planes are multiplied; voxels that hold no measurement stay."""
        factor, offset = self.at(depth).astype(np.float32)[:, None, None], np.float32(self.offset)
        scaled = (volume - offset) * factor + offset
        return scaled if valid is None else np.where(valid, scaled, volume)

    def describe(self) -> str:
        """Return what was found, in a sentence."""
        count = self.measured.shape[1]
        if count < FEWEST:
            return f"structures stand above the raw's noise in {count} of {self.looked_at} planes: no plane is scaled"
        return (
            f"planes are multiplied by 1 to {self.factor[-1]:.3g} above the offset {self.offset:.4g}, by the "
            f"brightness of structures in {count} of {self.looked_at} planes; intensities of different depths are not "
            "comparable before these factors are divided out"
        )


def equalise(
    result: Volume,
    raw: Volume,
    depth: NDArray[np.float64],
    *,
    gain: float,
    intercept: float,
    offset: float,
    valid: NDArray[np.bool_] | None = None,
    progress: Progress = silent,
) -> Equalisation:
    """Return the factors that make the structures of a result equally bright at all depths.

    The brightness of up to ``PLANES`` planes, see :func:`brightness_of_structures`, is followed along the
    depth by a smooth curve, in logarithms: least squares with a penalty on curvature, outlying planes weighing
    less (Huber). Light is lost on the way and not gained, so the curve may only fall; where structures become
    brighter with depth it is level. The factor is the curve's fall from its shallow end, at most ``MOST``. Beyond the
    shallowest and the deepest plane with structure it stays.

    Args:
        result: (Z, Y, X) in the raw's brightness, not clipped.
        raw: (Z, Y, X) grey levels.
        depth: of the planes (Z,).
        gain: grey levels per photon of the raw.
        intercept: zero-variance intercept of its camera, grey levels.
        offset: grey level without light in the result.
        valid: voxels that hold a measurement.
        progress: gets events.
    """
    y, x = middle((result.shape[1], result.shape[2]))
    usable = [z for z in range(len(depth)) if valid is None or valid[z, y, x].mean() > USABLE]
    planes = [usable[i] for i in np.linspace(0, len(usable) - 1, min(PLANES, len(usable))).astype(int)]
    found = []
    for done, z in enumerate(planes):
        plane, before = (np.asarray(volume[z, y, x]) for volume in (result, raw))
        known = np.ones(plane.shape, bool) if valid is None else valid[z, y, x]
        light = gain * (float(np.median(before[known])) - intercept)
        level = brightness_of_structures(plane, known, offset=offset, noise=float(np.sqrt(max(light, gain**2))))
        if level is not None:
            found.append((depth[z], level))
        progress(Event("equalise", done + 1, len(planes)))
    measured = np.array(sorted(found)).reshape(-1, 2).T
    if len(found) < FEWEST:
        return Equalisation(offset, np.zeros(1), np.ones(1), measured, len(planes))
    knots, curve = _falling(measured[0], np.log(measured[1]))
    factor = np.exp(np.minimum(curve[0] - curve, np.log(MOST)))
    return Equalisation(offset, knots, factor, measured, len(planes))


def brightness_of_structures(plane: Volume, known: NDArray[np.bool_], *, offset: float, noise: float) -> float | None:
    """Return how bright the structures of a plane (Y, X) are, in grey levels above the offset.

    Structure is where the structure band (1 px to 20 px) exceeds the noise of the raw, which is several times what the
    band leaves of that noise. The brightness is the median over it, every voxel weighted by its squared height in
    the band: it does not depend on how much of the plane is structure, nor on dim rims.

    Args:
        plane: of the result.
        known: voxels (Y, X) that hold a measurement, at least one.
        offset: grey level without light.
        noise: standard deviation of the raw in this plane, grey levels.

    Returns:
        ``None`` where less than ``LEAST`` of the plane is structure.
    """
    # The edge of a hole would stand above its surroundings as structures do.
    filled = np.where(known, plane, np.median(plane[known])).astype(np.float32)
    height, light = band(filled), ndimage.gaussian_filter(filled, FINE) - np.float32(offset)
    inside = known & (height > noise) & (light > 0)
    if inside.sum() < LEAST * known.sum():
        return None
    order = np.argsort(light[inside])
    below = np.cumsum(height[inside][order].astype(np.float64) ** 2)
    return float(light[inside][order][np.searchsorted(below, below[-1] / 2)])


def to_record(channels: Sequence[Equalisation], depth: NDArray[np.float64]) -> dict[str, Any]:
    """Return what a stack's file keeps: the offset of every channel, its factor in every plane, and how to undo it."""
    offsets = [float(one.offset) for one in channels]
    return {"formula": FORMULA, "offset": offsets, "factor": [one.at(depth).tolist() for one in channels]}


def undone(stack: Stack, record: Mapping[str, Any]) -> Stack:
    """Return an equalised stack, in grey levels, with its factors divided out, in float32, where it is sliced.

    Voxels that hold no measurement were not multiplied; divided like the others, they are not what they were.

    Raises:
        InputError: the stack has other channels or planes than the record.
    """
    factor = np.asarray(record["factor"], np.float32)
    offset = np.repeat(np.asarray(record["offset"], np.float32)[:, None], factor.shape[1], axis=1)
    if factor.shape != (stack.size("C"), stack.size("Z")):
        raise InputError(
            f"'{stack.source}' has {stack.size('C')} channels of {stack.size('Z')} planes, but was equalised with "
            f"{factor.shape[0]} of {factor.shape[1]}; undo it before channels or planes are cut out"
        )
    shape = [n if axis in "CZ" else 1 for axis, n in zip(stack.axes, stack.shape, strict=True)]
    return replace(stack, array=_Divided(stack.array, offset.reshape(shape), factor.reshape(shape)))


@dataclass(frozen=True, eq=False)
class _Divided(Lazy):
    """An array whose factors are divided out.

    Attributes:
        source: anything that can be sliced.
        offset, factor: with the axes of the source, all but C and Z of length 1.
    """

    source: Any
    offset: Volume
    factor: Volume

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, box: Box) -> NDArray[Any]:
        place = tuple(slice(None) if n == 1 else part for n, part in zip(self.factor.shape, box, strict=True))
        offset, factor = self.offset[place], self.factor[place]
        return (np.asarray(self.source[box], np.float32) - offset) / factor + offset


def _falling(depth: NDArray[np.float64], level: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return knots, and the smooth curve that never rises through levels (N,) at ascending depths (N,)."""
    knots = np.linspace(depth[0], depth[-1], KNOTS)
    place = np.interp(depth, knots, np.arange(KNOTS))
    hats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(KNOTS)))
    bend = np.diff(np.eye(KNOTS), 2, axis=0)
    weight, curve = np.ones(len(depth)), np.zeros(KNOTS)
    for _ in range(20):
        share = hats.T * (weight / weight.sum())
        curve = np.linalg.solve(share @ hats + STIFFNESS * bend.T @ bend, share @ level)
        distance = np.abs(level - hats @ curve)
        # Huber's weights at 1.345 standard deviations, estimated by the median.
        weight = 1 / np.maximum(1, distance / (1.345 * 1.4826 * np.median(distance) + 1e-6))
    # Knots far from any plane are as near as their neighbours bring them, and count for little.
    fallen = optimize.isotonic_regression(curve, weights=hats.sum(axis=0) + 1e-3, increasing=False)
    return knots, np.asarray(fallen.x)

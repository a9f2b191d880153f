"""Minimum-cost surface: of all surfaces that are not too steep the brightest, exactly, by a graph cut."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from deepcontrast.errors import InputError
from deepcontrast.projections import Projection
from deepcontrast.projections._read_out import Reading, checked, read_out

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"reduce": reduce, "step": step, "reading": reading}
    for reduce, step, reading in product((4, 8), (1, 2), ("maximum", "mean"))
)
LEVELS = 1000
"""Costs are whole numbers from 0 to this."""


def minimum_cost_surface(
    stack: NDArray[np.float32],
    *,
    reduce: int = 4,
    smooth: float = 1.0,
    step: int = 1,
    thickness: int = 1,
    offset: float = 0.0,
    reading: Reading = "maximum",
) -> Projection:
    """Return the stack around the surface on which its smoothed, coarse image is brightest in sum.

    The stack is averaged over squares of ``reduce`` pixels and smoothed along all axes. The surface has one height
    in each column of that grid, at most ``step`` planes from that of its four neighbours, and of all such surfaces
    the least sum of inverted grey levels: the global minimum up to the rounding to 1000 levels. It is interpolated
    to the pixels bilinearly.

    Args:
        stack: (Z, Y, X), any unit.
        reduce: pixels along the side of a column, 1 or more.
        smooth: standard deviation of the Gaussian, in columns and in planes, 0 or more.
        step: largest difference in height of neighbouring columns, planes, 0 or more: the steepest surface rises
            ``step / reduce`` planes per pixel.
        thickness: planes on either side of the surface that are read.
        offset: planes from the surface to where it is read; positive towards the last plane.
        reading: ``maximum`` or ``mean`` of what is read.

    Returns:
        the projection. Memory: about 600 bytes per voxel of the coarse stack.

    Raises:
        InputError: not three axes, values that are not finite, or a setting that is not accepted.

    Source: Li, Wu, Chen & Sonka 2006, IEEE PAMI 28:119 (minimum closed set as a minimum cut); used for epithelia as
    Fiji's "Minimum Cost Z Surface". One surface; the cost is this project's choice.
    """
    volume = checked(stack)
    if reduce < 1 or step < 0 or smooth < 0:
        raise InputError(
            f"reduce {reduce}, step {step} and smooth {smooth} of the minimum-cost surface; accepted: 1 or more "
            "pixels, 0 or more planes, 0 or more"
        )
    coarse = ndimage.gaussian_filter(_reduced(volume, reduce), smooth)
    span = float(np.ptp(coarse))
    cost = np.rint((coarse.max() - coarse) * (LEVELS / span if span else 0.0)).astype(np.int64)
    heights = cheapest_heights(cost, step)
    # A column stands at the middle of its pixels.
    places = np.meshgrid(*((np.arange(n) - (reduce - 1) / 2) / reduce for n in volume.shape[1:]), indexing="ij")
    surface = ndimage.map_coordinates(heights.astype(np.float32), places, order=1, mode="nearest")
    return Projection(read_out(volume, surface, thickness=thickness, offset=offset, reading=reading), surface)


def cheapest_heights(cost: NDArray[np.int64], step: int) -> NDArray[np.intp]:
    """Return the heights (Y, X) with the least sum of costs whose neighbours differ by at most ``step``.

    The lowest where several have the same sum.

    Args:
        cost: (Z, Y, X), whole numbers from 0; their sum over any surface is below 2^30.
        step: largest difference along y and x, 0 or more.
    """
    planes = len(cost)
    node = np.arange(cost.size).reshape(cost.shape)
    source, sink = cost.size, cost.size + 1
    endless = 2**30
    # A voxel belongs to the source where the surface is as high or higher. The cut goes through the one arc from it
    # to the voxel above, or the sink: there the surface is. One is added, so that no arc is without capacity.
    above = np.concatenate([node[1:], np.full_like(node[:1], sink)])
    tails, heads = [np.full_like(node[0], source), node], [node[0], above]
    sizes = [np.full_like(node[0], endless), cost + 1]
    for axis in (1, 2):
        first, second = (np.delete(node, end, axis) for end in (-1, 0))
        for here, there in ((first, second), (second, first)):
            # A neighbour is at most `step` planes lower. The first plane belongs to the source anyhow.
            tails.append(here[step + 1 :])
            heads.append(there[1 : max(planes - step, 1)])
            sizes.append(np.full_like(tails[-1], endless))
    tail, head, size = (np.concatenate([part.ravel() for part in parts]) for parts in (tails, heads, sizes))
    graph = csr_array((size.astype(np.int32), (tail, head)), shape=(sink + 1, sink + 1))
    left = csr_array(graph - maximum_flow(graph, source, sink).flow > 0)
    reached = np.zeros(sink + 1, np.bool_)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return np.asarray(reached[: cost.size].reshape(cost.shape).sum(axis=0) - 1, np.intp)


def _reduced(volume: NDArray[np.float32], reduce: int) -> NDArray[np.float32]:
    """Return the means over squares of pixels; the last row and column are repeated to fill the last squares."""
    planes, rows, columns = volume.shape
    filled = np.pad(volume, ((0, 0), (0, -rows % reduce), (0, -columns % reduce)), mode="edge")
    parts = filled.reshape(planes, filled.shape[1] // reduce, reduce, filled.shape[2] // reduce, reduce)
    return np.asarray(parts.mean(axis=(2, 4)), np.float32)

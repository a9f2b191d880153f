"""How many iterations: the rules that choose k, by depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.explain import REBLUR, band, copies, explained
from deepcontrast.metrics.iou import iou
from deepcontrast.progress import Event, Progress, silent

TOLERANCE = 0.02
"""Share of the best prediction of neighbouring raw planes that more contrast may cost."""

MATCHED = REBLUR.index(2.0)
"""The re-blurred copy whose brightness is matched to the raw's."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen number of iterations as a function of depth.

    Attributes:
        depth: centres of the depth bins, ascending (B,).
        score: of every k = 0 .. K in every bin (B, K + 1); NaN where it cannot be told.
        best: chosen k of every bin (B,).
        why: the rule, in words.
    """

    depth: NDArray[np.float64]
    score: NDArray[np.float64]
    best: NDArray[np.int64]
    why: str

    def at(self, depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return k at any depth; between bin centres it changes linearly, so that no step appears."""
        k: NDArray[np.float64] = np.interp(depth, self.depth, self.best.astype(float))
        return k


def fixed(k: int, why: str) -> Choice:
    """Return the same k at every depth."""
    return Choice(np.zeros(1), np.full((1, k + 1), np.nan), np.array([k]), why)


def bins(depths: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the edges of up to 10 bins over the depths of all stacks, of at least 5 planes each."""
    count = max(1, min(10, min(len(d) for d in depths) // 5))
    return np.linspace(min(d.min() for d in depths), max(d.max() for d in depths), count + 1)


def predicts_neighbours(
    passes: Sequence[Volume],
    depth: NDArray[np.float64],
    edges: NDArray[np.float64],
    valid: NDArray[np.bool_] | None = None,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return how well every k explains the neighbouring raw planes, per depth bin (B, K + 1).

    The raw planes above and below show almost the same structures under independent noise, so a result that
    keeps noise gains nothing by it, and one that lost structure falls behind. The score is the correlation
    between the mean of the two neighbours, high-passed (Gaussian 1 px minus 20 px), and its best non-negative
    fit by copies of the enhanced plane re-blurred with 0, 1, 2 and 4 px and high-passed alike.

    Args:
        passes: raw, then k = 1 .. K; each (Z, Y, X).
        depth: of the planes (Z,).
        edges: of the depth bins.
        valid: voxels that hold a measurement.
        progress: gets events.
    """
    raw = passes[0]
    scores = np.full((len(edges) - 1, len(passes)), np.nan)
    for b, chosen in enumerate(_planes_of(depth, edges, valid)):
        if not chosen:
            continue
        whole = np.ones(raw.shape[1:], bool)
        known = [whole if valid is None else valid[z - 1 : z + 2].all(axis=0) for z in chosen]
        target = [
            band((raw[z - 1].astype(np.float32) + raw[z + 1]) / 2)[v].ravel()
            for z, v in zip(chosen, known, strict=True)
        ]
        for k, result in enumerate(passes):
            ways = [copies(result[z])[:, v] for z, v in zip(chosen, known, strict=True)]
            scores[b, k] = np.mean([explained(t, c) for t, c in zip(target, ways, strict=True)])
            progress(Event("choose k", b * len(passes) + k + 1, len(scores) * len(passes)))
    return scores


def largest_that_explains(
    scores: Sequence[NDArray[np.float64]], edges: NDArray[np.float64], tolerance: float = TOLERANCE
) -> Choice:
    """Choose, per depth bin, the largest k that still explains the neighbouring raw planes.

    "Still" means at least ``1 - tolerance`` of the best score over k >= 1; scores of several stacks are
    averaged. A bin without a score takes the k of its nearest neighbour.
    """
    stacked = np.stack(scores)
    known = np.isfinite(stacked)
    score = np.where(known.any(0), np.where(known, stacked, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    centres = (edges[:-1] + edges[1:]) / 2
    best = np.zeros(len(centres), np.int64)
    for b, row in enumerate(score):
        if np.isfinite(row[1:]).all() and row[1:].max() > 0:
            best[b] = 1 + int(np.flatnonzero(row[1:] >= (1 - tolerance) * row[1:].max())[-1])
    decided = np.flatnonzero(best)
    if not len(decided):
        return fixed(1, "k = 1: not decidable, no plane has two valid neighbours with structure to compare with")
    for b in np.flatnonzero(best == 0).tolist():
        best[b] = best[decided[np.argmin(np.abs(decided - b))]]
    return Choice(
        centres,
        score,
        # One bin that differs from both its neighbours says more of the threshold than of the depth.
        ndimage.median_filter(best, 3, mode="nearest"),
        f"per depth bin, the largest k whose result, re-blurred, still predicts the structures of the "
        f"neighbouring raw planes (whose noise is independent) within {tolerance:.0%} of the best k; "
        f"the median of three bins, blended linearly between them",
    )


def by_mask(passes: Sequence[Volume], mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> Choice:
    """Choose the k whose best-threshold IoU with a mask (Z, Y, X) is highest, averaged over planes.

    DeepContrast section 4.8. A mask drawn on raw favours results that look like raw.
    """
    planes = [z for z in range(len(mask)) if mask[z].any()]
    rows = [
        [iou(np.asarray(p[z]), mask[z], valid=None if valid is None else valid[z])[0].value or 0.0 for z in planes]
        for p in passes
    ]
    score = np.array(rows).mean(axis=1)
    best = 1 + int(np.argmax(score[1:]))
    why = f"k = {best}: highest best-threshold IoU with the given mask ({score[best]:.3f}; raw {score[0]:.3f})"
    return Choice(np.zeros(1), score[None], np.array([best]), why)


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
        for b, planes in enumerate(_planes_of(depth, edges, known)):
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


def _planes_of(
    depth: NDArray[np.float64], edges: NDArray[np.float64], valid: NDArray[np.bool_] | None, count: int = 6
) -> list[list[int]]:
    """Return, per depth bin, up to ``count`` planes that have two neighbours and enough valid voxels."""
    which = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, len(edges) - 2)
    found = []
    for b in range(len(edges) - 1):
        inside = [int(z) for z in np.flatnonzero(which == b) if 0 < z < len(depth) - 1]
        inside = [z for z in inside if valid is None or valid[z - 1 : z + 2].all(axis=0).mean() > 0.2]
        chosen = np.unique(np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int))
        found.append([inside[i] for i in chosen])
    return found

"""How many iterations: the rules that choose k, by depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.depth import planes_of
from deepcontrast.explain import band, copies, mixture
from deepcontrast.metrics.iou import iou
from deepcontrast.progress import Event, Progress, silent

LOSS = 0.07
"""Share of the structures, of what the best k explains, that less haze may cost."""

SMOOTH = 1.5
"""Width in pixels of the Gaussian that takes the noise from the median and the brightest structures."""

DECIDABLE = 4.0
"""Standard errors by which the structures that two raw planes share must exceed chance."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen number of iterations as a function of depth.

    Attributes:
        depth: centres of the depth bins, ascending (B,).
        scores: what the rule looked at: name to values of every k = 0 .. K in every bin (B, K + 1), NaN where it
            cannot be told.
        best: chosen k of every bin (B,); between whole numbers a mixture.
        why: the rule, in words.
    """

    depth: NDArray[np.float64]
    scores: Mapping[str, NDArray[np.float64]]
    best: NDArray[np.float64]
    why: str

    def at(self, depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return k at any depth; between bin centres it changes linearly, so that no step appears."""
        k: NDArray[np.float64] = np.interp(depth, self.depth, self.best)
        return k


def fixed(k: int, why: str) -> Choice:
    """Return the same k at every depth."""
    return Choice(np.zeros(1), {}, np.array([float(k)]), why)


def haze_left(
    passes: Sequence[Volume],
    depth: NDArray[np.float64],
    edges: NDArray[np.float64],
    *,
    offset: float,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return how bright the background still is, for every k and depth bin (B, K + 1).

    The median of a plane, blurred by 1.5 px, over its 99th percentile, both above the offset; mean over planes.
    As for the percentile contrast index (DeepContrast, section 4.7), at least half of a plane is taken to hold
    no structure: light there is haze, and where structures fill more it never goes. Below 0, passes take away more
    than there was. NaN where nothing is brighter than the offset.

    Args:
        passes: raw, then k = 1 .. K; each (Z, Y, X).
        depth: of the planes (Z,).
        edges: of the depth bins.
        offset: grey level without light.
        valid: voxels that hold a measurement.
    """
    left = np.full((len(edges) - 1, len(passes)), np.nan)
    for b, chosen in enumerate(planes_of(depth, edges, valid)):
        for k, result in enumerate(passes):
            shares = []
            for z in chosen:
                plane = ndimage.gaussian_filter(np.asarray(result[z], np.float32), SMOOTH) - offset
                median, top = np.percentile(plane if valid is None else plane[valid[z]], (50, 99))
                shares.append(float(median / top) if top > 0 else np.nan)
            if shares and np.isfinite(shares).all():
                left[b, k] = np.mean(shares)
    return left


def structures_kept(
    passes: Sequence[Volume],
    depth: NDArray[np.float64],
    edges: NDArray[np.float64],
    valid: NDArray[np.bool_] | None = None,
    region: NDArray[np.bool_] | None = None,
    *,
    apart: int = 1,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return which share of the structures every k still explains, per depth bin (B, K + 1).

    Raw planes above and below show almost the same structures under independent noise: see
    :func:`explained_share`. NaN where they share no structure beyond chance. A network that is given these planes, or
    was trained on them, could know their noise, which would be rewarded: planes beyond those it is given are taken, and
    it is judged where it was not trained.

    Args:
        passes: raw, then k = 1 .. K; each (Z, Y, X).
        depth: of the planes (Z,).
        edges: of the depth bins.
        valid: voxels that hold a measurement.
        region: pixels (Y, X) that training never saw; ``None`` where it saw none.
        apart: how far above and below, in planes: the first that the network is not given.
        progress: gets events.
    """
    raw = passes[0]
    scores = np.full((len(edges) - 1, len(passes)), np.nan)
    for b, chosen in enumerate(planes_of(depth, edges, valid, apart=apart)):
        if not chosen:
            continue
        inside = np.ones(raw.shape[1:], bool) if region is None else region
        known = [inside if valid is None else inside & valid[[z - apart, z, z + apart]].all(axis=0) for z in chosen]
        above, below = (
            np.concatenate([band(np.asarray(raw[z + step], np.float32))[v] for z, v in zip(chosen, known, strict=True)])
            for step in (-apart, apart)
        )
        for k, result in enumerate(passes):
            ways = np.concatenate([copies(result[z])[:, v] for z, v in zip(chosen, known, strict=True)], axis=1)
            scores[b, k] = explained_share(above, below, ways)
            progress(Event("choose k", b * len(passes) + k + 1, len(scores) * len(passes)))
    return scores


def explained_share(one: NDArray[np.float32], other: NDArray[np.float32], ways: NDArray[np.float32]) -> float:
    """Return ``Q = 1 - <(one - f)(other - f)> / <one other>``, free of the noise of all three.

    f is the best non-negative mixture of the ways in which a result may explain the structures (copies of it,
    re-blurred). ``one`` and ``other`` show these structures under noise that is independent of each other's and
    of the result's, so that noise adds nothing to either mean: Q is 1 for a result that has all of the structures,
    and 0 for one that has none. A result gains nothing by keeping its own noise, but by having that of ``one`` or
    ``other``: they must have been held out of its training.

    Args:
        one, other: structure band of two independent recordings (N,).
        ways: structure band of the result's copies (M, N).

    Returns:
        NaN where <one other> is not above chance by 4 standard errors.
    """
    a, b = (x.astype(np.float64) - (x.mean(dtype=np.float64) if len(x) else 0.0) for x in (one, other))
    shared = float(a @ b)
    # Noise blurred by 1 px is alike over 4 pi pixels (products of two over half of them: this is on the safe side).
    error = float(np.sqrt((a @ a) * (b @ b) * 12 / max(len(a), 1)))
    if not len(a) or shared <= DECIDABLE * error:
        return float("nan")
    f = mixture((a + b) / 2, ways)
    return 1 - float((a - f) @ (b - f)) / shared


def haze_gone(
    haze: Sequence[NDArray[np.float64]],
    kept: Sequence[NDArray[np.float64]],
    edges: NDArray[np.float64],
    *,
    limit: float,
    loss: float = LOSS,
) -> Choice:
    """Choose, per depth bin, the fewest iterations that leave no haze, but no more than keep the structures.

    The first: where the haze falls to ``limit``, linear between whole k; all of them where it never does. The
    second: the largest k that explains at least the best share of k >= 1, less ``loss``. Several stacks are
    averaged. Passes from which on nothing is brighter than the offset do not count. A bin where this cannot be told
    takes the k of its nearest neighbour.

    Args:
        haze: of every stack, see :func:`haze_left`.
        kept: of every stack, see :func:`structures_kept`.
        edges: of the depth bins.
        limit: haze that may be left: the median of a plane as a share of its brightest structures.
        loss: share of the structures that may be lost.
    """
    h, q = (_mean(tables) for tables in (haze, kept))
    centres = (edges[:-1] + edges[1:]) / 2
    best = np.full(len(centres), np.nan)
    for b in range(len(centres)):
        count = int(np.argmin(np.append(np.isfinite(h[b] + q[b]), False)))
        if count > 1:
            share = q[b, 1:count]
            best[b] = min(falls_to(h[b, :count], limit), 1 + int(np.flatnonzero(share >= share.max() - loss)[-1]))
    decided = np.flatnonzero(np.isfinite(best))
    if not len(decided):
        return fixed(1, "k = 1: not decidable, no plane above the offset has two neighbours that share its structure")
    for b in np.flatnonzero(np.isnan(best)).tolist():
        best[b] = best[decided[np.argmin(np.abs(decided - b))]]
    return Choice(
        centres,
        {"share of the structures explained": q, "haze left": h},
        # One bin that differs from both its neighbours says more of the threshold than of the depth.
        ndimage.median_filter(best, 3, mode="nearest"),
        f"per depth bin, the fewest passes that leave little haze (background at most {limit:.0%} of the brightest "
        f"structures), but no more than keep the structures that neighbouring raw planes share (whose noise is "
        f"independent) within {loss:.0%} of the best; the median of three bins, linear between them",
    )


def falls_to(values: NDArray[np.float64], limit: float) -> float:
    """Return the k, 1 or more, at which values of k = 0 .. K fall to a limit, linear between whole k; else K."""
    below = np.flatnonzero(values[1:] <= limit)
    if not len(below):
        return float(len(values) - 1)
    k = 1 + int(below[0])
    if k == 1:
        return 1.0
    return float(k - 1 + (values[k - 1] - limit) / (values[k - 1] - values[k]))


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
    return Choice(np.zeros(1), {"IoU with the mask": score[None]}, np.array([float(best)]), why)


def _mean(tables: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over stacks of what is known."""
    stacked = np.stack(tables)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

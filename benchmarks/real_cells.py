"""Are the cells of a real stack segmented better from a result? The figures of docs/evidence.md.

    python benchmarks/real_cells.py DATA/lateral_root_membrane.h5 --enhanced ENHANCED.tif [--enhanced OTHER.tif ...]

Every method is segmented by the same watershed. Its image is averaged over 2 x 2 pixels (the cells are then about as
high as wide, in voxels) and each plane scaled to its percentiles 5 to 95, so that no method gains by being equally
bright at all depths. Seeds are the h-minima of the image after one Gaussian; the flood is on the image after another.
The two widths and h are chosen for every method from the same grid, by its score in the shallow half; so is whether
grey levels below the plane's median are set to it, and the width of the band-passes.

Scores are of the voxels of cells: the mean over cells of the best intersection over union (the primary measure, and
the one that settings are chosen by), SEG, average precision at 0.5, adapted Rand error, variation of information. What
a method would reach with its settings chosen in the deep half itself stands beside it. Intervals are of 95 %, from a
bootstrap over cells.

Of the 107 labels 30 lie in plane 31 alone, which is numbered by itself, and label 1 is what is outside the root: both
are left out, and cells of less than 500 voxels (2 x 2 pixels each) in a half. Reads HDF5: needs h5py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.morphology import h_minima
from skimage.segmentation import watershed

from deepcontrast import registry
from deepcontrast.metrics._matching import Overlap, compared
from deepcontrast.metrics.seg import seg_of_labels

FLOOD, SEED, H = (0.5, 1.5), (1.0, 1.5, 2.0, 3.0), (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
"""Widths, voxels after averaging; h, of the range of grey levels."""
HIGHS = (10.0, 20.0, 40.0)
OUTSIDE, ODD_PLANE, SMALLEST = 1, 31, 500
HALVES = {"shallow": slice(0, ODD_PLANE), "deep": slice(ODD_PLANE + 1, None)}
SCORES = ("IoU", "SEG", "AP 0.5", "Rand error", "VI")
RESAMPLES = 10_000
Volume = NDArray[np.float32]
Setting = tuple[float, float, float]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """A method at the setting that was chosen for it.

    Attributes:
        name: of the method.
        setting: (flood, seed, h).
        cells: best intersection over union of every cell, for each half.
        scores: SCORES for each half.
        reach: IoU in the deep half, had the setting been chosen there.
    """

    name: str
    setting: Setting
    cells: Mapping[str, NDArray[np.float64]]
    scores: Mapping[str, Sequence[float]]
    reach: float


def methods(raw: Volume, results: Sequence[Path]) -> Iterator[tuple[str, str, Volume]]:
    """Yield family, name and image of every method."""
    yield from both("raw", "raw", raw)
    for family in ("band_pass_2d", "band_pass_3d"):
        for high in HIGHS:
            image = registry.load("baselines", family)(raw, high=high)
            yield from both(family, f"{family} 1 to {high:g}", image)
    for path in results:
        image = tifffile.imread(path).astype(np.float32)
        if image.shape != raw.shape:
            raise SystemExit(f"{path}: {image.shape}; accepted: a result of the stack, {raw.shape}")
        yield from both(str(path), str(path), image)


def both(family: str, name: str, image: Volume) -> Iterator[tuple[str, str, Volume]]:
    """Yield an image as it is, and with grey levels below their plane's median set to it."""
    yield family, name, image
    yield family, f"{name}, clipped", np.maximum(image, np.median(image, axis=(1, 2), keepdims=True))


def scaled(image: Volume) -> Volume:
    """Return the image averaged over 2 x 2 pixels, its planes from 0 to 1."""
    z, y, x = image.shape
    small = image.reshape(z, y // 2, 2, x // 2, 2).mean(axis=(2, 4))
    low, high = np.percentile(small, (5, 95), axis=(1, 2), keepdims=True)
    return np.clip((small - low) / (high - low), 0, 1).astype(np.float32)


def cells_of(labels: Labels) -> dict[str, Labels]:
    """Return the cells in each half, 0 where nothing counts."""
    small = np.where(labels == OUTSIDE, 0, labels)[:, ::2, ::2]
    out = {}
    for half, planes in HALVES.items():
        _, index, counts = np.unique(small[planes], return_inverse=True, return_counts=True)
        out[half] = np.where(counts[index].reshape(small[planes].shape) >= SMALLEST, small[planes], 0)
    return out


def segmentations(image: Volume) -> Iterator[tuple[Setting, NDArray[np.int32]]]:
    """Yield every setting and its segmentation."""
    floods = {flood: ndimage.gaussian_filter(image, flood) for flood in FLOOD}
    for seed in SEED:
        # Minima of whole numbers: plateaus are exact.
        levels = np.rint(1000 * ndimage.gaussian_filter(image, seed)).astype(np.int32)
        for h in H:
            markers, _ = ndimage.label(h_minima(levels, round(1000 * h)))
            for flood, smooth in floods.items():
                yield (flood, seed, h), watershed(smooth, markers)


def best_iou(pairs: Overlap) -> NDArray[np.float64]:
    """Return the best intersection over union of every cell."""
    best = np.zeros(len(pairs.references))
    np.maximum.at(best, pairs.reference, pairs.jaccard)
    return best


def overlaps(segmented: NDArray[np.int32], cells: Labels) -> Overlap:
    """Return what a segmentation shares with the cells, of the cells' voxels."""
    pairs = compared(np.where(cells > 0, segmented, 0), cells)
    assert isinstance(pairs, Overlap)
    return pairs


def scores(segmented: NDArray[np.int32], cells: Labels) -> tuple[float, ...]:
    """Return SCORES of a half."""
    pairs, inside = overlaps(segmented, cells), np.where(cells > 0, segmented, 0)
    hits = int((pairs.jaccard > 0.5).sum())
    wrong = int((pairs.segments >= SMALLEST).sum()) + len(pairs.references) - hits
    [seg] = seg_of_labels(inside, cells)
    rand = adapted_rand_error(cells[cells > 0], segmented[cells > 0])[0]
    information = sum(variation_of_information(cells[cells > 0], segmented[cells > 0]))
    return float(best_iou(pairs).mean()), float(seg.value or 0), hits / wrong, float(rand), float(information)


def tuned(name: str, image: Volume, cells: Mapping[str, Labels]) -> Scored:
    """Return a method at the setting with the best score in the shallow half."""
    best, reach = (-1.0, (0.0, 0.0, 0.0), np.empty(0, np.int32)), -1.0
    for setting, segmented in segmentations(scaled(image)):
        shallow, deep = (best_iou(overlaps(segmented[HALVES[half]], cells[half])).mean() for half in HALVES)
        reach = max(reach, float(deep))
        if shallow > best[0]:
            best = float(shallow), setting, segmented
    _, setting, segmented = best
    parts = {half: (segmented[planes], cells[half]) for half, planes in HALVES.items()}
    ious = {half: best_iou(overlaps(*part)) for half, part in parts.items()}
    return Scored(name, setting, ious, {half: scores(*part) for half, part in parts.items()}, reach)


def interval(differences: NDArray[np.float64]) -> str:
    """Return the mean over cells and its 95 % interval."""
    drawn = np.random.default_rng(0).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), (2.5, 97.5))
    return f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main(path: Path, results: Sequence[Path]) -> None:
    with h5py.File(path) as file:
        raw, cells = file["raw"][:].astype(np.float32), cells_of(file["label"][:])
    print(", ".join(f"{half} half: {len(np.unique(c)) - 1} cells" for half, c in cells.items()), "\n")
    print(f"| deep half | {' | '.join(SCORES)} | IoU, tuned there | IoU, shallow | flood, seed, h |")
    print("|---" * (len(SCORES) + 4) + "|")
    families: dict[str, Scored] = {}
    for family, name, image in methods(raw, results):
        one = tuned(name, image, cells)
        values = " | ".join(f"{value:.3f}" for value in (*one.scores["deep"], one.reach, one.scores["shallow"][0]))
        print(f"| {name} | {values} | {', '.join(f'{s:g}' for s in one.setting)} |", flush=True)
        if family not in families or one.scores["shallow"][0] > families[family].scores["shallow"][0]:
            families[family] = one
    print("\n| IoU of cells, deep half | minus | difference |\n|---|---|---|")
    for result in map(str, results):
        for rival in families:
            if rival not in map(str, results):
                ours, theirs = families[result], families[rival]
                print(f"| {ours.name} | {theirs.name} | {interval(ours.cells['deep'] - theirs.cells['deep'])} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stack", type=Path)
    parser.add_argument("--enhanced", type=Path, action="append", default=[])
    options = parser.parse_args()
    main(options.stack, options.enhanced)

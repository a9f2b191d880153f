"""Does a result of a faint real stack resemble the clear twin of the same tissue? The figures of docs/evidence.md.

    python benchmarks/real_twin.py register DATA
    python benchmarks/real_twin.py score DATA --enhanced ENHANCED.tif [--enhanced OTHER.tif ...]

DATA holds brain_faint_at_low_z.tif (the surface is its last plane) and brain_same_tissue_clear.tif.

`register` fits where every voxel of the faint stack lies in the twin, from the two raw stacks and nothing else, and
writes twin_registration.json beside this script: a translation, and displacements on a coarse grid. It was run once; no
result of a method had a part in it. Its steps: cross-correlation of the band-passed logarithms; normalised
cross-correlation of blocks, in rounds; blocks that disagree with their neighbours are left out, the rest smoothed (thin
plates). It prints the correlation of the band-passed stacks after every round, and what shift is left.

`score` warps the twin onto the grid of the faint stack, so no result is resampled. In blocks of 32^3 voxels it takes
Pearson's correlation of every method with the twin. Blocks are chosen from the raw stacks alone: the twin has
structure (its band-passed logarithm has a standard deviation of 0.1 or more; in its emptiest parts, 0.03), and the
registration holds (at most 1.5 voxels of shift left, looked for in the 48^3 voxels around). Rivals are the raw smoothed
in 3D, and the band-passes with grey levels below the plane's median set to it; of each family the setting with the best
mean in that section of the depth is compared, so the choice favours the rival. Intervals are of 95 %, from a bootstrap
over groups of 2 x 2 x 2 blocks.

The primary measure, set before any result was seen: the correlation with the twin as it is, of the result as it is, in
the deep third. The twin minus its Gaussian of 20 voxels, and the clipped result, stand beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import fft, interpolate, ndimage, signal

from deepcontrast import registry
from deepcontrast.baselines import band_pass_2d

FAINT, TWIN = "brain_faint_at_low_z.tif", "brain_same_tissue_clear.tif"
FILE = Path(__file__).with_name("twin_registration.json")
FLOOR = 150.0
"""Grey levels of both cameras, nearly: the least of either stack is 195."""
SPACING = 32
"""Voxels between nodes of the displacements."""
ROUNDS = ((64, 20), (64, 6), (48, 5), (48, 5))
"""Side of the blocks and how far they are looked for, voxels."""
SIDE, WIDER, REACH = 32, 48, 5
"""Of the blocks that are scored, of those that are looked for around them, and how far."""
STRUCTURE, SHIFT, VALID = 0.1, 1.5, 0.5
SIGMAS = (0.5, 1.0, 1.5, 2.0, 3.0)
RESAMPLES = 10_000
Volume = NDArray[np.float32]
Corner = NDArray[np.int64]
Field = NDArray[np.float64]


@dataclass(frozen=True)
class Registration:
    """Where the voxels of the faint stack lie in the twin: at their own place, moved.

    Attributes:
        translation: (z, y, x) voxels.
        nodes: displacements on top of it (3, Z, Y, X), the first node at voxel 0, SPACING apart.
    """

    translation: Field
    nodes: Field

    def warp(self, images: Sequence[Volume], shape: Sequence[int]) -> list[Volume]:
        """Return images of the twin's grid on the faint stack's, NaN where the twin does not reach."""
        splines = [ndimage.spline_filter(image, output=np.float32) for image in images]
        out = [np.empty(shape, np.float32) for _ in images]
        for z in range(shape[0]):
            places = np.meshgrid([z], np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
            on_nodes = [place / SPACING for place in places]
            moved = [
                place + shift + ndimage.map_coordinates(node, on_nodes, mode="nearest")
                for place, shift, node in zip(places, self.translation, self.nodes, strict=True)
            ]
            for spline, image in zip(splines, out, strict=True):
                image[z] = ndimage.map_coordinates(spline, moved, prefilter=False, cval=np.nan)[0]
        return out


def structures(volume: NDArray[np.uint16]) -> Volume:
    """Return the band-passed logarithm: nuclei, bright or faint, around 0."""
    log = np.log(volume.astype(np.float32) - np.float32(FLOOR))
    return np.asarray(ndimage.gaussian_filter(log, 2.0) - ndimage.gaussian_filter(log, 8.0), np.float32)


def translation(faint: Volume, twin: Volume) -> Field:
    """Return the shift (z, y, x) of the best cross-correlation, to 2 voxels."""
    a, b = faint[::2, ::2, ::2], twin[::2, ::2, ::2]
    shape = [fft.next_fast_len(m + n, real=True) for m, n in zip(a.shape, b.shape, strict=True)]
    product = fft.irfftn(fft.rfftn(b, shape) * np.conj(fft.rfftn(a, shape)), shape)
    best = np.array(np.unravel_index(product.argmax(), shape))
    return 2.0 * np.where(best > np.array(shape) // 2, best - shape, best)


@dataclass(frozen=True)
class Shifts:
    """What shift is left between the faint stack and the warped twin, of blocks.

    Attributes:
        centre: of the blocks (blocks, 3), voxels.
        shift: (blocks, 3), voxels.
        peak: their normalised cross-correlation.
    """

    centre: Field
    shift: Field
    peak: Field

    @property
    def length(self) -> Field:
        return np.linalg.norm(self.shift, axis=1)


def shifts(faint: Volume, warped: Volume, corners: Sequence[Corner], side: int, reach: int) -> Shifts:
    """Look for every block of the faint stack in the warped twin. Blocks may stand out of it by half their side."""
    valid = np.isfinite(warped)
    faint = np.pad(np.where(valid, faint, 0), side // 2)
    warped = np.pad(np.where(valid, warped, 0), side // 2 + reach)
    inside = slice(side // 2, side // 2 + 2 * reach + 1)
    shift, peak = [], []
    for corner in corners:
        block = faint[at(corner + side // 2, side)]
        region = warped[at(corner + side // 2, side + 2 * reach)]
        energy = side**3 * ndimage.uniform_filter(region**2, side)[inside, inside, inside] * (block**2).sum()
        found = signal.correlate(region, block, "valid", method="fft") / np.sqrt(np.maximum(energy, 1e-6))
        best = np.unravel_index(found.argmax(), found.shape)
        lines = [np.moveaxis(found, i, 0)[(slice(None), *np.delete(best, i))] for i in range(3)]
        shift.append([summit(line) - reach for line in lines])
        peak.append(found.max())
    return Shifts(np.array(corners) + side / 2, np.array(shift), np.array(peak))


def at(corner: Corner, side: int) -> tuple[slice, ...]:
    """Return the voxels of a block."""
    return tuple(slice(c, c + side) for c in corner)


def summit(line: Field) -> float:
    """Return the place of the greatest value, by a parabola through it and its neighbours."""
    i = int(line.argmax())
    if i in (0, len(line) - 1):
        return float(i)
    left, top, right = line[i - 1 : i + 2]
    return i + 0.5 * float((left - right) / (left - 2 * top + right))


def corners_of(valid: NDArray[np.bool_], side: int, stride: int) -> list[Corner]:
    """Return the first voxels of the blocks of which at least half is valid."""
    every = np.stack(np.meshgrid(*[np.arange(0, n - side + 1, stride) for n in valid.shape], indexing="ij"), -1)
    return [corner for corner in every.reshape(-1, 3) if valid[at(corner, side)].mean() >= VALID]


def fitted(found: Shifts, side: int, reach: int, shape: Sequence[int]) -> tuple[Field, NDArray[np.bool_]]:
    """Return smooth displacements at the nodes (3, Z, Y, X), and which blocks they rest on."""
    apart = np.linalg.norm(found.centre[:, None] - found.centre[None], axis=2)
    typical = np.array([np.median(found.shift[near], axis=0) for near in apart <= side])
    good = (found.peak > 0.3) & (np.abs(found.shift - typical).max(axis=1) < 2) & (found.length < reach)
    nodes = np.stack(np.meshgrid(*[SPACING * np.arange(n) for n in nodes_of(shape)], indexing="ij"), -1)
    smooth = interpolate.RBFInterpolator(found.centre[good] / side, found.shift[good], smoothing=0.1)
    return np.moveaxis(smooth(nodes.reshape(-1, 3) / side).reshape(nodes.shape), -1, 0), good


def nodes_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Return how many nodes span a stack."""
    return tuple(-(-n // SPACING) + 1 for n in shape)


def correlations(faint: Volume, warped: Volume) -> str:
    """Return the correlation of band-passed stacks, all and in thirds from deep to shallow, as words."""
    thirds = np.array_split(np.arange(len(faint)), 3)
    values = []
    for planes in (np.arange(len(faint)), *thirds):
        valid = np.isfinite(warped[planes])
        values.append(float(np.corrcoef(faint[planes][valid], warped[planes][valid])[0, 1]))
    return "all {:.3f}; deep {:.3f}, middle {:.3f}, shallow {:.3f}".format(*values)


def register(folder: Path) -> None:
    """Fit the registration and write it."""
    faint, twin = (structures(tifffile.imread(folder / name)) for name in (FAINT, TWIN))
    now = Registration(translation(faint, twin), np.zeros((3, *nodes_of(faint.shape))))
    [warped] = now.warp([twin], faint.shape)
    print(f"translation {now.translation}; correlation of the band-passed stacks: {correlations(faint, warped)}")
    for side, reach in ROUNDS:
        found = shifts(faint, warped, corners_of(np.isfinite(warped), side, side // 2), side, reach)
        more, good = fitted(found, side, reach, faint.shape)
        now = Registration(now.translation, np.round(now.nodes + more, 1))
        [warped] = now.warp([twin], faint.shape)
        shift = "median {:.2f}, 90 % below {:.2f}".format(*np.percentile(found.length[good], (50, 90)))
        print(f"blocks of {side}: {good.sum()} of {len(good)} used, their shift {shift}")
        print(f"  correlation after it: {correlations(faint, warped)}", flush=True)
    tenths = np.rint(10 * now.nodes).astype(int).tolist()
    kept = {"translation": now.translation.tolist(), "spacing": SPACING, "displacements in tenths of a voxel": tenths}
    FILE.write_text(json.dumps(kept, separators=(",", ":")) + "\n")


def sections(z: Field, planes: int) -> dict[str, NDArray[np.bool_]]:
    """Return which places lie in which third of the depth; the surface is the last plane."""
    third = np.floor(3 * z / planes)
    return {"deep": third == 0, "middle": third == 1, "shallow": third == 2, "all": third >= 0}


def score(folder: Path, results: Sequence[Path]) -> None:
    """Print the tables."""
    raw, twin = (tifffile.imread(folder / name) for name in (FAINT, TWIN))
    kept = json.loads(FILE.read_text())
    registration = Registration(
        np.array(kept["translation"]), 0.1 * np.array(kept["displacements in tenths of a voxel"])
    )
    plain = twin.astype(np.float32)
    flat = plain - ndimage.gaussian_filter(plain, 20.0)
    plain, flat, shown = registration.warp([plain, flat, structures(twin)], raw.shape)
    corners = chosen(structures(raw), shown)
    every = {}
    for family, name, image in methods(raw.astype(np.float32), results):
        every[family, name] = np.array(
            [[pearson(image, truth, corner) for truth in (plain, flat)] for corner in corners]
        )
    within = sections(np.array(corners)[:, 0] + SIDE / 2, len(raw))
    print(", ".join(f"{name} {there.sum()}" for name, there in within.items()) + " blocks\n")
    titles = [f"{name}{how}" for how in ("", ", flat twin") for name in within]
    print(f"| correlation with the twin | {' | '.join(titles)} |\n{'|---' * (len(titles) + 1)}|")
    for (_, name), values in every.items():
        means = [values[there, i].mean() for i in range(2) for there in within.values()]
        print(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    print(f"\n| result minus the best of | {' | '.join(titles)} |\n{'|---' * (len(titles) + 1)}|")
    for (kind, name), values in every.items():
        if kind != "result":
            continue
        for family in dict.fromkeys(family for family, _ in every if family != "result"):
            cells = []
            for i in range(2):
                for there in within.values():
                    rivals = [v[there, i] for (f, _), v in every.items() if f == family]
                    best = max(rivals, key=np.mean)
                    cells.append(interval(values[there, i] - best, np.array(corners)[there]))
            print(f"| {name}; {family} | {' | '.join(cells)} |", flush=True)


def chosen(faint: Volume, twin: Volume) -> list[Corner]:
    """Return the blocks where the twin has structure and the registration holds, from the band-passed raw stacks."""
    corners = corners_of(np.isfinite(twin), SIDE, SIDE)
    clear = [corner for corner in corners if np.nanstd(twin[at(corner, SIDE)]) >= STRUCTURE]
    left = shifts(faint, twin, [corner - (WIDER - SIDE) // 2 for corner in clear], WIDER, REACH)
    print(f"{len(corners)} blocks in the twin, {len(clear)} of them with structure")
    for name, there in sections(left.centre[:, 0], len(faint)).items():
        length = left.length[there]
        spread = "median {:.2f}, 90 % below {:.2f}, most {:.2f}".format(*np.percentile(length, (50, 90, 100)))
        print(f"shift left, {name}: {spread} voxels; left out {(length > SHIFT).sum()} of {len(length)}")
    return [corner for corner, length in zip(clear, left.length, strict=True) if length <= SHIFT]


def methods(raw: Volume, results: Sequence[Path]) -> Iterator[tuple[str, str, Volume]]:
    """Yield family, name and image of every method."""
    yield "raw", "raw", raw
    for sigma in SIGMAS:
        yield "smoothed raw", f"raw, Gaussian {sigma:g}", ndimage.gaussian_filter(raw, sigma)
    for name in ("band_pass_2d", "band_pass_3d"):
        for choice in band_pass_2d.CHOICES:
            image = registry.load("baselines", name)(raw, **choice)
            yield f"clipped {name}", f"{name} {choice['low']:g} to {choice['high']:g}, clipped", clipped(image)
    for path in results:
        image = tifffile.imread(path).astype(np.float32)
        if image.shape != raw.shape:
            raise SystemExit(f"{path}: {image.shape}; accepted: a result of {FAINT}, {raw.shape}")
        yield "result", str(path), image
        yield "result", f"{path}, clipped", clipped(image)


def clipped(image: Volume) -> Volume:
    """Return the image with grey levels below their plane's median set to it."""
    return np.maximum(image, np.median(image, axis=(1, 2), keepdims=True))


def pearson(image: Volume, truth: Volume, corner: Corner) -> float:
    """Return the correlation in a block, of the voxels that the twin reaches; 0 of a constant."""
    known = np.isfinite(truth[at(corner, SIDE)])
    a, b = image[at(corner, SIDE)][known], truth[at(corner, SIDE)][known]
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 else 0.0


def interval(differences: Field, corners: NDArray[np.int64]) -> str:
    """Return the mean of blocks and its 95 % interval; neighbouring blocks, 2 x 2 x 2, are drawn together."""
    _, group = np.unique(corners // (2 * SIDE), axis=0, return_inverse=True)
    sums, counts = np.bincount(group, differences), np.bincount(group)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (2.5, 97.5))
    return f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("register", "score"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--enhanced", type=Path, action="append", default=[])
    options = parser.parse_args()
    if options.verb == "register":
        register(options.data)
    else:
        score(options.data, options.enhanced)

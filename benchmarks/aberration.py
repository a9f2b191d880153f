"""A stack whose aberrations grow with depth, restored by what it shows near its surface. For docs/decisions.md.

    python benchmarks/aberration.py --folder DIR [--seeds 0,1] [--light 40] [--shape 40,160,160]
                                     [--set KEY=VALUE ...]

Filaments of known truth under a light-sheet microscope: aperture 1.1 in water, 532 nm, a sheet of 2 um, pixels of
0.15 um, planes 0.6 um apart, --light photons at the brightest. Every plane is blurred in three dimensions by a
point-spread function whose wave is a sum of Zernike polynomials of OSA 3 to 20, other amounts than training draws
(normal, falling with the order, the direction turning with depth), its root mean square rising from 0 at the first
plane to 1.5 radians at the last; light fades to a half. The truth is the same without aberrations and noise.

Compared per quarter of the depth, mean over planes: raw; Richardson-Lucy with the ideal point-spread function, its
iterations chosen by the truth over the whole stack; the recipe contrast, k as it chooses; the recipe aberration.
NRMSE and SSIM after the affine fit (CARE supplement, 2.2), Pearson correlation. Settings of --set are for both recipes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from deepcontrast.baselines.richardson_lucy import richardson_lucy
from deepcontrast.enhancing import enhance
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.pearson import pearson
from deepcontrast.metrics.ssim import ssim
from deepcontrast.psf import aberrated, orders
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.filaments import filaments

Volume = NDArray[np.float32]

NA, WAVELENGTH, INDEX, PIXEL = 1.1, 0.532, 1.33, 0.15
SHEET = 2.0
"""Full width at half maximum of the light sheet, um."""
APART = 4
"""Voxels of the structure from plane to plane."""
HALF = (13, 20, 20)
"""Voxels that light is followed over, (z, y, x)."""
STRONGEST, FADED = 1.5, 0.5
"""Root mean square of the wave at the last plane, in radians, and the light that is left there."""
GAIN, OFFSET, READ_NOISE = 2.0, 100.0, 3.0
ITERATIONS = (5, 10, 20, 40)
QUARTERS = 4


@dataclass(frozen=True, eq=False)
class Scene:
    """What is restored, and what it should be: grey levels and photons, (Z, Y, X)."""

    raw: Volume
    truth: Volume


def spot(waves: dict[int, float]) -> Volume:
    """Return the point-spread function of a light-sheet microscope (Z, Y, X), sum 1."""
    shape = tuple(2 * n + 1 for n in HALF)
    found = aberrated(
        (shape[0], shape[1], shape[2]), na=NA, wavelength_um=WAVELENGTH, index=INDEX, voxel_um=(PIXEL,) * 3,
        aberrations=waves,
    )  # fmt: skip
    z = PIXEL * np.arange(-HALF[0], HALF[0] + 1)
    lit = found * np.exp(-4 * np.log(2) * (z / SHEET) ** 2)[:, None, None]
    return np.asarray(lit / lit.sum(), np.float32)


def waves_at(share: float, directions: NDArray[np.float64]) -> dict[int, float]:
    """Return the aberrations at a share of the depth: OSA index to radians."""
    turned = (1 - share) * directions[0] + share * directions[1]
    amounts = STRONGEST * share * turned / np.linalg.norm(turned)
    return {3 + n: float(amount) for n, amount in enumerate(amounts)}


def scene(shape: tuple[int, int, int], light: float, seed: int) -> Scene:
    """Return a stack, by its shape, photons at the brightest (percentile 99.9) and seed alone."""
    rng = np.random.default_rng((seed, 77))
    falling = np.array([1 / orders(j)[0] for j in range(3, 21)])
    directions = rng.normal(size=(2, 18)) * falling
    planes, height, width = shape
    # Nothing of the microscope of this phantom is wanted but its structure.
    structure = filaments(
        shape=((planes - 1) * APART + 2 * HALF[0] + 1, height + 2 * HALF[1], width + 2 * HALF[2]), seed=seed, light=1.0,
        voxel_um=PIXEL, radius_um=0.15, density=0.25, psf_um=(1e-3, 1e-3), scatter_um=1e9, attenuation_um=1e9,
    ).truth  # fmt: skip
    ideal = spot({})
    truth, seen = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for z in range(planes):
        share = z / (planes - 1)
        part = structure[z * APART : z * APART + len(ideal)]
        for out, kernel in ((truth, ideal), (seen, spot(waves_at(share, directions)))):
            out[z] = oaconvolve(part, kernel, mode="valid")[0] * FADED**share
    scale = light / float(np.percentile(truth, 99.9))
    photons = scale * np.maximum(seen, 0)
    grey = GAIN * rng.poisson(photons) + OFFSET + rng.normal(0, READ_NOISE, shape)
    return Scene(np.clip(np.rint(grey), 0, None).astype(np.float32), scale * truth)


def stack_of(one: Scene) -> Stack:
    """Return the raw with what a microscopist knows."""
    optics = Optics(
        voxel_size=(APART * PIXEL, PIXEL, PIXEL), numerical_aperture=NA, wavelengths=(1000 * WAVELENGTH,),
        refractive_index=INDEX, surface="first",
    )  # fmt: skip
    return Stack(one.raw.astype(np.uint16), "ZYX", optics, source="phantom")


def scores(result: Volume, truth: Volume) -> NDArray[np.float64]:
    """Return NRMSE, SSIM and correlation (3, quarters), means over planes."""
    rows = [
        [metric(plane, right)[0].value or 0.0 for metric in (nrmse, ssim, pearson)]
        for plane, right in zip(result.astype(np.float64), truth.astype(np.float64), strict=True)
    ]
    return np.array([part.mean(axis=0) for part in np.array_split(np.array(rows), QUARTERS)]).T


def lucy(one: Scene) -> tuple[str, Volume]:
    """Return Richardson-Lucy with the iterations of least error over the whole stack, and their number."""
    kernel = spot({})[HALF[0] % APART :: APART]
    found = {
        n: richardson_lucy(
            one.raw, psf=kernel / kernel.sum(), offset=OFFSET, gain=GAIN, read_noise=READ_NOISE, iterations=n,
            tolerance=0.0,
        )
        for n in ITERATIONS
    }  # fmt: skip
    best = min(found, key=lambda n: float(scores(found[n], one.truth)[0].mean()))
    return f"Richardson-Lucy {best}", found[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--light", type=float, default=40.0)
    parser.add_argument("--shape", default="40,160,160")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    planes, height, width = (int(n) for n in given.shape.split(","))
    for seed in (int(n) for n in given.seeds.split(",")):
        compare((planes, height, width), given.light, seed, given.settings, given.folder)


def compare(shape: tuple[int, int, int], light: float, seed: int, settings: Sequence[str], folder: Path) -> None:
    """Print the table of one phantom and one training."""
    one = scene(shape, light, seed)
    results: dict[str, tuple[Volume, float]] = {"raw": (one.raw, 0.0)}
    begun = time.perf_counter()
    name, restored = lucy(one)
    results[name] = restored, time.perf_counter() - begun
    for recipe in ("contrast", "aberration"):
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            config = load_recipe(recipe, settings, train__seed=seed)
            found = enhance([stack_of(one)], config, folder=Path(work)).restored[0][0][0]
            k = f"k {found.chosen.min():.2g} to {found.chosen.max():.2g}"
            results[f"{recipe}, {k}"] = np.array(found.enhanced), time.perf_counter() - begun
    print(f"\nseed {seed}, {light:g} photons: quarters of the depth, from the surface on\n")
    print("| | NRMSE | SSIM | correlation | s |\n|---|---|---|---|---|")
    for name, (image, seconds) in results.items():
        cells = [" / ".join(f"{value:.3f}" for value in row) for row in scores(image, one.truth)]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
    np.savez_compressed(
        folder / f"seed_{seed}_light_{light:g}.npz",
        truth=one.truth,
        **{name.split(",")[0]: image for name, (image, _) in results.items()},
    )


if __name__ == "__main__":
    main()

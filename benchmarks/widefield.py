"""Widefield to confocal: a nucleus seen by both, restored by what its optics say alone. For docs/evidence.md.

    python benchmarks/widefield.py DATA/widefield/nucleus_confocal_and_widefield_zcyx.tif --folder DIR
        [--seeds 0,1,2] [--set KEY=VALUE ...] [--picture FILE]

The file says: water immersion of aperture 1.2, Hoechst, voxels of 0.499 x 0.512 x 0.512 um. The point-spread function
is computed from that (emission 460 nm). Compared with the confocal channel, which no method has seen: the widefield
channel, Richardson-Lucy with that function (its iterations chosen by the truth, which favours it), and a network of the
recipe `semi-synthetic` that learned from simulated nuclei (ellipsoids of Perlin texture) blurred by the same function,
with three planes above and below. The two channels lie apart; the confocal one is shifted by what registers it with the
Richardson-Lucy result of most iterations, in space. Scores are over the planes where the nucleus is (confocal mean
above a tenth of the brightest plane's) and after the affine fit (CARE supplement, 2.2).

Models and volumes are kept in DIR, models under the hash of their settings.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

import deepcontrast as dc
from deepcontrast.baselines.richardson_lucy import richardson_lucy
from deepcontrast.io import write_stack
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.train import train_images
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.ssim import ssim
from deepcontrast.perlin import perlin
from deepcontrast.psf import support, widefield
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack

Volume = NDArray[np.float64]

VOXEL = (0.4994, 0.5119, 0.5119)
NA, EMISSION, INDEX = 1.2, 460.0, 1.33
VOLUMES, SHAPE = 8, (45, 128, 128)
ITERATIONS = (5, 10, 20, 40, 80, 160)
SETTINGS = (
    "task.chain.minimum.radius=0", f"task.chain.convolve.na={NA}", f"task.chain.convolve.wavelength={EMISSION}",
    f"task.chain.convolve.index={INDEX}", f"task.chain.convolve.planes={SHAPE[0]}",
    "task.chain.poisson.light=[50,1000]", "task.chain.gaussian.sigma=[0,0.02]", "task.chain.exposure.saturation=9",
    "task.sets=1", "task.shifted=[]", "net.context=3", "train.steps=2000",
)  # fmt: skip


def nuclei(seed: int) -> NDArray[np.float32]:
    """Return a volume (Z, Y, X) of one to four nuclei: flat ellipsoids of coarse and fine texture with holes."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    z, y, x = (axis * size for axis, size in zip(np.indices(SHAPE), VOXEL, strict=True))
    volume = np.zeros(SHAPE, np.float32)
    for _ in range(rng.integers(1, 5)):
        fine, coarse = (perlin(SHAPE, [um / v for v in VOXEL], generator=generator).numpy() for um in (1.5, 4.0))
        middle = rng.uniform((8, 10, 10), (14, 55, 55))
        radii, angle = rng.uniform((2, 6, 6), (5, 12, 12)), rng.uniform(0, np.pi)
        v, u = y - middle[1], x - middle[2]
        v, u = np.cos(angle) * v - np.sin(angle) * u, np.sin(angle) * v + np.cos(angle) * u
        inside = ((z - middle[0]) / radii[0]) ** 4 + (v / radii[1]) ** 2 + (u / radii[2]) ** 2
        texture = np.clip(0.6 + 0.9 * fine + 0.5 * coarse + 0.3 * (inside > 0.8), 0.05, None)
        volume = np.where(inside < 1, rng.uniform(0.5, 1.5) * texture, volume).astype(np.float32)
    return volume


def trained(folder: Path, settings: list[str], seed: int) -> Path:
    """Return the model of a seed."""
    config = load_recipe("semi-synthetic", [*SETTINGS, *settings], train__seed=seed)
    model = folder / f"{hashlib.sha256(config.json().encode()).hexdigest()[:12]}.safetensors"
    volumes = [folder / f"nuclei_{n}.tif" for n in range(VOLUMES)]
    for n, path in enumerate(volumes):
        if not path.exists():
            write_stack(path, Stack(nuclei(n), "ZYX", Optics(VOXEL)))
    if not model.exists():
        resume = model.with_name(f"{model.name}.partial").exists()
        train_images(volumes, model, config, reading=Reading(), device="cpu", resume=resume)
    return model


def scores(image: Volume, truth: Volume) -> tuple[float, float, float]:
    """Return correlation, NRMSE and SSIM of a volume."""
    similar = np.mean([ssim(one, other)[0].value or 0.0 for one, other in zip(image, truth, strict=True)])
    return float(np.corrcoef(image.ravel(), truth.ravel())[0, 1]), nrmse(image, truth)[0].value or 0.0, float(similar)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    confocal, raw = np.moveaxis(tifffile.imread(given.image).astype(np.float64), 1, 0)
    dark = float(np.percentile(raw, 1))
    shape = support(na=NA, wavelength_um=EMISSION / 1000, index=INDEX, voxel_um=VOXEL)
    shape = (2 * len(raw) - 1, *(min(n, 2 * m - 1) for n, m in zip((199, 199), raw.shape[1:], strict=True)))
    psf = widefield(shape, na=NA, wavelength_um=EMISSION / 1000, index=INDEX, voxel_um=VOXEL)
    results = {"widefield": raw}
    for n in ITERATIONS:
        restored = richardson_lucy(raw.astype(np.float32), psf=psf, offset=dark, iterations=n, tolerance=0.0)
        results[f"Richardson-Lucy {n}"] = restored.astype(np.float64)
    stack = Stack(raw.astype(np.float32), "ZYX", Optics(VOXEL))
    for seed in map(int, given.seeds.split(",")):
        model = dc.load(trained(given.folder, given.settings, seed))
        for times in (1, 2):
            name = f"network, seed {seed}" + (", twice" if times > 1 else "")
            results[name] = np.asarray(model.predict(stack, iterations=times, device="cpu").array, np.float64)
    by, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
        results[f"Richardson-Lucy {ITERATIONS[-1]}"], confocal, upsample_factor=20, normalization=None
    )
    truth = ndimage.shift(confocal, by, order=1, mode="nearest")
    shown = truth.mean((1, 2)) > 0.1 * truth.mean((1, 2)).max()
    print(f"the confocal channel was shifted by {np.round(by, 2).tolist()} voxels; {int(shown.sum())} planes\n")
    print("| | correlation | NRMSE | SSIM |\n|---|---|---|---|")
    for name, volume in results.items():
        print(f"| {name} | {' | '.join(f'{v:.3f}' for v in scores(volume[shown], truth[shown]))} |", flush=True)
    if given.picture:
        _picture(given.picture, {**results, "confocal": truth})


def _picture(path: Path, results: dict[str, Volume]) -> None:
    """Draw a plane and a section along z of every result."""
    from deepcontrast.report.canvas import new_figure, plain_style, png_bytes

    names = ["widefield", "Richardson-Lucy 20", "Richardson-Lucy 160", "network, seed 0", "network, seed 0, twice"]
    names.append("confocal")
    with plain_style():
        figure = new_figure(210 * len(names), 320)
        panels = figure.subplots(2, len(names), height_ratios=(3, 1))
        for column, name in enumerate(names):
            plane, section = results[name][20], results[name][:, 67]
            for axes, image in zip(panels[:, column], (plane, section), strict=True):
                low, high = np.percentile(results[name], (1, 99.9))
                axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
                axes.set_axis_off()
            panels[0, column].set_title(name, fontsize=7)
        path.write_bytes(png_bytes(figure))


if __name__ == "__main__":
    main()

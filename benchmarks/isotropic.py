"""Isotropic stacks of simulated embryos, whose isotropic truth is known, and of a real stack made anisotropic.

    python benchmarks/isotropic.py embryo --folder DIR [--seeds 0,1,2] [--factors 5,10] [--picture FILE]
    python benchmarks/isotropic.py real DATA/anisotropic --folder DIR [--seeds 0,1,2]
    python benchmarks/isotropic.py joint --folder DIR [--seeds 0,1]
    python benchmarks/isotropic.py choices --folder DIR [--seeds 0] [--factors 5]
    python benchmarks/isotropic.py limits --folder DIR [--seeds 0] [--picture FILE]

All take ``--set KEY=VALUE``, a setting of the recipe ``isotropic``.

``embryo``: the network learns from the undersampled stack alone, with the axial blur estimated from it. Scores
against the truth: NRMSE; SSIM, the mean of xz and yz sections; the ratio Phi of the power in wedges of 20 degrees
about z and about x, between 0.25 and 0.9 of the lateral cut-off (where the point-spread function leaves 10 %), noise
floor subtracted, also as a share of the truth's own; Fourier shell correlation; and the ERROR of thresholded nuclei.
Richardson-Lucy has the number of iterations with the lowest NRMSE against the truth, and the true blur. ``moved`` is
how far nuclei lie from those of the truth along z, in pixels.

``real``: ``arabidopsis_near_isotropic.tif``, blurred along z (sigma 2 planes) and undersampled 4 times; the network
learns from that, knows the blur, and is compared with the stack as it was.

``joint``: nuclei and their envelope, planes 10.2 pixels apart: one network for both, and one for each.

``choices``: what becomes of the models of ``embryo`` with one view alone, with the geometric mean of both (of what lies
above the 2nd percentile, as CSBDeep), without matched spectra, and in one orientation.

``limits``: what it is not for: filaments, and nuclei that are all three times as long along the planes as across.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.axial_blur import gaussian
from deepcontrast.jobs.predict_in_memory import predict_stack
from deepcontrast.learning import learn
from deepcontrast.metrics import Measurement
from deepcontrast.metrics.error import error
from deepcontrast.metrics.fourier_shell import fourier_shells
from deepcontrast.metrics.isotropy import isotropy
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.ssim import ssim
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.embryo import embryo
from deepcontrast.synth.filaments import filaments
from deepcontrast.tasks import isotropic
from deepcontrast.upsampled import upsampled

Volume = NDArray[np.float32]
DEPTH = 120
"""Planes of the isotropic truth."""
SIDE = 160
METHODS = ("linear", "cubic", "richardson_lucy_planes", "richardson_lucy_fine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("embryo", "real", "joint", "choices", "limits"))
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--factors", default="5,10")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.what == "embryo":
        for factor in map(float, given.factors.split(",")):
            rows = [of_embryo(factor, seed, given.folder, given.settings, given.picture) for seed in seeds]
            print(f"mean of {len(seeds)} seeds, planes {factor:g} pixels apart")
            for name in rows[0]:
                tell(name, {key: float(np.mean([row[name][key] for row in rows])) for key in rows[0][name]})
    elif given.what == "real":
        of_real(given.data, seeds, given.folder, given.settings)
    elif given.what == "choices":
        for factor, seed in product(map(float, given.factors.split(",")), seeds):
            of_choices(factor, seed, given.folder, given.settings)
    elif given.what == "joint":
        for seed in seeds:
            of_channels(seed, given.folder, given.settings)
    else:
        for seed in seeds:
            of_limits(seed, given.folder, given.settings, given.picture)


def of_embryo(
    factor: float, seed: int, folder: Path, settings: Sequence[str], picture: Path | None
) -> dict[str, dict[str, float]]:
    """Restore one embryo and return the scores of every method."""
    made = embryo(shape=(round(DEPTH / factor), SIDE, SIDE), seed=seed, undersampling=factor)
    stack = Stack(made.raw, "ZYX", made.optics, source=f"embryo {seed}")
    model = trained(stack, folder / f"embryo_{factor:g}_{seed}.safetensors", settings, seed)
    began = time.perf_counter()
    ours = np.asarray(predict_stack([model], stack).array)
    print(f"embryo {seed}, {factor:g}: restored in {time.perf_counter() - began:.0f} s", flush=True)
    # What the microscope does along z on top of what it does across, in pixels.
    axial, lateral = (width / 0.4 for width in made.parameters["psf_um"])  # type: ignore[attr-defined]
    sigma = float(np.sqrt(axial**2 - lateral**2))
    cut = cut_off(lateral)
    results = {"network": ours, **others(made.raw, factor, sigma, made.truth)}
    shells = {}
    rows = {}
    for name, volume in {**results, "truth": made.truth}.items():
        [phi] = phi_of(volume, cut)
        rows[name] = {
            "nrmse": section_score(nrmse, volume, made.truth, "nrmse"),
            "ssim": section_score(ssim, volume, made.truth, "ssim"),
            "phi": float(phi.value if phi.value is not None else np.nan),
            "error": next(float(m.value or 0) for m in error(volume, made.labels) if m.metric == "error"),
            "moved": moved(volume, made.truth, made.labels),
        }
        found = fourier_shells(volume, made.truth)
        assert not isinstance(found, str)
        shells[name] = found.correlation[found.frequency <= cut]
        rows[name]["fsc"] = float(shells[name].mean())
    for row in rows.values():
        row["phi_of_truth"] = row["phi"] / rows["truth"]["phi"]
    for name, row in rows.items():
        row["shells_behind"] = float((shells[name] > shells["network"]).sum())
        tell(name, row)
    print(f"{len(shells['network'])} shells up to the lateral cut-off, {cut:.3f} cycles per pixel", flush=True)
    if picture is not None and seed == 0:
        write_picture(picture.with_stem(f"{picture.stem}_{factor:g}"), {**results, "truth": made.truth})
    return rows


def cut_off(sigma: float) -> float:
    """Return the frequency, in cycles per pixel, at which a Gaussian of a width leaves 10 % of the amplitude."""
    return float(min(0.49, np.sqrt(2 * np.log(10)) / (2 * np.pi * sigma)))


def others(raw: Volume, factor: float, sigma: float, truth: Volume, offset: float = 100.0) -> dict[str, Volume]:
    """Return what the other methods make of a stack; Richardson-Lucy at its best number of iterations."""
    found = {}
    for name in METHODS:
        module = registry.module("upsamplers", name)
        own = {"sigma": sigma, "offset": offset} if name.startswith("richardson") else {}
        tried = [
            getattr(module, name)(raw.astype(np.float32), factor=factor, **own, **choice) for choice in module.CHOICES
        ]
        found[name] = min(tried, key=lambda one: section_score(nrmse, one, truth, "nrmse"))
    return found


def section_score(metric: Callable[..., Any], volume: Volume, truth: Volume, name: str) -> float:
    """Return a score over the whole volume, of SSIM the mean over xz and yz sections."""
    if name == "nrmse":
        return float(metric(volume, truth)[0].value)
    views = [(volume.transpose(v), truth.transpose(v)) for v in ((1, 0, 2), (2, 0, 1))]
    return float(np.mean([metric(one[n], true[n])[0].value for one, true in views for n in range(4, len(one), 8)]))


def moved(volume: Volume, truth: Volume, labels: NDArray[Any]) -> float:
    """Return the median distance along z, in pixels, by which nuclei lie elsewhere than in the truth."""
    index = np.arange(1, labels.max() + 1)
    boxes = ndimage.find_objects(labels)
    whole = [
        n for n, box in zip(index, boxes, strict=True)
        if box is not None and all(b.start > 3 and b.stop < s - 3 for b, s in zip(box, labels.shape, strict=True))
    ]  # fmt: skip
    centres = [np.array(ndimage.center_of_mass(one - one.min(), labels, whole))[:, 0] for one in (volume, truth)]
    return float(np.median(np.abs(centres[0] - centres[1])))


def trained(
    stack: Stack,
    path: Path,
    settings: Sequence[str],
    seed: int,
) -> Model:
    """Return the model of a stack, trained where its file is not there yet."""
    if path.exists():
        return load_model(path)
    began = time.perf_counter()
    config = load_recipe("isotropic", settings, train__seed=seed)
    work = path.with_suffix(".work")
    work.mkdir(exist_ok=True)

    def said(event: Any) -> None:
        if "message" in event.values:
            print(f"  {event.values['message']}", flush=True)

    model, _ = learn([stack.with_optics(surface="first")], config, folder=work, progress=said)
    save_model(path, model)
    print(f"{path.stem}: trained in {time.perf_counter() - began:.0f} s", flush=True)
    return model


def of_real(data: Path, seeds: Sequence[int], folder: Path, settings: Sequence[str]) -> None:
    """Make the real stack anisotropic, and tell how far each method is from what it was."""
    real = tifffile.imread(data / "arabidopsis_near_isotropic.tif").astype(np.float32)
    factor, sigma = 4.0, 2.0
    planes = int(len(real) / factor)
    truth = real[: int(planes * factor)]
    raw = undersampled(truth, factor, sigma)
    stack = Stack(raw, "ZYX", Optics(voxel_size=(factor, 1.0, 1.0)), source="arabidopsis")
    psf = folder / "psf.tif"
    spot = np.zeros((2 * len(gaussian(sigma)) + 1, 5, 5), np.float32)
    spot[:, 2, 2] = np.exp(-((np.arange(len(spot)) - len(spot) // 2) ** 2) / (2 * sigma**2))
    tifffile.imwrite(psf, spot, photometric="minisblack")
    # The planes have less noise than the stack they were made of: none is added in training.
    known = [f"task.psf='{psf}'", "task.psf_voxel=[1.0,1.0,1.0]", "task.noise=false"]
    rows = {}
    for name, volume in others(raw, factor, sigma, truth, offset=0.0).items():
        rows[name] = section_score(nrmse, volume, truth, "nrmse")
        print(f"{name:24s} NRMSE {rows[name]:.5f}", flush=True)
    for seed in seeds:
        model = trained(stack, folder / f"real_{seed}.safetensors", [*known, *settings], seed)
        score = section_score(nrmse, np.asarray(predict_stack([model], stack).array), truth, "nrmse")
        print(f"network, seed {seed}: NRMSE {score:.5f}, {1 - score / rows['cubic']:.1%} below cubic", flush=True)


def undersampled(fine: Volume, factor: float, sigma: float) -> Volume:
    """Return a volume blurred along z and seen at every ``factor``-th plane, centred."""
    blurred = ndimage.gaussian_filter1d(fine, sigma, axis=0)
    planes = int(len(fine) / factor)
    at = (np.arange(planes) - (planes - 1) / 2) * factor + (len(fine) - 1) / 2
    below = np.floor(at).astype(int)
    share = (at - below)[:, None, None].astype(np.float32)
    return np.asarray((1 - share) * blurred[below] + share * blurred[np.minimum(below + 1, len(fine) - 1)], np.float32)


def of_channels(seed: int, folder: Path, settings: Sequence[str]) -> None:
    """Restore nuclei and envelopes together, and each by itself."""
    factor = 10.2
    both = [
        embryo(shape=(round(DEPTH / factor), SIDE, SIDE), seed=seed, undersampling=factor, stain=stain)
        for stain in ("nuclei", "envelope")
    ]
    stack = Stack(np.stack([one.raw for one in both]), "CZYX", both[0].optics, ("nuclei", "envelope"), "embryo")
    for name, joint in (("joint", "true"), ("single", "false")):
        own = [*settings, f"task.joint={joint}"]
        model = trained(stack, folder / f"channels_{name}_{seed}.safetensors", own, seed)
        found = np.asarray(predict_stack([model], stack).array)
        for c, one in enumerate(both):
            row = {
                "nrmse": section_score(nrmse, found[c], one.truth, "nrmse"),
                "ssim": section_score(ssim, found[c], one.truth, "ssim"),
            }
            tell(f"{name} {stack.channels[c]}, seed {seed}", row)


def of_choices(factor: float, seed: int, folder: Path, settings: Sequence[str]) -> None:
    """Apply one model in several ways."""
    made = embryo(shape=(round(DEPTH / factor), SIDE, SIDE), seed=seed, undersampling=factor)
    stack = Stack(made.raw, "ZYX", made.optics, source=f"embryo {seed}")
    model = trained(stack, folder / f"embryo_{factor:g}_{seed}.safetensors", settings, seed)
    cut = cut_off(made.parameters["psf_um"][1] / 0.4)  # type: ignore[index]
    once = changed(model, "predict", {"orientations": 1})
    plain = replace(model, channels=tuple(replace(c, fit={**c.fit, "match": (1.0,)}) for c in model.channels))
    views = []
    for view in isotropic.VIEWS:
        with patch.object(isotropic, "VIEWS", (view,)):
            views.append(restored(model, stack))
    dark = float(np.percentile(upsampled(stack, factor).volume(), 2))
    both = [np.maximum(view - dark, 0) for view in views]
    ways = {
        "as it is": restored(model, stack),
        "xz alone": views[0],
        "yz alone": views[1],
        "geometric mean": dark + np.sqrt(both[0] * both[1]),
        "spectra not matched": restored(plain, stack),
        "one orientation": restored(once, stack),
    }
    for name, volume in ways.items():
        [phi], [phi_of_truth] = (phi_of(one, cut) for one in (volume, made.truth))
        row = {
            "nrmse": section_score(nrmse, volume, made.truth, "nrmse"),
            "ssim": section_score(ssim, volume, made.truth, "ssim"),
            "phi_of_truth": float(phi.value or 0) / float(phi_of_truth.value or 1),
            "error": next(float(m.value or 0) for m in error(volume, made.labels) if m.metric == "error"),
        }
        tell(f"{factor:g}, seed {seed}: {name}", row)


def changed(model: Model, table: str, values: Mapping[str, Any]) -> Model:
    """Return a model with other settings of a table."""
    config = model.config
    return replace(model, config=config.model_copy(update={table: getattr(config, table).model_copy(update=values)}))


def restored(model: Model, stack: Stack) -> Volume:
    return np.asarray(predict_stack([model], stack).array)


def phi_of(volume: Volume, cut: float) -> tuple[Measurement, ...]:
    """Return the ratio of power in wedges of 20 degrees, see above."""
    return isotropy(volume, band=(0.25 * cut, 0.9 * cut), half_angle=10.0, floor=cut)


def of_limits(seed: int, folder: Path, settings: Sequence[str], picture: Path | None) -> None:
    """Restore what the method is not for, and tell where it falls behind."""
    factor, sigma = 5.0, 2.2
    for kind in ("filaments", "stratified"):
        if kind == "filaments":
            made = filaments(shape=(DEPTH, SIDE, SIDE), seed=seed, light=100.0)
            fine = made.truth
        else:
            # Nuclei that are flat: of a volume three times as deep, every third plane.
            fine = embryo(shape=(3 * DEPTH, SIDE, SIDE), seed=seed, undersampling=1.0).truth[::3]
        rng = np.random.default_rng(seed)
        raw = (100 + 2 * rng.poisson(np.maximum(undersampled(fine, factor, sigma), 0))).astype(np.uint16)
        stack = Stack(raw, "ZYX", Optics(voxel_size=(factor, 1.0, 1.0)), source=kind)
        model = trained(stack, folder / f"limits_{kind}_{seed}.safetensors", settings, seed)
        results = {"network": np.asarray(predict_stack([model], stack).array), **others(raw, factor, sigma, fine)}
        for name, volume in results.items():
            row = {
                "nrmse": section_score(nrmse, volume, fine, "nrmse"),
                "ssim": section_score(ssim, volume, fine, "ssim"),
            }
            tell(f"{kind}: {name}", row)
        if picture is not None and seed == 0:
            write_picture(picture.with_stem(f"{picture.stem}_{kind}"), {**results, "truth": fine})


def tell(name: str, row: Mapping[str, float]) -> None:
    print(f"  {name:24s}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)


def write_picture(path: Path, results: Mapping[str, Volume]) -> None:
    """Write the middle xz sections of results, each below the other, in the grey levels of the truth."""
    truth = results["truth"]
    low, high = np.percentile(truth, (0.5, 99.8))
    rows = []
    for volume in results.values():
        flat, true = volume.ravel()[::7].astype(np.float64), truth.ravel()[::7]
        slope, offset = np.polyfit(flat, true, 1)
        section = slope * volume[:, volume.shape[1] // 2] + offset
        rows.append(np.clip(255 * (section - low) / (high - low), 0, 255).astype(np.uint8))
        rows.append(np.full((3, section.shape[1]), 255, np.uint8))
    image = np.vstack(rows)
    iio.imwrite(path, np.kron(image, np.ones((2, 2), np.uint8)))
    print(f"{path}: xz sections of {', '.join(results)}", flush=True)


if __name__ == "__main__":
    main()

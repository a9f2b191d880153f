"""What the rule for k costs against the best k of every depth bin, beside other rules. The figures of docs/evidence.md.

    python benchmarks/rule_for_k.py calibration --folder DIR        (the volumes the rule's two numbers were chosen on)
    python benchmarks/rule_for_k.py test --folder DIR               (12 others)

Each set has 12 simulated volumes, membranes and nuclei in turn, whose light (10 to 200 photons), size of cells,
strength of scatter and number of planes are drawn from a Latin hypercube. On each the default recipe is trained and
applied 1 to 6 times. Every rule's k(z) is written as `enhance` writes it, and scored against truth and mask (SSIM and
best-threshold IoU of planes); its regret in a depth bin is the best whole k's mean score there less its own. Networks
and passes are kept in DIR and used again.

Rules: `haze gone` is the one that is shipped. `structures kept` takes the largest k that explains, of the structures
that neighbouring raw planes share, the best share less 0.03, in the held-out squares. `held-out photons` asks the same
of two tenths of the photons, split off the raw at random before the network is applied to the rest. `haze alone` has
no cap. `truth, best sum` knows the truth and takes the whole k with the highest IoU + SSIM of every bin: what is left
is what the two scores do not agree on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.brightness import blend, match_brightness
from deepcontrast.depth import bins
from deepcontrast.explain import band, copies
from deepcontrast.learning import learn
from deepcontrast.metrics.iou import iou
from deepcontrast.metrics.ssim import ssim
from deepcontrast.patches import unseen
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.recipe import load_recipe
from deepcontrast.select import LOSS, Choice, explained_share, haze_gone, haze_left, structures_kept
from deepcontrast.stack import Optics, Stack

K = 6
SETS = {"calibration": 0, "test": 1}
TOLERANCE = 0.03
Volume = NDArray[np.float32]


def volumes(name: str) -> Iterator[tuple[int, Any]]:
    """Yield number and phantom of every volume of a set."""
    which = SETS[name]
    rng = np.random.default_rng(7 + which)
    light, size, scatter = ((rng.permutation(12) + rng.random(12)) / 12 for _ in range(3))
    planes = rng.permutation(12)
    for j in range(12):
        settings: dict[str, Any] = {
            "seed": 500 + 100 * which + j,
            "light": round(10 * 20 ** light[j], 1),
            "scatter_um": round(4 + 6 * scatter[j], 2),
            "shape": ((32, 40, 48, 56)[planes[j] % 4], 160, 160),
        }
        if j % 2 == 0:
            made = registry.load("synth", "tissue")(cell_um=round(6.5 + 6 * size[j], 2), **settings)
        else:
            spacing = round(4.5 + 4 * size[j], 2)
            made = registry.load("synth", "nuclei")(spacing_um=spacing, radius_um=round(spacing / 3, 2), **settings)
        yield 12 * which + j, made


def trained(number: int, made: Any, file: Path) -> dict[str, NDArray[Any]]:
    """Return the passes of the raw, those of eight tenths of its photons, and the other two tenths."""
    if file.exists():
        return dict(np.load(file))
    stack = Stack(made.raw, "ZYX", Optics(voxel_size=made.optics.voxel_size, surface="first"))
    with tempfile.TemporaryDirectory() as folder:
        model, _ = learn([stack], load_recipe("contrast", train__seed=number), folder=Path(folder))
    task: Any = registry.load("tasks", "contrast")
    channel = model.channels[0]
    fit = task.Fit.decode(channel.fit, channel.arrays)
    nets = load_nets(task, channel.members, fit, model.config)

    def passes(image: Volume) -> NDArray[np.float32]:
        made = [image]
        for _ in range(K):
            out = np.empty_like(image)
            predict_pass(task, nets, made[-1], fit, model.config, out=out)
            made.append(out)
        return np.stack(made)

    raw, gain, intercept = task.clean(made.raw, fit), fit.camera.gain, fit.camera.intercept
    rng = np.random.default_rng(1000 + number)
    photons = np.maximum(np.floor((raw - intercept) / gain + rng.random(raw.shape)), 0).astype(np.int64)
    most = rng.binomial(photons, 0.8)
    one = rng.binomial(photons - most, 0.5)
    kept = {
        "full": passes(raw),
        "p80": passes((most / 0.8 * gain + intercept).astype(np.float32)),
        "p80_b": (one * 10 * gain).astype(np.float32),
        "p80_c": ((photons - most - one) * 10 * gain).astype(np.float32),
        "held": np.array(fit.held_out),
        "patch": np.array(fit.patch),
        "apart": np.array(1 + max(fit.layers)),
        "offset": np.array(fit.norm.offset),
    }
    np.savez(file, **kept)
    return kept


def photons_kept(data: dict[str, NDArray[Any]], depth: NDArray[np.float64], region: NDArray[np.bool_]) -> Any:
    """Return Q of the held-out photons (B, K + 1)."""
    edges = bins([depth])
    which = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, len(edges) - 2)
    table = np.full((len(edges) - 1, K + 1), np.nan)
    for b in range(len(table)):
        planes = np.flatnonzero(which == b)
        one, other = (np.concatenate([band(data[name][z])[region] for z in planes]) for name in ("p80_b", "p80_c"))
        for k in range(K + 1):
            ways = np.concatenate([copies(data["p80"][k, z])[:, region] for z in planes], axis=1)
            table[b, k] = explained_share(one, other, ways)
    return table


def measure(number: int, made: Any, file: Path) -> dict[str, NDArray[np.float64]]:
    """Return, for every rule, the regret in IoU and SSIM of every depth bin (B, 2)."""
    data = trained(number, made, file)
    passes, offset = list(data["full"]), float(data["offset"])
    depth = np.arange(len(made.truth)) * float(made.optics.voxel_size[0])
    edges = bins([depth])
    which = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, len(edges) - 2)
    region = unseen([tuple(square) for square in data["held"]], int(data["patch"]), made.truth.shape[1:])
    brightness = match_brightness([passes], [depth], edges, [None])

    def scored(volume: Volume) -> NDArray[np.float64]:
        planes = [
            (iou(plane, mask)[0].value, ssim(plane, truth)[0].value)
            for plane, mask, truth in zip(volume, made.mask, made.truth, strict=True)
        ]
        return np.stack([np.mean(np.array(planes, float)[which == b], axis=0) for b in range(len(edges) - 1)])

    def written(choice: Choice) -> NDArray[np.float64]:
        out = np.empty(made.truth.shape, np.float32)
        blend(choice.at(depth), depth, brightness, offset=offset).write(dict(enumerate(passes)), out)
        return scored(out)

    limit = float(load_recipe("contrast").task["haze"])
    haze = haze_left(passes, depth, edges, offset=offset)
    kept = structures_kept(passes, depth, edges, region=region, apart=int(data["apart"]))
    held = photons_kept(data, depth, region)

    # With no limit on the haze, or none on the loss, one half of the rule is left.
    def only(share: NDArray[np.float64]) -> Choice:
        return haze_gone([haze], [share], edges, limit=-9, loss=TOLERANCE)

    choices = {
        "haze gone": haze_gone([haze], [kept], edges, limit=limit),
        "haze alone": haze_gone([haze], [kept], edges, limit=limit, loss=9),
        "structures kept": only(kept),
        "held-out photons": only(held),
    }
    each = np.stack([scored(volume) for volume in passes[1:]])
    best = each.max(axis=0)
    regret = {name: best - written(choice) for name, choice in choices.items()}
    regret |= {f"k = {k}": best - each[k - 1] for k in range(1, K + 1)}
    regret["truth, best sum"] = best - each[each.sum(axis=2).argmax(axis=0), np.arange(len(best))]
    light, kind = made.parameters["light"], "nuclei" if "nucleoli" in made.parameters else "tissue"
    shown = ", ".join(f"{name} {regret[name][:, 0].mean():.3f} / {regret[name][:, 1].mean():.3f}" for name in choices)
    print(f"{number:2d} {kind}, {light:g} photons: {shown}; k {np.round(choices['haze gone'].best, 1)}", flush=True)
    return regret


def main(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{name}: mean regret in IoU / SSIM per volume, and k by depth of the shipped rule (loss {LOSS})\n")
    found = [measure(number, made, folder / f"{name}_{number:02d}.npz") for number, made in volumes(name)]
    print("\n| rule | mean regret IoU | mean regret SSIM | sum | worst bin IoU | worst bin SSIM |")
    print("|---|---|---|---|---|---|")
    for rule in found[0]:
        mean = np.mean([table[rule].mean(axis=0) for table in found], axis=0)
        worst = np.max([table[rule].max(axis=0) for table in found], axis=0)
        print(f"| {rule} | {mean[0]:.4f} | {mean[1]:.4f} | {mean.sum():.4f} | {worst[0]:.3f} | {worst[1]:.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    main(given.set, given.folder)

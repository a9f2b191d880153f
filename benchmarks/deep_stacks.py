"""Is an enhanced real stack still the raw's? The figures of docs/evidence.md, one table per stack.

    python benchmarks/deep_stacks.py STACK... --out DIR [--set KEY=VALUE ...]

Runs the main job and prints, for the written result, a band-pass, the untouched raw and an over-iterated stack
(k = 8): contrast against raw in the deepest third (exp of the WCI difference), and per fifth of the depth the
correlation with the raw and the components that have nothing in the raw. ``.h5`` stacks are read from their
dataset ``raw`` (needs h5py).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from deepcontrast import registry
from deepcontrast.enhancing import enhance
from deepcontrast.evaluation import fidelity
from deepcontrast.io import open_stack, stem
from deepcontrast.jobs.results import save
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack

OVER = 8


def read(path: Path) -> Stack:
    if path.suffix != ".h5":
        return open_stack(path)
    import h5py

    with h5py.File(path) as file:
        return Stack(file["raw"][:], "ZYX", source=str(path))


def wci(volume: np.ndarray, planes: np.ndarray) -> float:
    values = [registry.load("metrics", "wci")(np.asarray(volume[z], np.float32))[0].value for z in planes]
    return float(np.mean([v for v in values if v is not None]))


def measure(path: Path, out: Path, settings: list[str]) -> None:
    stack, started = read(path), time.monotonic()
    config = load_recipe("contrast", [*settings, f"predict.iterations={OVER}"])
    with tempfile.TemporaryDirectory(dir=out) as folder:
        result = enhance([stack], config, folder=Path(folder))
        one, fit = result.restored[0][0][0], result.fits[0]
        minutes = (time.monotonic() - started) / 60
        target = out / stem(path)
        target.mkdir(exist_ok=True)
        save(result, target, [Path(f"{stem(path)}.tif")])
        raw = registry.load("tasks", "contrast").clean(one.source.volume(), fit)
        band = registry.load("baselines", "band_pass_2d")(raw) + np.float32(fit.norm.offset)
        shown = {"written": one.enhanced, "band-pass": band, "raw": raw, f"k = {OVER}": np.asarray(one.passes[OVER])}
        shown |= {f"k = {k}": np.asarray(one.passes[k]) for k in (1, 2, 3, 4)}
        deep = np.argsort(one.source.depth)[-len(raw) // 3 :]
        base = wci(one.source.volume(), deep)
        camera = {"gain": fit.camera.gain, "intercept": fit.camera.intercept}
        print(f"\n### {path.name}\n")
        print(f"surface {result.stacks[0].optics.surface} ({result.why_surface[0]}); blur {fit.sigma_why};")
        print(f"gain {fit.camera.gain:.4g}, intercept {fit.camera.intercept:.4g}; k by depth {result.choices[0].best};")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{minutes:.1f} minutes (8 passes), peak memory {peak:.2f} GB\n")
        print("| | exp WCI over raw, deepest third | correlation per fifth, shallow to deep | unsupported |")
        print("|---|---|---|---|")
        for name, volume in shown.items():
            parts = fidelity(raw, np.asarray(volume), one.source.depth, **camera)
            correlation = " ".join(f"{p.correlation:.2f}" for p in parts)
            lone = sum(p.unsupported for p in parts)
            count = sum(p.components for p in parts)
            share = f"{lone} of {count} ({lone / max(count, 1):.1%})"
            each = " ".join(f"{p.unsupported}/{p.components}" for p in parts)
            print(f"| {name} | {np.exp(wci(volume, deep) - base):.2f} | {correlation} | {share}: {each} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for stack_path in given.stacks:
        measure(stack_path, given.out, given.settings)

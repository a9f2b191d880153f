"""What the rule for k costs against the best k of every plane, on tuning volumes. The figures of docs/evidence.md.

    python benchmarks/rule_for_k.py 100:25 101:8 102:60        (seed:photons of simulated tissue)

Prints the mean regret in IoU and SSIM over the planes, for several tolerances of the rule.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from deepcontrast.enhancing import enhance
from deepcontrast.metrics.iou import iou
from deepcontrast.metrics.ssim import ssim
from deepcontrast.recipe import load_recipe
from deepcontrast.select import bins, largest_that_explains
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue

TOLERANCES = (0.01, 0.015, 0.02, 0.03, 0.05)


def measure(seed: int, light: float) -> None:
    made = tissue(seed=seed, light=light)
    stack = Stack(made.raw, "ZYX", Optics(voxel_size=made.optics.voxel_size))
    with tempfile.TemporaryDirectory() as folder:
        result = enhance([stack], load_recipe("contrast"), folder=Path(folder))
        one, score = result.restored[0][0][0], result.choices[0].score
        planes = range(len(made.mask))
        truth = np.array(
            [
                [
                    (iou(np.asarray(p[z]), made.mask[z])[0].value, ssim(np.asarray(p[z]), made.truth[z])[0].value)
                    for z in planes
                ]
                for p in one.passes
            ]
        )
        best = truth[1:].max(axis=0).mean(axis=0)
        print(f"\nseed {seed}, {light:g} photons: regret in IoU / SSIM; fixed k:", end=" ")
        print(", ".join(f"{k}: {r[0]:.3f} / {r[1]:.3f}" for k, r in enumerate(best - truth.mean(axis=1)) if k))
        for tolerance in TOLERANCES:
            choice = largest_that_explains([score], bins([one.source.depth]), tolerance)
            k = np.rint(choice.at(one.source.depth)).astype(int)
            regret = best - np.mean([truth[k[z], z] for z in planes], axis=0)
            print(f"  tolerance {tolerance:g}: {regret[0]:.3f} / {regret[1]:.3f}, k by depth {choice.best}", flush=True)


if __name__ == "__main__":
    for pair in sys.argv[1:]:
        number, _, photons = pair.partition(":")
        measure(int(number), float(photons))

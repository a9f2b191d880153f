"""What wrong values of the camera and spoiled stacks cost, on simulated volumes of known truth. For docs/evidence.md.

    python benchmarks/robustness.py --folder DIR [--phantoms tissue,nuclei] [--seeds 0] [--only ROW,ROW] [--oracle]

Every row of `ROWS` spoils the stack, or tells the camera wrong, and runs all of `enhance` with the default recipe and
automatic k. Result and spoiled stack are scored against the truth as `experiment ablation` does it: IoU of the best
threshold, and clipped SSIM, SSIM of the foreground and correlation, means over five depth bins. A row is within the
limits where its IoU is at most 0.03 below that of the right values, and above that of its own raw. Where a row tells
nothing, the camera is estimated. What `enhance` refuses, as an offset above the image, has a line of its own.

`offset` is the setting `task.offset`: it moves what is subtracted, and o' of the noise, the zero-variance intercept
offset - read_noise^2 / gain, stays estimated. In the rows of o' both are wrong, which no setting does.

With `--oracle` every row that spoils the stack is done once more by a supervised network: of the same size and input,
trained on the truths of three other volumes that were spoiled alike, each with a pattern of its own. What it loses
against itself on stacks that were not spoiled says how much can be had back.

What is done is kept in DIR/runs.jsonl, and not done again; several processes may share DIR, each with rows, phantoms
or seeds of its own. `--set` holds for all rows; what a row tells is laid over it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from runs import kept
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.enhancing import enhance
from deepcontrast.errors import InputError
from deepcontrast.experiments import Subject
from deepcontrast.experiments._networks import seeded
from deepcontrast.experiments._oracle import oracle
from deepcontrast.experiments.ablation import MORE, OTHERS, SCORES, scored
from deepcontrast.progress import silent
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth import Phantom

RIGHT = "right values"
LOSS = 0.03
"""IoU that a row may lose against the right values."""
TASK: Any = registry.load("tasks", "contrast")


def as_it_is(volume: Phantom) -> NDArray[Any]:
    """Return the raw."""
    return volume.raw


@dataclass(frozen=True)
class Row:
    """What is wrong.

    Attributes:
        gain: that is told, as a multiple of the right one.
        offset: that is told, in grey levels above the right o'.
        zero: o' that noise and background are given, in grey levels above the right one.
        spoil: returns what became of a phantom's raw (Z, Y, X).
    """

    gain: float | None = None
    offset: float | None = None
    zero: float | None = None
    spoil: Callable[[Phantom], NDArray[Any]] = as_it_is


def eight_bits(volume: Phantom, clip: float = 0.0) -> NDArray[np.uint8]:
    """Return the range of a stack in 8 bits, as Fiji converts, but for ``clip`` percent of the voxels at either end."""
    low, high = np.percentile(volume.raw, (clip, 100 - clip)).round()
    grey = np.rint((volume.raw - low) * (256 / (high - low + 1)))
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def jpeg(volume: Phantom, quality: int) -> NDArray[np.uint8]:
    """Return planes that were JPEG files of 8 bits."""
    files = [imagecodecs.jpeg8_encode(plane, level=quality) for plane in eight_bits(volume)]
    return np.stack([imagecodecs.jpeg8_decode(file) for file in files])


def pattern(volume: Phantom, axes: str, light: float = 0.0, offset: float = 0.0) -> NDArray[np.uint16]:
    """Return a stack with a random pattern that changes along some of the axes "zyx" and is alike along the others.

    Light is multiplied by 1 + ``light`` N(0, 1), and ``offset`` N(0, 1) grey levels are added.
    """
    rng = np.random.default_rng((volume.parameters["seed"], 1))
    shape = [size if axis in axes else 1 for axis, size in zip("zyx", volume.raw.shape, strict=True)]
    dark = volume.optics.offset
    factor, more = (1 + light * rng.standard_normal(shape)), offset * rng.standard_normal(shape)
    return sixteen_bits((volume.raw - dark) * factor + dark + more)


def averaged(volume: Phantom) -> NDArray[np.uint16]:
    """Return planes smoothed by the mean of 3 x 3 pixels."""
    return sixteen_bits(ndimage.uniform_filter(volume.raw.astype(np.float32), (1, 3, 3)))


def turned(volume: Phantom, degrees: float) -> NDArray[np.uint16]:
    """Return planes that were turned and turned back, by linear interpolation."""
    image = volume.raw.astype(np.float32)
    for angle in (degrees, -degrees):
        image = ndimage.rotate(image, angle, axes=(1, 2), reshape=False, order=1, mode="reflect")
    return sixteen_bits(image)


def moved(volume: Phantom, by: Sequence[float]) -> NDArray[np.uint16]:
    """Return a stack that was moved along Z, Y and X, in voxels, and moved back, by linear interpolation."""
    image = volume.raw.astype(np.float32)
    for sign in (1, -1):
        image = ndimage.shift(image, [sign * step for step in by], order=1, mode="reflect")
    return sixteen_bits(image)


def sixteen_bits(grey: NDArray[Any]) -> NDArray[np.uint16]:
    return np.asarray(np.clip(np.rint(grey), 0, np.iinfo(np.uint16).max), np.uint16)


ROWS: Mapping[str, Row] = {
    RIGHT: Row(gain=1, offset=0),
    "nothing told": Row(),
    "gain x 2": Row(gain=2),
    "gain / 2": Row(gain=0.5),
    "offset + 20": Row(gain=1, offset=20),
    "offset - 20": Row(gain=1, offset=-20),
    "o' + 20": Row(gain=1, zero=20),
    "o' - 20": Row(gain=1, zero=-20),
    "8 bits": Row(spoil=eight_bits),
    "8 bits clipped": Row(spoil=partial(eight_bits, clip=0.1)),
    "stripes of light": Row(spoil=partial(pattern, axes="zy", light=0.05)),
    "stripes of offset": Row(spoil=partial(pattern, axes="zy", offset=3)),
    "fixed pixels": Row(spoil=partial(pattern, axes="yx", light=0.02, offset=3)),
    "fixed columns": Row(spoil=partial(pattern, axes="x", offset=3)),
    "mean of 3 x 3": Row(spoil=averaged),
    "turned": Row(spoil=partial(turned, degrees=7)),
    "moved half a pixel": Row(spoil=partial(moved, by=(0, 0.5, 0.5))),
    "moved half a plane": Row(spoil=partial(moved, by=(0.5, 0, 0))),
    "JPEG 85": Row(spoil=partial(jpeg, quality=85)),
    "JPEG 60": Row(spoil=partial(jpeg, quality=60)),
}


@dataclass(frozen=True)
class Job:
    """One row on one volume, with settings for all; ``oracle``: by a network that was told the truth of others."""

    row: str
    phantom: str
    seed: int
    light: float
    gain: float
    shape: tuple[int, ...]
    settings: tuple[str, ...]
    oracle: bool = False

    @classmethod
    def decode(cls, table: Mapping[str, Any]) -> Job:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def done(job: Job) -> dict[str, Any]:
    """Run a job and return its scores, and what was found on the way."""
    row = ROWS[job.row]
    volume, settings = prepared(job)
    config = seeded(load_recipe("contrast", settings), job.seed)
    if job.oracle:
        others = [prepared(replace(job, seed=1000 + 10 * job.seed + n))[0] for n in range(OTHERS)]
        mine, *theirs = (subject(job.phantom, one) for one in (volume, *others))
        return {"scores": by_score(oracle(mine, theirs, config, device="cpu", progress=silent), volume)}
    with tempfile.TemporaryDirectory() as folder, zero_at(None if row.zero is None else right_zero(volume) + row.zero):
        found = enhance([subject(job.phantom, volume).stack], config, folder=Path(folder))
        scores = by_score(found.restored[0][0][0].enhanced, volume)
    fit, choice = found.fits[0], found.choices[0]
    return {
        "scores": scores,
        "raw": by_score(volume.raw, volume),
        "k": choice.best.tolist(),
        "camera": described(fit),
    }


def subject(phantom: str, volume: Phantom) -> Subject:
    """Return a phantom as experiments have it, its camera unknown."""
    optics = Optics(voxel_size=volume.optics.voxel_size, surface="first")
    return Subject(phantom, Stack(volume.raw, "ZYX", optics, source=phantom), volume.truth, volume.mask)


def by_score(result: NDArray[Any], volume: Phantom) -> list[list[float]]:
    """Return every score in five depth bins, shallow to deep."""
    parts = scored(result, volume)
    return [[float(part[name] or 0) for part in parts] for name in SCORES]


def prepared(job: Job) -> tuple[Phantom, list[str]]:
    """Return the phantom with its raw spoiled, and the settings that tell the camera."""
    row = ROWS[job.row]
    volume = registry.load("synth", job.phantom)(
        shape=job.shape, seed=job.seed, light=job.light, gain=job.gain, **MORE.get(job.phantom, {})
    )
    told = [] if row.gain is None else [f"task.gain={row.gain * volume.optics.gain}"]
    told += [] if row.offset is None else [f"task.offset={right_zero(volume) + row.offset}"]
    return replace(volume, raw=row.spoil(volume)), [*job.settings, *told]


def right_zero(volume: Phantom) -> float:
    """Return o' of a phantom."""
    optics = volume.optics
    return optics.offset - optics.read_noise**2 / optics.gain


@contextmanager
def zero_at(zero: float | None) -> Iterator[None]:
    """Put o' of noise and background at a grey level, while the context lasts."""
    estimated = TASK.fit

    def fit(*args: Any, **more: Any) -> Any:
        found = estimated(*args, **more)
        top = found.norm.offset + found.norm.scale
        if top <= zero:
            raise InputError(f"o' = {zero:g} is above the image, whose 99th percentile is {top:g}")
        norm = replace(found.norm, offset=zero, scale=top - zero)
        return replace(found, camera=replace(found.camera, intercept=zero), norm=norm)

    with patch.object(TASK, "fit", estimated if zero is None else fit):
        yield


def described(fit: Any) -> dict[str, Any]:
    """Return what was found of the camera."""
    camera = fit.camera
    return {
        "gain": camera.gain,
        "zero": camera.intercept,
        "subtracted": fit.norm.offset,
        "poissonian": camera.poissonian,
        "thin": fit.thin,
        "whiteness": camera.whiteness,
        "pattern": camera.pattern_kind,
        "notes": camera.notes,
    }


def table(runs: Mapping[Job, Mapping[str, Any]]) -> list[str]:
    """Return the means over the volumes of every row as lines."""
    lines = [
        "| row | gain found | o' found | subtracted | photons shared out | k | IoU | change | raw IoU "
        "| SSIM | SSIM fg | corr. | within the limits | change of the oracle |",
        "|" + "---|" * 14,
    ]
    for name in ROWS:
        every = {job: run for job, run in runs.items() if job.row == name and not job.oracle}
        mine = {job: run for job, run in every.items() if "refused" not in run}
        if len(mine) < len(every):
            lines.append(f"| {name}, refused | {len(every) - len(mine)} of {len(every)} |" + " |" * 12)
        if not mine:
            continue
        camera = {key: np.mean([run["camera"][key] for run in mine.values()]) for key in ("gain", "zero", "subtracted")}
        iou, *others = np.mean([run["scores"] for run in mine.values()], axis=(0, 2))
        raw = np.mean([run["raw"][0] for run in mine.values()])
        changes = [change(job, runs) for job in mine]
        known = None not in changes
        cells = [
            name,
            *(f"{value:.4g}" for value in camera.values()),
            share(run["camera"]["thin"] > 0 for run in mine.values()),
            " to ".join(f"{np.mean([end(run['k']) for run in mine.values()]):.1f}" for end in (min, max)),
            f"{iou:.3f}",
            f"{np.mean(changes):+.3f}" if known else "-",
            f"{raw:.3f}",
            *(f"{value:.3f}" for value in others),
            share(within(run, by) for run, by in zip(mine.values(), changes, strict=True)) if known else "-",
            mean_change([replace(job, oracle=True) for job in mine], runs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def change(job: Job, runs: Mapping[Job, Mapping[str, Any]]) -> float | None:
    """Return how much higher the IoU is than with the right values, if that is done."""
    right = runs.get(replace(job, row=RIGHT))
    return None if right is None else float(np.mean(runs[job]["scores"][0]) - np.mean(right["scores"][0]))


def mean_change(jobs: Iterable[Job], runs: Mapping[Job, Mapping[str, Any]]) -> str:
    """Return the mean change of those that are done."""
    changes = [by for job in jobs if job in runs and (by := change(job, runs)) is not None]
    return f"{np.mean(changes):+.3f}" if changes else "-"


def within(run: Mapping[str, Any], by: float) -> bool:
    """Say whether the IoU, so much changed, stays within the limits."""
    return by >= -LOSS and bool(np.mean(run["scores"][0]) > np.mean(run["raw"][0]))


def share(of: Iterable[bool]) -> str:
    """Return of how many volumes something is true."""
    found = list(of)
    return {0: "no", len(found): "yes"}.get(sum(found), f"{sum(found)} of {len(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--phantoms", default="tissue,nuclei,filaments,spots")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--light", type=float, default=25.0, help="photons at the brightest structures")
    parser.add_argument("--gain", type=float, default=2.0, help="grey levels per photon")
    parser.add_argument("--shape", default="60,160,160")
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of: {', '.join(ROWS)}")
    parser.add_argument("--oracle", action="store_true", help="also what a supervised network loses")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    names, phantoms = given.only.split(","), given.phantoms.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"no row {sorted(unknown)}; accepted: {', '.join(ROWS)}")
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "runs.jsonl"
    how = (given.light, given.gain, tuple(map(int, given.shape.split(","))), tuple(given.settings))
    jobs = [
        Job(row, phantom, int(seed), *how) for phantom in phantoms for seed in given.seeds.split(",") for row in names
    ]
    if given.oracle:
        spoiled = [job for job in jobs if job.row == RIGHT or ROWS[job.row].spoil is not as_it_is]
        jobs += [replace(job, oracle=True) for job in spoiled]
    print(f"{len(jobs)} runs", flush=True)
    for job in jobs:
        if job not in finished(file):
            try:
                run = done(job)
            except InputError as error:
                run = {"refused": str(error)}
            with file.open("a") as lines:
                lines.write(json.dumps({"job": asdict(job), **run}) + "\n")
            print(job.phantom, job.seed, job.row, "oracle" if job.oracle else "", flush=True)
    shown = {*jobs, *(replace(job, row=RIGHT) for job in jobs)}
    runs = {job: run for job, run in finished(file).items() if job in shown}
    for phantom in phantoms:
        print(f"\n### {phantom}, seeds {given.seeds}\n")
        print("\n".join(table({job: run for job, run in runs.items() if job.phantom == phantom})))
    if len(phantoms) > 1:
        print(f"\n### Mean of {', '.join(phantoms)}; seeds {given.seeds}\n")
        print("\n".join(table(runs)))


def finished(file: Path) -> dict[Job, dict[str, Any]]:
    """Return the runs that are done."""
    return {Job.decode(run["job"]): run for run in kept(file)}


if __name__ == "__main__":
    main()

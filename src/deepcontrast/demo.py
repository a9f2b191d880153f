"""The main job on a simulated deep stack of known truth, scored beside what a user would do otherwise."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import __version__, registry
from deepcontrast.atomic import write_json
from deepcontrast.comparison.scoring import WRITTEN, own
from deepcontrast.comparison.table import columns, wins
from deepcontrast.comparison.table import lines as table_lines
from deepcontrast.config import Config
from deepcontrast.enhanced import Enhanced
from deepcontrast.enhancing import enhance
from deepcontrast.errors import InputError
from deepcontrast.evaluation import depth_means, truth_rows
from deepcontrast.io import write_stack
from deepcontrast.jobs.hardware import hardware
from deepcontrast.jobs.results import save
from deepcontrast.output_checks import check_out
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.recipe import load_recipe
from deepcontrast.report.before_after import write_before_after
from deepcontrast.report.compare_data import RAW
from deepcontrast.stack import Stack
from deepcontrast.workdir import finish, working

BASELINES = ("clahe_2d", "clahe_3d", "band_pass_2d", "band_pass_3d")
OURS = WRITTEN
SHOWN = tuple(c for c in columns(truth=True, mask=True, labels=False) if c.metric not in ("nrmse", "psnr", "wci"))
SCORES = tuple(column.metric for column in SHOWN)
Volume = NDArray[np.float32]
Table = dict[str, dict[str, NDArray[np.float64]]]


def simulate(
    kind: str,
    out: Path,
    *,
    shape: tuple[int, int, int],
    light: Sequence[float] | None = None,
    undersampling: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Any = print,
) -> None:
    """Write raw.tif, truth.tif, mask.tif and simulate.json; with several light levels, raw_<light>.tif each.

    Phantoms of objects have labels.tif too, and a curved sheet has height.tif: the plane of raw it lies in.

    Raises:
        InputError: an undersampling for a phantom that has none, or what the phantom refuses.
    """
    phantom = registry.load("synth", kind)
    if undersampling is not None and "undersampling" not in _parameters(kind):
        able = ", ".join(name for name in registry.names("synth") if "undersampling" in _parameters(name))
        raise InputError(f"--undersampling {undersampling:g} for {kind}; accepted: only for {able}")
    settings: dict[str, Any] = {} if undersampling is None else {"undersampling": undersampling}
    with working(out, overwrite=overwrite) as work:
        parameters: dict[str, Any] = {}
        for level in light or (None,):
            made = phantom(shape=shape, seed=seed, **settings, **({} if level is None else {"light": level}))
            name = "raw" if light is None or len(light) == 1 else f"raw_{level:g}"
            write_stack(work.result / f"{name}.tif", Stack(made.raw, "ZYX", made.optics))
            parameters[name] = {key: _plain(value) for key, value in made.parameters.items()}
        beside = made.truth_optics or made.optics
        labels = None if made.labels is None else _numbers(made.labels)
        for name, array in (("truth", made.truth), ("mask", made.mask.astype(np.uint8)), ("labels", labels)):
            if array is not None:
                write_stack(work.result / f"{name}.tif", Stack(array, "ZYX", beside))
        if made.height is not None:
            write_stack(work.result / "height.tif", Stack(made.height, "YX", beside))
        write_json(work.result / "simulate.json", {"kind": kind, "seed": seed, "images": parameters})
        finish(work, {"version": __version__, "verb": "simulate", "seed": seed, "hardware": hardware("cpu")})
    say(f"done: {out}")


def demo(
    out: Path,
    seeds: Sequence[int],
    *,
    settings: Sequence[str] = (),
    progress: Progress = silent,
    say: Any = print,
) -> None:
    """Simulate, enhance and score one stack per seed; print the table and where the reports are."""
    configs = [load_recipe("contrast", settings, train__seed=seed) for seed in seeds]
    for seed in seeds:
        check_out(out / f"seed_{seed}" / "enhanced", overwrite=True)
    tables = [_one(out / f"seed_{config.train.seed}", config, progress, say) for config in configs]
    means = {m: {s: np.mean([t[m][s] for t in tables], axis=0) for s in SCORES} for m in tables[0]}
    for line in _lines(means, len(seeds)):
        say(line)
    write_json(
        out / "scores.json",
        {
            "version": __version__,
            "seeds": list(seeds),
            "note": "per depth fifth, shallow to deep, mean over seeds; *_clipped: clipped at the plane's median",
            "scores": {m: {s: v.tolist() for s, v in row.items()} for m, row in means.items()},
            "per_seed": [{m: {s: float(v.mean()) for s, v in row.items()} for m, row in t.items()} for t in tables],
        },
    )
    for seed in seeds:
        say(f"report: {out / f'seed_{seed}' / 'enhanced' / 'report.html'}")


def _one(out: Path, config: Config, progress: Progress, say: Any) -> Table:
    out.mkdir(parents=True, exist_ok=True)
    seed = config.train.seed
    say(f"simulating a deep stack (seed {seed})")
    made = registry.load("synth", "tissue")(seed=seed)
    stack = Stack(made.raw, "ZYX", made.optics, source="simulated tissue")
    for name, array in (("raw", made.raw), ("truth", made.truth), ("mask", made.mask.astype(np.uint8))):
        write_stack(out / f"{name}.tif", Stack(array, "ZYX", made.optics))
    # What the camera and the surface are is for the package to find out.
    stack = stack.with_optics(surface=None, gain=None, offset=None, read_noise=None)
    run = {"version": __version__, "verb": "demo", "seed": seed, "config": config.model_dump()}
    with working(out / "enhanced", overwrite=True) as work:
        result = enhance([stack], config, folder=work.path, progress=progress)
        table = _scores(result, made.truth, made.mask, progress)
        header = ("method", *(name.replace("_", " ") for name in SCORES))
        scores = (header, *((m, *(f"{row[s].mean():.3f}" for s in SCORES)) for m, row in table.items()))
        say(f"the surface is the {result.stacks[0].optics.surface} plane ({result.why_surface[0]})")
        for line in save(result, work.result, [Path("simulated.tif")], scores=scores):
            say(line)
        one = result.restored[0][0][0]
        write_before_after(work.result / "before_after.png", one.passes[0], one.enhanced, made.truth)
        finish(work, {**run, "hardware": hardware("cpu")})
    return table


def _scores(result: Enhanced, truth: NDArray[np.float32], mask: NDArray[np.bool_], progress: Progress) -> Table:
    """Return every method's scores in five bins of depth, from shallow to deep."""
    one = result.restored[0][0][0]
    methods: dict[str, Volume] = {label: np.asarray(volume) for label, _, volume in own(one)}
    methods |= {name: registry.load("baselines", name)(methods[RAW]) for name in BASELINES}
    table = {}
    for done, (name, volume) in enumerate(methods.items(), 1):
        rows = truth_rows(
            volume, truth, mask, method=name, k=None, depth_um=[None] * len(volume), metrics=("ssim", "pearson")
        )
        means = depth_means(rows, len(volume))
        table[name] = {score: means[score] for score in SCORES}
        progress(Event("score", done, len(methods)))
    return table


def _lines(means: Mapping[str, Mapping[str, NDArray[np.float64]]], seeds: int) -> list[str]:
    table = {method: {s: float(v.mean()) for s, v in row.items()} for method, row in means.items()}
    gain = {s: table[OURS][s] - table[RAW][s] for s in ("iou", "ssim")}
    deep = {m: means[m]["iou"][-1] for m in (OURS, "band_pass_2d", "band_pass_3d", RAW)}
    return [
        "",
        f"Scores against truth: mean over 5 depth bins, {seeds} seed{'s' if seeds > 1 else ''}",
        *table_lines(table, SHOWN),
        "clipped: every grey level below the plane's median set to it; fg: mask dilated by 3 px",
        f"{OURS} over raw: IoU {gain['iou']:+.3f}, SSIM {gain['ssim']:+.3f}",
        *wins(table, OURS, ("band_pass_2d", "band_pass_3d"), SHOWN),
        "IoU of the deepest fifth: " + ", ".join(f"{m} {v:.3f}" for m, v in deep.items()),
    ]


def _parameters(kind: str) -> Mapping[str, object]:
    return inspect.signature(registry.load("synth", kind)).parameters


def _numbers(labels: NDArray[np.int32]) -> NDArray[Any]:
    """Return labels as 16 bits where they fit, which more programs open than 32."""
    return labels.astype(np.uint16) if labels.max() <= np.iinfo(np.uint16).max else labels


def _plain(value: object) -> Any:
    return json.loads(json.dumps(value, default=str))

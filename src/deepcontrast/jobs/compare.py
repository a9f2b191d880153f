"""``deepcontrast compare``: one stack in; every method side by side out."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepcontrast import __version__, registry
from deepcontrast.accept import check_stacks, check_unpaired, choose_device, surfaced
from deepcontrast.atomic import write_atomic
from deepcontrast.comparison import Compared, check_methods, compare, leaders, lines, means
from deepcontrast.comparison.other_grids import FOLDERS
from deepcontrast.comparison.table import COST
from deepcontrast.config import Config
from deepcontrast.depth import depth_unit
from deepcontrast.errors import InputError
from deepcontrast.io import container_suffix, fingerprint
from deepcontrast.jobs.compare_grids import compare_image_on_grids
from deepcontrast.jobs.hardware import hardware
from deepcontrast.jobs.images import Reading, write_image
from deepcontrast.jobs.known import known_of, open_known
from deepcontrast.jobs.results import shorten, write_metrics
from deepcontrast.jobs.say import Say, describe_stack, looked_at
from deepcontrast.model import load_model
from deepcontrast.output_checks import check_out, check_space
from deepcontrast.progress import Progress, silent
from deepcontrast.recipe import load_recipe
from deepcontrast.report.compare_data import CompareData, MethodResult
from deepcontrast.report.compare_page import write_compare
from deepcontrast.stack import Stack
from deepcontrast.workdir import finish, working

MASK_NOTE = (
    "A mask that was drawn on the raw, as the paper's was, favours results that look like the raw: "
    "what the raw does not show was not marked."
)


def compare_image(
    path: Path,
    out: Path,
    config: Config,
    *,
    reading: Reading,
    optics: dict[str, Any],
    methods: Sequence[str] | None = None,
    truth: Path | None = None,
    mask: Path | None = None,
    labels: Path | None = None,
    model: Path | None = None,
    budget: float,
    save_images: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Compare every method on one channel of one stack; write compare.html, table.csv, metrics.json, run.json.

    Args:
        path: of the image.
        out: folder for what is written.
        config: settings of our own run.
        reading: how the image is to be understood.
        optics: fields of :class:`Optics` that win over what the file says.
        methods: names of baselines; all where ``None``.
        truth, mask, labels: images of the same shape.
        model: a trained model, which skips training; one whose result lies on another grid is compared by
            :func:`deepcontrast.jobs.compare_grids.compare_image_on_grids`.
        budget: seconds that one method may take before it is cut to a crop.
        save_images: also write every method's volume, as float32.
        device, overwrite, progress, say: as for every job.

    Raises:
        InputError: wrong input; nothing is written.
    """
    started = time.monotonic()
    paths = {"truth": truth, "mask": mask, "labels": labels}
    given = {"image": path, **{name: p for name, p in {**paths, "model": model}.items() if p is not None}}
    loaded = load_model(model) if model else None
    if loaded is not None and loaded.task in FOLDERS:
        compare_image_on_grids(
            path, out, loaded, reading=reading, optics=optics, methods=methods, truth=truth, mask=mask, labels=labels,
            inputs=given, retuned=config.predict != load_recipe(config.recipe).predict, budget=budget,
            save_images=save_images, device=device, overwrite=overwrite, progress=progress, say=say,
        )  # fmt: skip
        return
    if loaded is not None and not registry.load("tasks", loaded.task).DEEP:
        raise InputError(
            f"'{model}' is a model of the task {loaded.task}; accepted: models of contrast, {', '.join(FOLDERS)}"
        )
    check_unpaired(config)
    check_out(out, overwrite=overwrite, inputs=list(given.values()))
    names = check_methods(methods)
    stack = reading.open(path)
    describe_stack(stack, say)
    check_stacks([stack])
    stack = stack.with_optics(**optics)
    known = known_of(open_known(paths, stack))
    if loaded:
        config = loaded.config.model_copy(update={"predict": config.predict})
    # The passes and our result, and every baseline up to twice (a trained one, each of its iterations).
    volumes = config.predict.iterations + 3 + 2 * len(names) + 3
    check_space(out, int(np.prod(stack.shape)) * 4 * volumes + 50_000_000)
    where = choose_device(device)
    placed, why = surfaced(stack, reading.surface)
    run: dict[str, Any] = {
        "version": __version__,
        "verb": "compare",
        "config": config.model_dump(),
        "input": {name: fingerprint(p) for name, p in given.items()},
        "options": {**asdict(reading), **optics, "methods": list(names), "budget": budget},
        "seed": config.train.seed,
    }
    with working(out, overwrite=overwrite, inputs=list(given.values())) as work:
        for line in looked_at(path.name, placed, why):
            say(line)
        compared = compare(
            placed, config, methods=names, known=known, model=loaded, surface=reading.surface, device=where,
            budget=budget, folder=work.path, progress=progress,
        )  # fmt: skip
        said = lines(compared)
        for line in said:
            say(line)
        chosen = compared.enhanced.choices[0]
        write_metrics(work.result, compared.rows, shorten(compared.one.chosen), chosen.why)
        write_atomic(work.result / "table.csv", _csv(compared).encode("utf-8"))
        write_compare(work.result / "compare.html", _data(compared, path.name, why, run), progress=progress)
        if save_images:
            folder = work.result / "images"
            folder.mkdir()
            for result in compared.methods:
                _write(folder, path, placed, result)
        methods_run = [_record(result) for result in compared.methods]
        skipped = list(compared.skipped)
        # Some file systems do not let go of a folder while its files are mapped.
        del compared
        seconds = round(time.monotonic() - started, 1)
        record = {"hardware": hardware(where), "seconds": seconds, "methods": methods_run, "skipped": skipped}
        finish(work, {**run, **record, "said": said})
    say(f"done: open {out / 'compare.html'} in a browser")


def _record(result: MethodResult) -> dict[str, Any]:
    """Return what run.json says of a method."""
    return {
        "method": result.name,
        "label": result.label,
        "k": result.k,
        "tuned": result.tuned,
        "parameters": result.parameters,
        "region": [[part.start, part.stop] for part in result.region],
        "seconds": result.seconds,
        "voxels_per_second": result.voxels_per_second,
        "peak_mb": result.peak_mb,
    }


def _csv(compared: Compared) -> str:
    """Return the table, a line per method; empty where a score is not defined."""
    rows = [means(result) for result in compared.methods]
    scores = list(dict.fromkeys(name for row in rows for name in row))
    # What the printed table shows comes first.
    shown = [column.metric for column in (*compared.columns, *COST)]
    scores.sort(key=lambda name: shown.index(name) if name in shown else len(shown))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "method", "k", "tuned", "parameters", *scores])
    for result, row in zip(compared.methods, rows, strict=True):
        values = [row.get(name, float("nan")) for name in scores]
        k = "" if result.k is None else f"{result.k:g}"
        cells = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
        writer.writerow([result.label, result.name, k, result.tuned, result.parameters, *cells])
    return text.getvalue()


def _data(compared: Compared, title: str, why: str, run: dict[str, Any]) -> CompareData:
    """Return what the page shows."""
    stack, known, scene = compared.enhanced.stacks[0], compared.known, compared.scene
    depth, unit = compared.one.source.depth, depth_unit(stack)
    return CompareData(
        title=title,
        summary=(leaders(compared), f"k: {compared.enhanced.choices[0].why}"),
        facts=(
            ("Image", replace(stack, source=Path(stack.source).name).describe()),
            ("Surface", f"the {stack.optics.surface} plane ({why})"),
            ("Depth", f"{depth.min():.4g} to {depth.max():.4g} {unit}"),
            ("Camera", f"{scene.gain:.4g} grey levels per photon, none at {scene.background:.4g}"),
            ("Structures", f"radius {scene.radius:.1f} px; noise {scene.noise:.4g} grey levels at the median"),
        ),
        depth_um=depth,
        depth_unit=unit,
        voxel_size=stack.optics.voxel_size,
        methods=compared.methods,
        truth=known.truth,
        mask=known.mask,
        iou_tiles=compared.iou_tiles,
        skipped=compared.skipped,
        provenance=(
            ("Version", __version__),
            ("Seed", str(run["seed"])),
            ("Input", ", ".join(f"{name} {value}" for name, value in run["input"].items())),
            ("Settings", compared.enhanced.model.config.json()),
        ),
        mask_note="" if known.mask is None else MASK_NOTE,
    )


def _write(folder: Path, path: Path, stack: Stack, result: MethodResult) -> None:
    suffix = container_suffix(path)
    name = "".join(letter if letter.isalnum() else "_" for letter in result.label).strip("_")
    array = np.asarray(result.volume)
    axes = "ZYX"
    write_image(folder / f"{name}{suffix}", replace(stack, array=array, axes=axes), np.dtype(np.float32))

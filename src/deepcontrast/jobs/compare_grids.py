"""``deepcontrast compare`` with a model whose result lies on another grid: closer planes, or one plane."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepcontrast import __version__, registry
from deepcontrast.accept import check_stacks, choose_device
from deepcontrast.comparison.cost import measured
from deepcontrast.comparison.other_grids import (
    GridsCompared,
    Ours,
    check_grid_methods,
    compare_grids,
    grid_lines,
    grid_summary,
)
from deepcontrast.comparison.side_by_side import check_single
from deepcontrast.errors import InputError
from deepcontrast.io import container_suffix, fingerprint
from deepcontrast.jobs.hardware import hardware
from deepcontrast.jobs.images import Reading, write_image
from deepcontrast.jobs.known import known_of, open_known
from deepcontrast.jobs.predict_in_memory import predict_maps
from deepcontrast.jobs.results import write_metrics
from deepcontrast.jobs.say import Say, describe_stack
from deepcontrast.model import Model
from deepcontrast.output_checks import check_out, check_space
from deepcontrast.progress import Progress, silent
from deepcontrast.report.grids_data import TRUTH, GridMethod, GridsData
from deepcontrast.report.grids_page import write_grids
from deepcontrast.scale.members import check_models, grid_of
from deepcontrast.stack import Stack
from deepcontrast.workdir import finish, working


def compare_image_on_grids(
    path: Path,
    out: Path,
    model: Model,
    *,
    reading: Reading,
    optics: Mapping[str, Any],
    methods: Sequence[str] | None = None,
    truth: Path | None = None,
    mask: Path | None = None,
    labels: Path | None = None,
    inputs: Mapping[str, Path],
    retuned: bool = False,
    budget: float,
    save_images: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Compare a model's result with what a user would do; write report.html, metrics.json, run.json.

    Args:
        path: of the image: one channel, one time point.
        out: folder for what is written.
        model: of the task ``isotropic`` or ``project``.
        reading: how the image is to be understood.
        optics: fields of :class:`Optics` that win over what the file says.
        methods: names of upsamplers or projections; all where ``None``.
        truth, labels: images of the shape of the result.
        mask: refused.
        inputs: every file that is read, by what it is.
        retuned: settings of ``predict`` were given, which are refused: the model brings its own.
        budget: seconds that the trials of one method, tuned on the truth, may take together.
        save_images: also write every result, as float32.
        device, overwrite, progress, say: as for every job.

    Raises:
        InputError: wrong input, or an option that has no meaning here; nothing is written.
    """
    started = time.monotonic()
    task = model.task
    _refuse(task, mask, reading, optics, retuned)
    check_out(out, overwrite=overwrite, inputs=list(inputs.values()))
    names = check_grid_methods(task, methods)
    stack = reading.open(path)
    describe_stack(stack, say)
    check_single(stack)
    model = _of_channel(model, reading.channel)
    check_models([model], stack)
    check_stacks([stack])
    stack = stack.with_optics(**optics)
    beside = replace(grid_of([model])(stack), source=f"the result of {path.name}")
    known = known_of(open_known({"truth": truth, "labels": labels}, beside))
    check_space(out, int(np.prod(beside.shape)) * 4 * (4 * len(names) + 2) + 50_000_000)
    where = choose_device(device)
    run: dict[str, Any] = {
        "version": __version__,
        "verb": "compare",
        "config": model.config.model_dump(),
        "input": {name: fingerprint(p) for name, p in inputs.items()},
        "options": {**asdict(reading), **optics, "methods": list(names), "budget": budget},
        "seed": model.config.train.seed,
    }
    with working(out, overwrite=overwrite, inputs=list(inputs.values())) as work:
        maps, cost = measured(lambda: predict_maps([model], stack, device=where, progress=progress))
        surface = [maps[name].volume()[0] if name in maps else None for name in ("height", "height_spread")]
        ours = Ours(maps["mean"].volume(), surface[0], surface[1], *cost)
        compared = compare_grids(
            stack, model, ours,
            methods=names, known=known, budget=budget, device=where, folder=work.path, progress=progress,
        )  # fmt: skip
        said = grid_lines(compared)
        for line in said:
            say(line)
        write_metrics(work.result, compared.rows)
        data = _data(compared, stack, model, path.name, run)
        write_grids(work.result / "report.html", data, progress=progress)
        if save_images:
            folder = work.result / "images"
            folder.mkdir()
            for one in compared.methods:
                if one.name != TRUTH:
                    _write(folder, path, maps["mean"], one)
        methods_run = [_record(one) for one in compared.methods if one.name != TRUTH]
        skipped = list(compared.skipped)
        # Some file systems do not let go of a folder while its files are mapped.
        del compared, data
        seconds = round(time.monotonic() - started, 1)
        record = {"hardware": hardware(where), "seconds": seconds, "methods": methods_run, "skipped": skipped}
        finish(work, {**run, **record, "said": said})
    say(f"done: open {out / 'report.html'} in a browser")


def _refuse(task: str, mask: Path | None, reading: Reading, optics: Mapping[str, Any], retuned: bool) -> None:
    """Refuse options that have no meaning for a task.

    Raises:
        InputError: names the option.
    """
    for option, given in (
        ("--mask", mask is not None),
        (f"--surface {reading.surface}", reading.surface != "auto"),
        ("--set predict", retuned),
        ("--index", "refractive_index" in optics),
        ("--na or --wavelength", bool(optics) and task != "isotropic"),
    ):
        if given:
            raise InputError(f"{option} has no effect with a model of the task {task}; leave it out")


def _of_channel(model: Model, channel: str | None) -> Model:
    """Return the model of one channel, by its name or number, of a model of several.

    Raises:
        InputError: its channels are restored together.
    """
    if channel is None or len(model.channels) == 1:
        return model
    if model.config.task.get("joint"):
        raise InputError("the model restores channels together, compare takes one; accepted: a model of one channel")
    names = [one.name for one in model.channels]
    if channel not in names and not (channel.isdigit() and int(channel) < len(names)):
        raise InputError(f"no channel '{channel}' in the model; accepted: {', '.join(names)}, or a number from 0")
    return replace(model, channels=(model.channels[names.index(channel) if channel in names else int(channel)],))


def _record(one: GridMethod) -> dict[str, Any]:
    """Return what run.json says of a method."""
    return {
        "method": one.name,
        "label": one.label,
        "tuned": one.tuned,
        "parameters": one.parameters,
        "seconds": one.seconds,
        "peak_mb": one.peak_mb,
    }


def _data(compared: GridsCompared, stack: Stack, model: Model, title: str, run: dict[str, Any]) -> GridsData:
    """Return what the page shows."""
    z, _, x = stack.optics.voxel_size
    factor = z / x if z and x else 1.0
    cutoff, blur_words, blur = compared.cutoff, "", {}
    facts = [("Image", replace(stack, source=Path(stack.source).name).describe())]
    if cutoff is not None:
        fit: Any = registry.load("tasks", model.task).Fit.decode(model.channels[0].fit, model.channels[0].arrays)
        factor = float(fit.factor)
        blur_words = fit.axial.how
        if fit.axial.spectra is not None:
            names = ("frequency", "lateral", "axial", "modelled")
            blur = {name: np.asarray(getattr(fit.axial.spectra, name)) for name in names}
        facts += [
            ("Planes", f"{fit.factor:.4g} pixels apart"),
            ("Cut-off", f"{cutoff.frequency:.3g} cycles per pixel: {cutoff.how}"),
            ("Told to the methods", compared.settings),
        ]
    return GridsData(
        title=title,
        task=model.task,
        summary=grid_summary(compared),
        facts=tuple(facts),
        stack=np.asarray(stack.volume(), np.float32),
        factor=factor,
        pixel_um=x,
        methods=compared.methods,
        band=None if cutoff is None else cutoff.band,
        blur_words=blur_words,
        blur=blur,
        skipped=compared.skipped,
        provenance=(
            ("Version", __version__),
            ("Seed", str(run["seed"])),
            ("Input", ", ".join(f"{name} {value}" for name, value in run["input"].items())),
            ("Settings", model.config.json()),
        ),
    )


def _write(folder: Path, path: Path, result: Stack, one: GridMethod) -> None:
    suffix = container_suffix(path)
    name = "".join(letter if letter.isalnum() else "_" for letter in one.label).strip("_")
    volume = np.asarray(one.volume)
    image = replace(
        result, array=volume if "Z" in result.axes else volume[0], axes="ZYX" if "Z" in result.axes else "YX"
    )
    write_image(folder / f"{name}{suffix}", image, np.dtype(np.float32))

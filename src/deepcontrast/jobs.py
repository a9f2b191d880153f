"""The verbs of the command line as functions: paths in, files out, one dictionary of what there is to say."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import __version__, registry
from deepcontrast.config import Config
from deepcontrast.depth import depth_unit, depths
from deepcontrast.enhancing import (
    Enhanced,
    check_stacks,
    check_volume,
    choose_device,
    enhance,
    learn,
    surfaced,
)
from deepcontrast.errors import DeepContrastError, InputError, OutputExistsError
from deepcontrast.evaluation import Row, contrast_rows, depth_means, truth_rows
from deepcontrast.io import container_suffix, find_images, fingerprint, open_stack, stem, write_stack
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.outputs import to_dtype
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report.page import write_report
from deepcontrast.stack import Stack
from deepcontrast.story import report_data
from deepcontrast.task import Source
from deepcontrast.valid import find_invalid
from deepcontrast.workdir import (
    check_out,
    check_same_job,
    check_space,
    finish,
    is_complete,
    working,
    write_json,
)

Say = Callable[[str], None]
METRICS_VERSION = 1


def open_images(
    paths: Sequence[Path],
    *,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
) -> list[tuple[Path, Stack]]:
    """Open files and folders of images.

    Raises:
        InputError: two images have the same stem, or a channel is not there.
    """
    files = [file for path in paths for file in find_images(path)]
    stems: dict[str, Path] = {}
    for file in files:
        if stem(file) in stems:
            raise InputError(f"'{stems[stem(file)]}' and '{file}' would both be written as '{stem(file)}'")
        stems[stem(file)] = file
    opened = [(file, open_stack(file, axes=axes, voxel_size=voxel_size)) for file in files]
    return [(file, s if channel is None else _channel(s, channel)) for file, s in opened]


def enhance_images(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    model: Path | None = None,
    iterations: int | None = None,
    mask: Path | None = None,
    members: int = 1,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
    surface: str = "auto",
    dtype: str | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Enhance images and write results, model, report, metrics.json and run.json into a folder."""
    started = time.monotonic()
    check_out(out, resume=resume, overwrite=overwrite)
    images = open_images(paths, axes=axes, voxel_size=voxel_size, channel=channel)
    for _, stack in images:
        say(stack.describe())
        for note in stack.notes:
            say(f"  {note}")
    prints = [fingerprint(file) for file, _ in images]
    given = load_model(model) if model else None
    job: dict[str, Any] = {
        "version": __version__,
        "verb": "enhance",
        "config": config.model_dump(),
        "input": {file.name: found for (file, _), found in zip(images, prints, strict=True)},
        "model": fingerprint(model) if model else None,
        "mask": fingerprint(mask) if mask else None,
        "options": {
            "iterations": iterations,
            "members": members,
            "axes": axes,
            "voxel_size": voxel_size,
            "channel": channel,
            "surface": surface,
            "dtype": dtype,
        },
    }
    if resume and is_complete(out):
        check_same_job(out, job)
        say(f"'{out}' is complete already; nothing to do")
        return
    stacks = [stack for _, stack in images]
    check_stacks(stacks)
    marked = None if mask is None else open_stack(mask).volume() > 0
    voxels = sum(int(np.prod(stack.shape)) for stack in stacks)
    passes = iterations or config.predict.iterations
    check_space(out, voxels * 4 * (passes + 2) + 200_000_000)
    where = choose_device(device)
    with working(out, job, resume=resume, overwrite=overwrite) as work:
        result = enhance(
            stacks,
            config,
            model=given,
            iterations=iterations,
            mask=marked,
            surface=surface,
            members=members,
            device=where,
            folder=work.path,
            fingerprints=prints,
            progress=progress,
        )
        seconds = time.monotonic() - started
        said = save(result, work.result, [file for file, _ in images], dtype=dtype, progress=progress)
        for line in said:
            say(line)
        finish(
            work,
            {
                **job,
                "seed": config.train.seed,
                "hardware": hardware(where),
                "seconds": round(time.monotonic() - started, 1),
                "seconds_before_writing": round(seconds, 1),
                "said": said,
            },
        )
    shown = [out / "report.html"] if len(images) == 1 else [out / stem(file) / "report.html" for file, _ in images]
    say("done: open " + ", ".join(str(page) for page in shown) + " in a browser")


def save(
    result: Enhanced,
    out: Path,
    files: Sequence[Path],
    *,
    dtype: str | None = None,
    scores: tuple[tuple[str, ...], ...] | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Write an enhanced experiment into an existing folder; return what there is to say about it.

    One image is written into the folder itself, several each into a folder named like the image.
    """
    said = _found(result, files)
    save_model(out / "model.safetensors", result.model)
    for i, file in enumerate(files):
        folder = out if len(files) == 1 else out / stem(file)
        folder.mkdir(exist_ok=True)
        image = result.image(i)
        kind = np.dtype(dtype) if dtype else result.stacks[i].dtype
        written = to_dtype(image.array, kind)
        name = "enhanced" + container_suffix(file)
        write_stack(folder / name, replace(image, array=written.array), attributes=written.attributes or None)
        said.append(f"{file.name}: {written.note}")
        rows = [asdict(row) for channels in result.restored[i] for one in channels for row in one.rows]
        chosen = [_shorten(channels[0].chosen) for channels in result.restored[i]]
        write_json(
            folder / "metrics.json",
            {
                "format_version": METRICS_VERSION,
                "rows": rows,
                "chosen_iterations": chosen[0] if len(chosen) == 1 else chosen,
                "why": "; ".join(dict.fromkeys(choice.why for choice in result.choices)),
            },
        )
        for c in range(len(result.fits)):
            data = report_data(result, i, c, title=file.name, note=written.note, scores=scores)
            name = "report.html" if c == 0 else f"report_channel_{result.model.channels[c].name}.html"
            write_report(folder / name, data)
            said += [f"{file.name}: {sentence}" for sentence in data.summary]
        progress(Event("write", i + 1, len(files)))
    return said


def predict_images(
    models: Sequence[Path],
    paths: Sequence[Path],
    out: Path,
    *,
    iterations: int = 1,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
    tile_voxels: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Apply trained models, several forming one ensemble, ``iterations`` times to images.

    Raises:
        InputError: some images failed; the others are written, and the message lists the failures.
    """
    loaded = [load_model(path) for path in models]
    files = [file for path in paths for file in find_images(path)]
    single = is_image_name(out)
    if single and len(files) > 1:
        raise InputError(f"{len(files)} images need a folder as --out, not the file '{out}'")
    where, failures = choose_device(device), []
    targets = [out if single else out / f"{stem(file)}{container_suffix(file)}" for file in files]
    for target in targets:
        if target.exists() and not overwrite:
            raise OutputExistsError(f"output '{target}' exists; choose another --out, or --overwrite it")
    for file, target in zip(files, targets, strict=True):
        try:
            [(_, stack)] = open_images([file], axes=axes, voxel_size=voxel_size, channel=channel)
            say(stack.describe())
            result = predict(
                loaded, stack, iterations=iterations, device=where, tile_voxels=tile_voxels, progress=progress
            )
            written = to_dtype(result.array, np.dtype(dtype) if dtype else stack.dtype)
            target.parent.mkdir(parents=True, exist_ok=True)
            attributes = written.attributes or None
            write_stack(target, replace(result, array=written.array), attributes=attributes)
            say(f"{target}: {written.note}")
        except DeepContrastError as error:
            if len(files) == 1:
                raise
            failures.append(f"{file.name}: {error}")
    if failures:
        raise InputError(f"{len(failures)} of {len(files)} images failed: " + "; ".join(failures))


def predict(
    models: Sequence[Model],
    stack: Stack,
    *,
    iterations: int = 1,
    device: str = "cpu",
    tile_voxels: int | None = None,
    progress: Progress = silent,
) -> Stack:
    """Return a stack, or a single plane, to which models were applied ``iterations`` times, in float32.

    Several models form one ensemble; their mean is returned.

    Raises:
        InputError: the models restore different things, or other channels than the stack has.
    """
    if len({(m.task, len(m.channels)) for m in models}) > 1:
        raise InputError("the models are of different tasks or channels; they cannot form one ensemble")
    if len(models[0].channels) != stack.size("C"):
        raise InputError(
            f"the model has {len(models[0].channels)} channels, the image has {stack.size('C')}; --channel selects one"
        )
    task = registry.load("tasks", models[0].task)
    config = models[0].config
    if tile_voxels:
        changed = config.predict.model_copy(update={"tile_voxels": tile_voxels})
        config = config.model_copy(update={"predict": changed})
    out = np.empty(stack.shape, np.float32)
    for c in range(stack.size("C")):
        channels = [model.channels[c] for model in models]
        fit = task.Fit.decode(channels[0].fit, channels[0].arrays)
        members = [weights for channel in channels for weights in channel.members]
        nets = load_nets(task, members, fit, config, device)
        for t in range(stack.size("T")):
            volume = stack.volume(t, c)
            check_volume(volume, stack.source)
            current = task.clean(volume, fit)
            for k in range(1, iterations + 1):
                restored = np.empty_like(current)
                predict_pass(
                    task, nets, current, fit, config, out=restored, device=device,
                    progress=progress, stage=f"predict {k}/{iterations}",
                )  # fmt: skip
                current = restored
            valid = find_invalid(volume).valid
            if valid is not None:
                current[~valid] = volume[~valid]
            place = {"T": t, "C": c}
            index = tuple(place.get(axis, slice(None)) for axis in stack.axes)
            out[index] = current if "Z" in stack.axes else current[0]
    return replace(stack, array=out)


def is_image_name(path: Path) -> bool:
    """Return whether a path ends in the suffix of a container that can be written."""
    return path.name.lower().endswith((".tif", ".tiff", ".zarr", ".npy"))


def degrade_image(
    path: Path,
    out: Path,
    config: Config,
    *,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
    surface: str = "auto",
    overwrite: bool = False,
    say: Say = print,
) -> None:
    """Write ``d(x)`` of a stack: what training would show the network."""
    if out.exists() and not overwrite:
        raise OutputExistsError(f"output '{out}' exists; choose another --out, or --overwrite it")
    [(_, stack)] = open_images([path], axes=axes, voxel_size=voxel_size, channel=channel)
    stack, why = surfaced(stack, surface)
    check_stacks([stack])
    say(stack.describe())
    say(f"surface: the {stack.optics.surface} plane ({why})")
    task = registry.load("tasks", config.task_name)
    generator = torch.Generator().manual_seed(config.train.seed)
    result = np.empty(stack.shape, np.float32)
    for c in range(stack.size("C")):
        sources = [Source(stack, t, c, depths(stack)) for t in range(stack.size("T"))]
        fit = task.fit(sources, config)
        say(f"blur {fit.sigma_why}; gain {fit.camera.gain:.4g} grey levels per photon")
        for source in sources:
            place = {"T": source.t, "C": c}
            index = tuple(place.get(axis, slice(None)) for axis in stack.axes)
            result[index] = task.degrade(source, fit, config, generator)
    written = to_dtype(result, stack.dtype)
    write_stack(out, replace(stack, array=written.array), attributes=written.attributes or None)
    say(f"{out}: {written.note}")


def train_images(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    members: int = 1,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
    surface: str = "auto",
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Train a model on images and write its file."""
    if out.exists() and not overwrite:
        raise OutputExistsError(f"output '{out}' exists; choose another --out, or --overwrite it")
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
    images = open_images(paths, axes=axes, voxel_size=voxel_size, channel=channel)
    stacks = [surfaced(stack, surface)[0] for _, stack in images]
    for stack in stacks:
        say(stack.describe())
    check_stacks(stacks)
    prints = [fingerprint(file) for file, _ in images]
    job = {"version": __version__, "verb": "train", "config": config.model_dump(), "input": prints}
    with working(out.with_suffix(""), job, resume=resume, overwrite=overwrite) as work:
        model, _ = learn(
            stacks, config, members=members, device=choose_device(device), folder=work.path,
            fingerprints=prints, progress=progress,
        )  # fmt: skip
        save_model(out, model)
    say(f"done: {out}")


def evaluate_image(
    result: Path,
    out: Path,
    *,
    truth: Path | None = None,
    raw: Path | None = None,
    mask: Path | None = None,
    say: Say = print,
    overwrite: bool = False,
) -> None:
    """Score a result against truth and mask, with the raw beside it, and write metrics.json."""
    check_out(out, resume=False, overwrite=overwrite)
    images = {"result": open_stack(result)} | ({"raw": open_stack(raw)} if raw else {})
    true = None if truth is None else open_stack(truth).volume().astype(np.float32)
    marked = None if mask is None else open_stack(mask).volume() > 0
    shape = images["result"].volume().shape
    others = {"truth": true, "mask": marked} | {name: s.volume() for name, s in images.items()}
    for name, other in others.items():
        if other is not None and other.shape != shape:
            raise InputError(f"the {name} has shape {other.shape}, the result has {shape}")
    if marked is not None and (not marked.any() or marked.all()):
        raise InputError(f"the mask '{mask}' marks no voxel, or all of them")
    rows: list[Row] = []
    for name, stack in images.items():
        volume = stack.volume().astype(np.float32)
        check_volume(volume, stack.source)
        unit = depth_unit(stack)
        depth_um = [float(d) if unit == "um" else None for d in depths(stack)]
        rows += contrast_rows(volume, method=name, k=None, t=0, c=0, depth_um=depth_um)
        rows += truth_rows(volume, true, marked, method=name, k=None, depth_um=depth_um)
        means = depth_means([row for row in rows if row.method == name], len(volume))
        say(f"{name}: " + ", ".join(f"{m} {np.nanmean(v):.3f}" for m, v in means.items() if "level" not in m))
    job = {"version": __version__, "verb": "evaluate", "result": fingerprint(result)}
    with working(out, job, overwrite=overwrite) as work:
        table = {"format_version": METRICS_VERSION, "rows": [asdict(row) for row in rows]}
        write_json(work.result / "metrics.json", {**table, "chosen_iterations": None, "why": ""})
        finish(work, job)


def describe(path: Path) -> list[str]:
    """Return what an image or a model file is, in lines."""
    if path.suffix == ".safetensors":
        model = load_model(path)
        lines = [f"{path}: model of task {model.task}, recipe {model.config.recipe}"]
        for channel in model.channels:
            count = sum(t.numel() for t in channel.members[0].values())
            lines.append(f"  channel {channel.name}: {len(channel.members)} networks of {count} weights")
        return lines + [f"  {key}: {value}" for key, value in sorted(model.provenance.items())]
    lines = []
    for file in find_images(path):
        stack = open_stack(file)
        lines += [stack.describe(), *(f"  {note}" for note in stack.notes)]
    return lines


def hardware(device: str) -> dict[str, Any]:
    """Return what the run ran on."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return {
        "device": device,
        "name": name,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _channel(stack: Stack, wanted: str) -> Stack:
    """Return the stack of one channel, named or numbered from 0, without the axis C."""
    names = stack.channels or tuple(str(c) for c in range(stack.size("C")))
    if wanted in names:
        index = names.index(wanted)
    elif wanted.isdigit() and int(wanted) < stack.size("C"):
        index = int(wanted)
    else:
        raise InputError(f"no channel '{wanted}'; accepted: {', '.join(names)}, or a number from 0")
    if "C" not in stack.axes:
        return stack
    array = np.stack([stack.volume(t, index) for t in range(stack.size("T"))])
    if "Z" not in stack.axes:
        array = array[:, 0]
    axes = stack.axes.replace("C", "")
    kept = (stack.channels[index],) if stack.channels else ()
    return replace(stack, array=array if "T" in axes else array[0], axes=axes, channels=kept)


def _found(result: Enhanced, files: Sequence[Path]) -> list[str]:
    """Return what was found of surface, camera and blur, and how k was chosen."""
    said = [
        f"{file.name}: the surface is the {stack.optics.surface} plane ({why})"
        for file, stack, why in zip(files, result.stacks, result.why_surface, strict=True)
    ]
    for channel, fit, choice in zip(result.model.channels, result.fits, result.choices, strict=True):
        name = f"channel {channel.name}: " if len(result.fits) > 1 else ""
        camera = fit.camera
        said.append(f"{name}camera: {camera.gain:.4g} grey levels per photon, none at {camera.intercept:.4g}")
        said += [f"{name}  {note}" for note in camera.notes]
        said.append(f"{name}blur: {fit.sigma_why}")
        said.append(f"{name}iterations: {choice.why}")
    return said


def _shorten(chosen: NDArray[np.float64]) -> float | list[float]:
    """Return one number where every plane has the same k, else one per plane."""
    values = [round(float(k), 4) for k in chosen]
    return values[0] if len(set(values)) == 1 else values

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
from deepcontrast.errors import Cancelled, DeepContrastError, InputError, OutputExistsError
from deepcontrast.evaluation import Row, contrast_rows, depth_means, truth_rows
from deepcontrast.io import (
    container_suffix,
    find_images,
    fingerprint,
    open_stack,
    read_attributes,
    stem,
    write_stack,
)
from deepcontrast.io.names import is_zarr
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.outputs import Written, to_dtype
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report.page import write_report
from deepcontrast.stack import Stack
from deepcontrast.story import report_data
from deepcontrast.task import Source
from deepcontrast.training import threads
from deepcontrast.valid import find_invalid
from deepcontrast.workdir import (
    check_inputs_stay,
    check_out,
    check_space,
    check_writable,
    finish,
    finish_file,
    is_done,
    working,
    write_json,
)

Say = Callable[[str], None]
METRICS_VERSION = 1


def open_image(
    path: Path,
    *,
    axes: str | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    channel: str | None = None,
) -> Stack:
    """Open one image in grey levels: one of our own shifted results is shifted back, in float32.

    Raises:
        InputError: not an image, or the channel is not there.
    """
    stack = open_stack(path, axes=axes, voxel_size=voxel_size)
    kept = read_attributes(path)
    offset, scale = float(kept.get("intensity_offset", 0.0)), float(kept.get("intensity_scale", 1.0))
    if (offset, scale) != (0.0, 1.0):
        grey = np.asarray(stack.array[...]).astype(np.float32) * np.float32(scale) + np.float32(offset)
        note = f"grey levels are value * {scale:.6g} + {offset:g}, as the file says"
        stack = replace(stack, array=grey, notes=(*stack.notes, note))
    return stack if channel is None else _channel(stack, channel)


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Return the images that files and folders stand for.

    Raises:
        InputError: two of them have the same stem.
    """
    files = [file for path in paths for file in find_images(path)]
    stems: dict[str, Path] = {}
    for file in files:
        if stem(file) in stems:
            raise InputError(f"'{stems[stem(file)]}' and '{file}' would both be written as '{stem(file)}'")
        stems[stem(file)] = file
    return files


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
    """Enhance images and write results, model, report, metrics.json and run.json into a folder.

    Raises:
        InputError: wrong input; or some of several images failed, and the others are written.
    """
    started = time.monotonic()
    if mask and iterations:
        raise InputError("--mask chooses the iterations, --iterations fixes them; give one of them")
    inputs = [*paths, *([model] if model else []), *([mask] if mask else [])]
    check_out(out, resume=resume, overwrite=overwrite, inputs=inputs)
    listed = list_images(paths)
    stacks, failures = _open_usable(listed, axes, voxel_size, channel, say)
    if failures and mask and listed[0] not in stacks:
        raise InputError(f"the mask is of the first image, which failed: {failures[0]}")
    files = list(stacks)
    check_stacks(list(stacks.values()))
    prints = [fingerprint(file) for file in files]
    given = load_model(model) if model else None
    if given:
        config = given.config.model_copy(update={"predict": config.predict})
    options = {
        "iterations": iterations,
        "members": members,
        "axes": axes,
        "voxel_size": voxel_size,
        "channel": channel,
        "surface": surface,
        "dtype": dtype,
    }
    job: dict[str, Any] = {
        "version": __version__,
        "verb": "enhance",
        "config": config.model_dump(),
        "input": {file.name: found for file, found in zip(files, prints, strict=True)},
        "model": fingerprint(model) if model else None,
        "mask": fingerprint(mask) if mask else None,
        "options": options,
    }
    if resume and is_done(out, job):
        say(f"'{out}' is complete already; nothing to do")
        _raise_failures(failures, len(listed))
        return
    marked = None if mask is None else open_stack(mask).volume() > 0
    voxels = sum(int(np.prod(stack.shape)) for stack in stacks.values())
    passes = iterations or config.predict.iterations
    check_space(out, voxels * 4 * (passes + 2) + 200_000_000)
    where = choose_device(device)
    with (
        working(out, job, resume=resume, overwrite=overwrite, inputs=inputs, machine=_machine(where)) as work,
        threads(work.machine["threads"]),
    ):
        placed = [surfaced(stack, surface) for stack in stacks.values()]
        before = [
            line for file, (stack, why) in zip(files, placed, strict=True) for line in _looked_at(file.name, stack, why)
        ]
        for line in before:
            say(line)
        result = enhance(
            [stack for stack, _ in placed],
            config,
            model=given,
            iterations=iterations,
            mask=marked,
            members=members,
            device=where,
            folder=work.path,
            fingerprints=prints,
            progress=progress,
        )
        # The surface was found above; to enhance() it is known.
        result = replace(result, why_surface=tuple(why for _, why in placed))
        seconds = time.monotonic() - started
        said = save(result, work.result, files, dtype=dtype, folders=len(listed) > 1, progress=progress)
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
                "said": before + said,
                "failed": failures,
            },
        )
    shown = [out / "report.html"] if len(listed) == 1 else [out / stem(file) / "report.html" for file in files]
    say("done: open " + ", ".join(str(page) for page in shown) + " in a browser")
    _raise_failures(failures, len(listed))


def save(
    result: Enhanced,
    out: Path,
    files: Sequence[Path],
    *,
    dtype: str | None = None,
    scores: tuple[tuple[str, ...], ...] | None = None,
    folders: bool | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Write an enhanced experiment into an existing folder; return what there is to say about it.

    One image is written into the folder itself, several each into a folder named like the image; ``folders``
    says so for one that is left of several.
    """
    said = _found(result)
    save_model(out / "model.safetensors", result.model)
    for i, file in enumerate(files):
        folder = out / stem(file) if (len(files) > 1 if folders is None else folders) else out
        folder.mkdir(exist_ok=True)
        image = result.image(i)
        target = folder / ("enhanced" + container_suffix(file))
        note = _write(target, image, np.dtype(dtype) if dtype else result.stacks[i].dtype)
        said.append(f"{file.name}: {note}")
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
            data = report_data(result, i, c, title=file.name, note=note, scores=scores)
            # By number: a channel's name may hold what no file name can.
            write_report(folder / ("report.html" if c == 0 else f"report_channel_{c}.html"), data)
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
    files = list_images(paths)
    single = is_image_name(out)
    if single and len(files) > 1:
        raise InputError(f"{len(files)} images need a folder as --out, not the file '{out}'")
    if len(files) == 1 and out.suffix and not out.is_dir():
        container_suffix(out)
    where, failures = choose_device(device), []
    targets = [out if single else out / f"{stem(file)}{container_suffix(file)}" for file in files]
    for target in targets:
        _check_target(target, [*models, *files], overwrite=overwrite)
    for file, target in zip(files, targets, strict=True):
        try:
            stack = open_image(file, axes=axes, voxel_size=voxel_size, channel=channel)
            say(stack.describe())
            result = predict(
                loaded, stack, iterations=iterations, device=where, tile_voxels=tile_voxels, progress=progress
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            say(f"{target}: {_write(target, result, np.dtype(dtype) if dtype else stack.dtype)}")
        except DeepContrastError as error:
            if len(files) == 1 or isinstance(error, Cancelled):
                raise
            failures.append(f"{file.name}: {error}")
    _raise_failures(failures, len(files))


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

    Several models form one ensemble: each pass is the mean over all their networks, every one used with its
    own model's settings, scale and camera.

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
    out = np.empty(stack.shape, np.float32)
    for c in range(stack.size("C")):
        ready = []
        for model in models:
            channel, config = model.channels[c], model.config
            if tile_voxels:
                changed = config.predict.model_copy(update={"tile_voxels": tile_voxels})
                config = config.model_copy(update={"predict": changed})
            fit = task.Fit.decode(channel.fit, channel.arrays)
            ready.append((load_nets(task, channel.members, fit, config, device), fit, config))
        count = sum(len(nets) for nets, _, _ in ready)
        for t in range(stack.size("T")):
            volume = stack.volume(t, c)
            check_volume(volume, stack.source)
            current = [task.clean(volume, fit) for _, fit, _ in ready]
            for k in range(1, iterations + 1):
                mean = np.zeros(volume.shape, np.float32)
                for n, (nets, fit, config) in enumerate(ready):
                    restored = np.empty_like(mean)
                    which = f", model {n + 1}/{len(ready)}" if len(ready) > 1 else ""
                    predict_pass(
                        task, nets, current[n], fit, config, out=restored, device=device,
                        progress=progress, stage=f"predict {k}/{iterations}{which}",
                    )  # fmt: skip
                    mean += restored * np.float32(len(nets) / count)
                current = [mean] * len(ready)
            valid = find_invalid(volume).valid
            if valid is not None:
                mean[~valid] = volume[~valid]
            out[_place(stack, t, c)] = mean if "Z" in stack.axes else mean[0]
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
    container_suffix(out)
    _check_target(out, [path], overwrite=overwrite)
    stack = open_image(path, axes=axes, voxel_size=voxel_size, channel=channel)
    stack, why = surfaced(stack, surface)
    check_stacks([stack])
    say(stack.describe())
    for line in _looked_at(path.name, stack, why):
        say(line)
    task = registry.load("tasks", config.task_name)
    generator = torch.Generator().manual_seed(config.train.seed)
    result = np.empty(stack.shape, np.float32)
    for c in range(stack.size("C")):
        sources = [Source(stack, t, c, depths(stack)) for t in range(stack.size("T"))]
        fit = task.fit(sources, config)
        say(f"blur {fit.sigma_why}; gain {fit.camera.gain:.4g} grey levels per photon")
        for source in sources:
            volume = source.volume()
            degraded = task.degrade(source, fit, config, generator)
            valid = find_invalid(volume).valid
            result[_place(stack, source.t, c)] = degraded if valid is None else np.where(valid, degraded, volume)
    out.parent.mkdir(parents=True, exist_ok=True)
    say(f"{out}: {_write(out, replace(stack, array=result), stack.dtype)}")


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
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}' must end in .safetensors")
    check_out(out, resume=resume, overwrite=overwrite, inputs=paths, folder=False)
    files = list_images(paths)
    stacks = [open_image(file, axes=axes, voxel_size=voxel_size, channel=channel) for file in files]
    for stack in stacks:
        _describe(stack, say)
    check_stacks(stacks)
    prints = [fingerprint(file) for file in files]
    options = {
        "members": members,
        "axes": axes,
        "voxel_size": voxel_size,
        "channel": channel,
        "surface": surface,
    }
    job: dict[str, Any] = {
        "version": __version__,
        "config": config.model_dump(),
        "images": sorted(prints),
        "options": options,
    }
    if resume and out.exists():
        made = load_model(out)
        if is_done(out, job, {"config": made.config.model_dump(), **made.provenance}):
            say(f"'{out}' is complete already; nothing to do")
            return
    where = choose_device(device)
    with (
        working(
            out, job, resume=resume, overwrite=overwrite, inputs=paths, folder=False, machine=_machine(where)
        ) as work,
        threads(work.machine["threads"]),
    ):
        placed = [surfaced(stack, surface) for stack in stacks]
        for file, (stack, why) in zip(files, placed, strict=True):
            for line in _looked_at(file.name, stack, why):
                say(line)
        model, _ = learn(
            [stack for stack, _ in placed], config, members=members, device=where, folder=work.path,
            fingerprints=prints, progress=progress,
        )  # fmt: skip
        save_model(out, replace(model, provenance={**model.provenance, "options": options}))
        finish_file(work)
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
    """Score a result, every time point and channel, against truth and mask, and write metrics.json.

    Raises:
        InputError: raw, truth or mask has not the result's shape.
    """
    paths = {"result": result, "raw": raw, "truth": truth, "mask": mask}
    given = {name: path for name, path in paths.items() if path is not None}
    check_out(out, overwrite=overwrite, inputs=list(given.values()))
    stacks = {name: open_image(path) for name, path in given.items()}
    shapes = {name: tuple(stack.size(axis) for axis in "TCZYX") for name, stack in stacks.items()}
    for name, shape in shapes.items():
        if shape != shapes["result"]:
            raise InputError(f"the {name} has shape {shape}, the result has {shapes['result']} (T, C, Z, Y, X)")
    rows: list[Row] = []
    one = stacks["result"]
    frames = [(t, c) for t in range(one.size("T")) for c in range(one.size("C"))]
    for t, c in frames:
        true = stacks["truth"].volume(t, c).astype(np.float32) if truth else None
        marked = stacks["mask"].volume(t, c) > 0 if mask else None
        if marked is not None and (not marked.any() or marked.all()):
            raise InputError(f"the mask '{mask}' marks no voxel, or all of them")
        for name in ("result", "raw"):
            if name in stacks:
                found = _scored(stacks[name], name, t, c, true, marked)
                means = depth_means(found, one.size("Z"))
                which = f" t {t}, channel {c}" if len(frames) > 1 else ""
                values = (f"{m} {np.nanmean(v):.3f}" for m, v in means.items() if "level" not in m)
                say(f"{name}{which}: " + ", ".join(values))
                rows += found
    run = {
        "version": __version__,
        "verb": "evaluate",
        "input": {name: fingerprint(path) for name, path in given.items()},
    }
    with working(out, overwrite=overwrite, inputs=list(given.values())) as work:
        table = {"format_version": METRICS_VERSION, "rows": [asdict(row) for row in rows]}
        write_json(work.result / "metrics.json", {**table, "chosen_iterations": None, "why": ""})
        finish(work, run)


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
        stack = open_image(file)
        lines += [stack.describe(), *(f"  {note}" for note in stack.notes)]
    return lines


def hardware(device: str) -> dict[str, Any]:
    """Return what the run ran on."""
    return {
        "device": device,
        "name": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _machine(device: str) -> dict[str, Any]:
    """Return what a resumed run must share with the first for the same bytes."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "device": device}


def _open_usable(
    files: Sequence[Path],
    axes: str | None,
    voxel_size: tuple[float, float, float] | None,
    channel: str | None,
    say: Say,
) -> tuple[dict[Path, Stack], list[str]]:
    """Open images and say what they are; of several, those that cannot be used are left out and listed."""
    stacks, failures = {}, []
    for file in files:
        try:
            stack = open_image(file, axes=axes, voxel_size=voxel_size, channel=channel)
            _describe(stack, say)
            check_stacks([stack])
            stacks[file] = stack
        except InputError as error:
            if len(files) == 1:
                raise
            failures.append(f"{file.name}: {error}")
            say(f"{file.name} is left out: {error}")
    if not stacks:
        _raise_failures(failures, len(files))
    return stacks, failures


def _raise_failures(failures: Sequence[str], count: int) -> None:
    if failures:
        raise InputError(f"{len(failures)} of {count} images failed: " + "; ".join(failures))


def _describe(stack: Stack, say: Say) -> None:
    say(stack.describe())
    for note in stack.notes:
        say(f"  {note}")


def _looked_at(name: str, stack: Stack, why: str) -> list[str]:
    """Return, before the long work starts, which plane is the surface and which voxels hold no measurement."""
    said = [f"{name}: the surface is the {stack.optics.surface} plane ({why})"]
    counts: dict[str, NDArray[np.int64]] = {}
    for t in range(stack.size("T")):
        for c in range(stack.size("C")):
            found = find_invalid(stack.volume(t, c))
            for reason, planes in {**found.counts, "lowest": found.at_zero}.items():
                counts[reason] = counts.get(reason, np.zeros_like(planes)) + planes
    for reason, planes in counts.items():
        where = f"{int(planes.sum())} voxels in {np.count_nonzero(planes)} of {len(planes)} planes"
        if reason == "lowest" and planes.any():
            said.append(f"{name}: {where} pile up at the lowest value; they are kept, as dark")
        elif planes.any():
            said.append(f"{name}: {where} are {reason}; they are left out and come back unchanged")
    return said


def _check_target(target: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse, before anything is done, a file that cannot be written.

    Raises:
        OutputExistsError: something is there and must stay.
        InputError: it is one of the inputs.
        OutputError: no permission.
    """
    check_inputs_stay(target, inputs)
    if target.is_dir() and any(target.iterdir()) and not (container_suffix(target) == ".ome.zarr" and is_zarr(target)):
        raise OutputExistsError(f"output '{target}' is a folder with other files in it; choose another --out")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"output '{target}' exists; choose another --out, or --overwrite it")
    check_writable(target)


def _write(target: Path, image: Stack, dtype: np.dtype[Any]) -> str:
    """Write a float result in a type, and return what was done to make it fit."""
    written = to_dtype(np.asarray(image.array), dtype)
    if written.attributes and container_suffix(target) == ".npy":
        note = f"written as float32: .npy has no place for the offset and scale that {dtype.name} would need"
        written = Written(np.asarray(image.array), {}, note)
    write_stack(target, replace(image, array=written.array), attributes=written.attributes or None)
    return written.note


def _place(stack: Stack, t: int, c: int) -> tuple[Any, ...]:
    """Return the index of one time point and channel."""
    return tuple({"T": t, "C": c}.get(axis, slice(None)) for axis in stack.axes)


def _scored(
    stack: Stack,
    method: str,
    t: int,
    c: int,
    truth: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
) -> list[Row]:
    """Return the scores of one time point and channel."""
    volume = stack.volume(t, c).astype(np.float32)
    check_volume(volume, stack.source)
    depth_um = [float(d) if depth_unit(stack) == "um" else None for d in depths(stack)]
    rows = contrast_rows(volume, method=method, k=None, t=t, c=c, depth_um=depth_um)
    return rows + truth_rows(volume, truth, mask, method=method, k=None, t=t, c=c, depth_um=depth_um)


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


def _found(result: Enhanced) -> list[str]:
    """Return what was found of camera and blur, and how k was chosen."""
    said = []
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

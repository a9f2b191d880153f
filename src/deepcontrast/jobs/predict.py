"""``deepcontrast predict``: trained models applied to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepcontrast import registry
from deepcontrast.accept import check_volume, choose_device
from deepcontrast.errors import Cancelled, DeepContrastError, InputError
from deepcontrast.io import container_suffix, stem
from deepcontrast.jobs.images import Reading, check_target, is_image_name, list_images, write_image
from deepcontrast.jobs.say import Say, raise_failures
from deepcontrast.model import Model, load_model
from deepcontrast.prediction import load_nets, predict_pass
from deepcontrast.progress import Progress, silent
from deepcontrast.stack import Stack
from deepcontrast.valid import find_invalid


def predict_images(
    models: Sequence[Path],
    paths: Sequence[Path],
    out: Path,
    *,
    iterations: int = 1,
    reading: Reading,
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
        check_target(target, [*models, *files], overwrite=overwrite)
    for file, target in zip(files, targets, strict=True):
        try:
            stack = reading.open(file)
            say(stack.describe())
            result = predict_stack(
                loaded, stack, iterations=iterations, device=where, tile_voxels=tile_voxels, progress=progress
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            say(f"{target}: {write_image(target, result, np.dtype(dtype) if dtype else stack.dtype)}")
        except DeepContrastError as error:
            if len(files) == 1 or isinstance(error, Cancelled):
                raise
            failures.append(f"{file.name}: {error}")
    raise_failures(failures, len(files))


def predict_stack(
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
            out[stack.index(t, c)] = mean if "Z" in stack.axes else mean[0]
    return replace(stack, array=out)

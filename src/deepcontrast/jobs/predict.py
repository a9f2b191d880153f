"""``deepcontrast predict``: trained models applied to images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepcontrast import __version__, registry
from deepcontrast.accept import choose_device
from deepcontrast.errors import Cancelled, DeepContrastError, InputError, OutputExistsError
from deepcontrast.io import container_suffix, fingerprint, open_writer, read_attributes, stem, write_stack
from deepcontrast.jobs.hardware import machine
from deepcontrast.jobs.images import Reading, check_target, dtype_in, is_image_name, list_images
from deepcontrast.jobs.movie import MOVIES, movie_suffix, write_movie
from deepcontrast.jobs.say import Say, describe_stack, raise_failures
from deepcontrast.jobs.shards import deciding, describe_plan, norms_of, plan_shards, surveys_of
from deepcontrast.model import Model, load_model
from deepcontrast.output_checks import check_out, check_space, partial_folder, size_of
from deepcontrast.prediction import Plan
from deepcontrast.progress import Progress, silent
from deepcontrast.scale.members import (
    check_models,
    check_once,
    check_uncertain,
    grid_of,
    maps_of,
    merged,
)
from deepcontrast.scale.predict_shards import (
    Restoration,
    restore_stack,
    space,
)
from deepcontrast.scale.resources import Resources
from deepcontrast.stack import Stack
from deepcontrast.training import threads
from deepcontrast.uncertainty import MAPS
from deepcontrast.valid import Survey
from deepcontrast.workdir import begun_on, finish_single, is_done, remove, working

MOVIE = "movie"
RECORD = "prediction"
"""The attribute of a result that says what it is the result of."""
ORIGIN = "origin_um"
"""The attribute of a result of another grid that says where its first voxel lies in the image."""


def predict_images(
    models: Sequence[Path],
    paths: Sequence[Path],
    out: Path,
    *,
    iterations: int = 1,
    norm: str = "image",
    uncertainty: bool = False,
    movie: bool = False,
    reading: Reading,
    dtype: str | None = None,
    device: str = "auto",
    resources: Resources | None = None,
    plan_only: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Apply trained models, several forming one ensemble, ``iterations`` times to images.

    Args:
        models: their files.
        paths: images, and folders of images.
        out: the result of a single image, or a folder.
        iterations: how often the networks are applied.
        norm: ``"image"`` normalises each image as the models' images were, by itself if so; ``"stored"`` all as
            the images of training in their median.
        uncertainty: also write, beside every result, the maps of :mod:`deepcontrast.uncertainty`.
        movie: also write, beside every result, draws from what is predicted.
        reading: how the images are to be understood.
        dtype: of the results; that of each image by default.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        resources: memory, processes, a cluster.
        plan_only: say how it would be done, and do nothing.
        resume: go on with what an earlier run began; what is complete is left as it is.
        overwrite: replace results that are there.
        progress: gets events.
        say: gets what is to be told.

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
    if uncertainty or movie:
        check_uncertain(loaded, iterations)
        loaded = [merged(loaded)]
    beside = maps_of(loaded, uncertain=uncertainty)
    targets = [out if single else out / f"{stem(file)}{container_suffix(file)}" for file in files]
    inputs = [*models, *files]
    if not plan_only:
        for target in targets:
            check_target(target, inputs, overwrite=overwrite or resume)
            check_out(target, resume=resume, overwrite=overwrite, inputs=inputs, folder=False)
            # What a run that is to go on has put there already is its own.
            own = resume and (target.exists() or bool(begun_on(target)))
            for place in _beside(target, beside, movie).values():
                check_target(place, inputs, overwrite=overwrite or own)
    outputs = [place for target in targets for place in (target, *_beside(target, beside, movie).values())]
    _refuse_equal(outputs)
    kept = {path.resolve() for path in (*inputs, *outputs)}
    stale = {target: [place for place in _stale(target) if place.resolve() not in kept] for target in targets}
    order = _Order(
        tuple(models),
        loaded,
        iterations,
        norm,
        uncertainty,
        movie,
        dtype,
        choose_device(device),
        resources or Resources(),
        stale,
    )
    on_grid = grid_of(loaded)
    failures = []
    for file, target in zip(files, targets, strict=True):
        try:
            stack = reading.open(file)
            describe_stack(stack, say)
            check_models(loaded, stack, norm)
            result = on_grid(stack)
            if result is not stack:
                check_once(stack, result, iterations)
                say(f"  restored as {result.describe().removeprefix(f'{stack.source}: ')}")
            if plan_only:
                for line in describe_plan(order.planned(result), result):
                    say(line)
            else:
                work = partial(_predict_image, order, reading, file, result, target, stack.dtype)
                work(resume=resume, overwrite=overwrite, progress=progress, say=say)
        except DeepContrastError as error:
            if len(files) == 1 or isinstance(error, Cancelled):
                raise
            failures.append(f"{file.name}: {error}")
    raise_failures(failures, len(files))


@dataclass(frozen=True, eq=False)
class _Order:
    """What is done to every image: by which models, how often, with what."""

    paths: tuple[Path, ...]
    models: Sequence[Model]
    iterations: int
    norm: str
    uncertainty: bool
    movie: bool
    dtype: str | None
    device: str
    resources: Resources
    stale: Mapping[Path, Sequence[Path]]

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of the maps beside every result."""
        return maps_of(self.models, uncertain=self.uncertainty)

    def planned(self, stack: Stack) -> dict[str, Any]:
        """Return how a stack will be restored."""
        return plan_shards(self.models, stack, self.device, self.resources, maps=self.beside)


def _predict_image(
    order: _Order,
    reading: Reading,
    file: Path,
    stack: Stack,
    target: Path,
    own: np.dtype[Any],
    *,
    resume: bool,
    overwrite: bool,
    progress: Progress,
    say: Say,
) -> None:
    """Restore one image, on the grid of its result, and write it, by default in its own type."""
    job = {
        "version": __version__,
        "verb": "predict",
        "models": [fingerprint(path) for path in order.paths],
        "input": fingerprint(file),
        "options": {
            "iterations": order.iterations,
            "norm": order.norm,
            "uncertainty": order.uncertainty,
            "maps": list(order.beside),
            "movie": order.movie,
            "dtype": order.dtype,
            **asdict(reading),
        },
    }
    if resume and target.exists() and is_done(target, job, _made_as(target)):
        for name, place in _beside(target, order.beside, order.movie).items():
            # A movie may be of the other kind: that depends on what was installed then.
            others = [_movie_beside(target, suffix) for suffix in MOVIES if name == MOVIE]
            if not any(one.exists() for one in (place, *others)):
                raise InputError(f"'{target}' is complete, but '{place}' is gone; --overwrite makes all of it again")
        say(f"'{target}' is complete already; nothing to do")
        return
    container = container_suffix(target)
    dtype = dtype_in(container, np.dtype(order.dtype or own))
    zarr = container == ".ome.zarr"
    there = size_of(partial_folder(target)) if resume else 0
    needed = space(stack, order.iterations, dtype, copied=not zarr, maps=len(order.beside))
    check_space(target, needed + 50_000_000 - there)
    order.resources.check()
    stored = begun_on(target).get("plan") if resume else None
    begun = {
        **machine(order.device),
        "threads": order.resources.threads_of_one(torch.get_num_threads()),
        # Whatever memory is left now.
        "plan": stored or order.planned(stack),
    }
    surveys = surveys_of(stack, progress, say, deep=registry.load("tasks", order.models[0].task).DEEP)
    norms = norms_of(order.models, stack, surveys, order.norm, say)
    for line in [*_other_channels(order.models, stack), *_unlike(order.models, stack, surveys)]:
        say(f"warning: {file.name}: {line}")
    inputs = [*order.paths, file]
    with working(target, job, resume=resume, overwrite=overwrite, inputs=inputs, folder=False, machine=begun) as work:
        plan = work.machine["plan"]
        for line in describe_plan(plan, stack):
            say(line)
        restoration = Restoration(
            models=tuple(path.resolve() for path in order.paths),
            open=partial(_opened, reading, file.resolve(), grid_of(order.models)),
            surveys=surveys,
            iterations=order.iterations,
            dtype=dtype.name,
            shift=container != ".npy",
            compressed=zarr,
            plans=[Plan.decode(table) for table in plan["tiles"]],
            shard=plan["shard"],
            device=order.device,
            threads=work.machine["threads"],
            folder=work.path.resolve(),
            beside=order.beside,
            merged=order.uncertainty or order.movie,
            norms=norms,
        )
        kept = {RECORD: json.dumps({**job, "plan": deciding(plan)}, sort_keys=True)}
        if any(stack.optics.origin_um):
            kept[ORIGIN] = json.dumps(dict(zip("zyx", stack.optics.origin_um, strict=True)), sort_keys=True)
        with threads(restoration.threads):
            outcome = restore_stack(restoration, order.resources.runner(), attributes=kept, progress=progress)
        made = _in_container(restoration.result, work.path / target.name, stack, outcome.attributes)
        places = _beside(target, order.beside, order.movie)
        beside = {
            places[name]: _in_container(path, work.path / places[name].name, stack)
            for name, path in restoration.maps.items()
        }
        if order.movie:
            shown = work.path / places[MOVIE].name
            say(f"{places[MOVIE]}: {write_movie(shown, order.models[0], stack, surveys, norms, device=order.device)}")
            beside[places[MOVIE]] = shown
        finish_single(work, made, beside)
    for place in order.stale[target]:
        remove(place)
    for line in outcome.describe():
        say(f"{target}: {line}")


def _opened(reading: Reading, file: Path, on_grid: Callable[[Stack], Stack]) -> Stack:
    """Return an image on the grid of its result."""
    return on_grid(reading.open(file))


def _unlike(models: Sequence[Model], stack: Stack, surveys: Mapping[tuple[int, int], Survey]) -> list[str]:
    """Return in words how the first time point of a stack differs from what models were trained on."""
    task: Any = registry.load("tasks", models[0].task)
    lines = []
    for model in models:
        for c, channel in enumerate(model.channels):
            lines += task.unlike(task.Fit.decode(channel.fit, channel.arrays), stack.frame(0, c), surveys[0, c])
    return list(dict.fromkeys(lines))


def _other_channels(models: Sequence[Model], stack: Stack) -> list[str]:
    """Return in words where an image has channels of other names than the models, or in another order."""
    lines = []
    for model in models:
        names = tuple(channel.name for channel in model.channels)
        unnamed = names == tuple(map(str, range(len(names))))
        if stack.channels and not unnamed and stack.channels != names:
            lines.append(f"its channels are {', '.join(stack.channels)}, those of the model {', '.join(names)}")
    return list(dict.fromkeys(lines))


def _beside(target: Path, maps: Sequence[str], movie: bool) -> dict[str, Path]:
    """Return what is written beside a result, by name: ``liver.scale.tif`` beside ``liver.tif``."""
    first = stem(target)
    rest = target.name.removeprefix(first)
    places = {name: target.with_name(f"{first}.{name}{rest}") for name in maps}
    return places | ({MOVIE: _movie_beside(target, movie_suffix())} if movie else {})


def _movie_beside(target: Path, suffix: str) -> Path:
    return target.with_name(f"{stem(target)}.{MOVIE}{suffix}")


def _refuse_equal(places: Sequence[Path]) -> None:
    """Refuse results of which one would be written over the other.

    Raises:
        InputError: names them.
    """
    for n, place in enumerate(places):
        if place in places[:n]:
            raise InputError(f"'{place}' would be written twice: as a result, and beside one; restore them apart")


def _stale(target: Path) -> list[Path]:
    """Return what was written beside a former result: it would be taken for the new one's."""
    record = None
    if target.exists():
        # What is no image of ours has nothing beside it.
        with suppress(DeepContrastError):
            record = read_attributes(target).get(RECORD)
    if not isinstance(record, str):
        return []
    options = json.loads(record).get("options", {})
    movies = [_movie_beside(target, suffix) for suffix in MOVIES if options.get("movie")]
    return [*_beside(target, options.get("maps", MAPS if options.get("uncertainty") else ()), False).values(), *movies]


def _in_container(path: Path, wanted: Path, stack: Stack, attributes: Mapping[str, float | str] | None = None) -> Path:
    """Return where a finished OME-Zarr lies in the container of a name: itself, or what it was written into."""
    if container_suffix(wanted) == ".ome.zarr":
        return path
    write_stack(wanted, replace(stack, array=open_writer(path).array), attributes=attributes)
    return wanted


def _made_as(target: Path) -> dict[str, Any]:
    """Return what a result says that it is the result of.

    Raises:
        OutputExistsError: it does not say.
    """
    record = read_attributes(target).get(RECORD)
    if not isinstance(record, str):
        raise OutputExistsError(f"output '{target}' exists and does not say what it is the result of; --overwrite it")
    made: dict[str, Any] = json.loads(record)
    return made

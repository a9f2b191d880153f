"""``deepcontrast experiment``: one of the papers' experiments, on simulated tissue or on a user's stacks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from deepcontrast import __version__, registry
from deepcontrast.accept import check_stacks, check_unpaired, choose_device, surfaced
from deepcontrast.atomic import write_atomic, write_json
from deepcontrast.config import Config
from deepcontrast.errors import InputError, nearest
from deepcontrast.experiments import PUBLISHED, Cell, Finding, Subject
from deepcontrast.io import fingerprint, stem
from deepcontrast.jobs.hardware import hardware, machine
from deepcontrast.jobs.images import list_images, open_image
from deepcontrast.jobs.say import Say, describe_stack, looked_at
from deepcontrast.output_checks import check_out
from deepcontrast.progress import Progress, silent
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.training.loop import threads
from deepcontrast.workdir import finish, is_done, working

SHAPE = (40, 160, 160)
"""Planes, rows and columns of the simulated tissue."""

SMALL = ("train.steps=500", "train.validate_every=100")
"""What is laid over the recipe ``contrast`` on simulated tissue, so that an experiment takes minutes."""


def settled_experiment(name: str, recipe: str, settings: Iterable[str], *, simulated: bool) -> Config:
    """Return the settings of an experiment: ``contrast`` as published, on simulated tissue with fewer steps.

    An experiment that simulates its own stacks takes the recipe as it is.
    """
    if recipe != "contrast" or _simulates(name):
        return load_recipe(recipe, settings)
    return load_recipe(recipe, (*PUBLISHED, *(SMALL if simulated else ()), *settings))


def run_experiment(
    name: str,
    out: Path,
    config: Config,
    *,
    images: Sequence[Path] = (),
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Run an experiment and write table.csv, experiment.json, figure.png and report.md.

    Args:
        name: with hyphens, e.g. ``"bias-ablation"``.
        out: folder of the result.
        config: the settings.
        images: stacks; without any, tissue is simulated, one for every seed.
        seeds: of training, and of the simulated tissue.
        only: which of the ideas of ``ablation`` to try; all by default.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        resume: go on with what an interrupted run of ``ablation`` kept; it may be given other seeds and ideas
            as long as it is not complete.
        overwrite: replace an older result.
        progress: gets events.
        say: gets sentences.

    Raises:
        InputError: no such experiment, or an image it cannot be made on.
    """
    module = _module(name)
    check_unpaired(config)
    check_out(out, resume=resume, overwrite=overwrite, inputs=images)
    where, each = choose_device(device), tuple(dict.fromkeys(seeds))
    own = _simulates(name)
    if own:
        module.chosen(config, only)
    elif resume:
        raise InputError(f"{name} takes minutes and begins again; leave out --resume")
    if own and images:
        raise InputError(f"{name} compares with the truth, which measured stacks do not have: leave out --input")
    if only and not own:
        raise InputError(f"--only is for {', '.join(filter(_simulates, _names()))}; {name} is run as a whole")
    files = list_images(images)
    job = {
        "version": __version__,
        "verb": "experiment",
        "experiment": name,
        "config": config.model_dump(),
        "input": {file.name: fingerprint(file) for file in files},
        "simulated": [] if files else {"kinds": list(module.PHANTOMS), "shape": list(module.SHAPE if own else SHAPE)},
    }
    asked = {"seeds": list(seeds), "only": list(only)}
    if resume and is_done(out, {**job, **asked}):
        say(f"'{out}' is complete already; nothing to do")
        return
    with (
        working(
            out, job if own else None, resume=resume, overwrite=overwrite, inputs=images, machine=machine(where)
        ) as work,
        threads(work.machine["threads"]),
    ):
        if own:
            say(f"simulating {', '.join(module.PHANTOMS)} ({len(each)} of each)")
            subjects = module.simulated(each)
        else:
            subjects = [_opened(file, say) for file in files] or [
                simulated_subject(kind, seed, say) for seed in each for kind in module.PHANTOMS
            ]
        more = {"folder": work.path / "done", "only": only} if own else {}
        function = registry.load("experiments", name.replace("-", "_"))
        found: Finding = function(subjects, config, seeds=each, device=where, progress=progress, **more)
        if len({(one["stack"], one["seed"]) for one in found.runs}) == 1:
            found = replace(found, sentences=(*found.sentences, "One run: what of this is chance, more --seeds show."))
        write_finding(found, work.result, _circumstances(found, config, subjects, seeds))
        finish(work, {**job, **asked, "hardware": hardware(where)})
    for line in (found.title, *text_table(found.columns, found.rows), *found.sentences, f"done: {out}"):
        say(line)


def _names() -> list[str]:
    return [known.replace("_", "-") for known in registry.names("experiments")]


def _module(name: str) -> ModuleType:
    accepted = _names()
    if name not in accepted:
        raise InputError(f"no experiment '{name}'; accepted: {', '.join(accepted)}{nearest(name, accepted)}")
    found: ModuleType = registry.module("experiments", name.replace("-", "_"))
    return found


def _simulates(name: str) -> bool:
    """Return whether an experiment simulates stacks of its own."""
    return hasattr(_module(name), "simulated")


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Return a table as lines of equal width, every ``x_sd`` behind its ``x``."""
    cells = _shown(columns, rows)
    wide = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in cells]


def _shown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """Return header and rows in words: ``0.512 ± 0.010``, and ``-`` where undefined."""
    kept = [i for i, column in enumerate(columns) if not column.endswith("_sd")]
    found = [[columns[i].replace("_", " ") for i in kept]]
    for row in rows:
        named = dict(zip(columns, row, strict=True))
        found.append([_cell(named[columns[i]], named.get(f"{columns[i]}_sd")) for i in kept])
    return found


def _cell(value: Cell, deviation: Cell) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    places = 3 if value == 0 or abs(value) >= 0.1 else 5
    return f"{value:.{places}f}" if deviation is None else f"{value:.{places}f} ± {deviation:.{places}f}"


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Write a table as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def write_finding(found: Finding, folder: Path, settings: Mapping[str, str]) -> None:
    """Write what an experiment found: table.csv, experiment.json, figure.png and report.md."""
    write_table(folder / "table.csv", found.columns, found.rows)
    write_json(
        folder / "experiment.json",
        {
            "format_version": 1,
            "title": found.title,
            "source": found.source,
            "finding": list(found.sentences),
            "settings": dict(settings),
            "columns": list(found.columns),
            "rows": [list(row) for row in found.rows],
            "runs": [dict(run) for run in found.runs],
        },
    )
    write_atomic(folder / "figure.png", found.figure)
    header, *body = _shown(found.columns, found.rows)
    lines = [f"# {found.title}", "", f"After {found.source}.", "", *(f"- {said}" for said in found.sentences), ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    lines += ["", "Mean ± sample standard deviation.", "", "![what was found](figure.png)", ""]
    lines += ["## Settings", "", *(f"- {key}: {value}" for key, value in settings.items()), ""]
    write_atomic(folder / "report.md", "\n".join(lines).encode())


def _circumstances(found: Finding, config: Config, subjects: Sequence[Subject], seeds: Sequence[int]) -> dict[str, str]:
    """Return what the experiment was made with, its own settings last."""
    net, train = config.net, config.train
    return {
        "stacks": "; ".join(dict.fromkeys(f"{s.name}: {' x '.join(map(str, s.stack.shape))}" for s in subjects)),
        "seeds": ", ".join(map(str, seeds)),
        "recipe": config.recipe,
        "network": f"depth {net.depth}, {net.features} features, kernel {net.kernel}, {'' if net.bias else 'no '}bias, "
        f"{net.context} planes above and below, in {'space' if net.dims == 3 else 'the plane'}",
        "training": f"{train.steps} steps of {train.batch} patches of {train.patch} px, {train.loss}, "
        f"learning rate {train.learning_rate:g}",
        **found.settings,
    }


def _opened(file: Path, say: Say) -> Subject:
    stack = open_image(file)
    describe_stack(stack, say)
    check_stacks([stack])
    placed, why = surfaced(stack, "auto")
    for line in looked_at(file.name, placed, why):
        say(line)
    if placed.size("T") * placed.size("C") > 1:
        say(f"{file.name}: the first time point and channel are used")
    return Subject(stem(file), placed)


def simulated_subject(kind: str, seed: int, say: Say) -> Subject:
    say(f"simulating {kind}, {' x '.join(map(str, SHAPE))} voxels (seed {seed})")
    made = registry.load("synth", kind)(shape=SHAPE, seed=seed)
    stack = Stack(made.raw, "ZYX", made.optics, source=f"simulated {kind}")
    return Subject(kind, stack, made.truth, made.mask, seed)

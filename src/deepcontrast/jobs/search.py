"""``deepcontrast experiment search``: which settings train best on a user's images, pairs, or simulated tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepcontrast import __version__, registry
from deepcontrast.accept import check_paired, choose_device, with_inputs
from deepcontrast.atomic import write_atomic
from deepcontrast.config import Config
from deepcontrast.experiments.search import PHANTOMS, Grid, Searched, default_grid, points_of, search
from deepcontrast.io import fingerprint
from deepcontrast.jobs.experiment import simulated_subject, text_table, write_finding, write_table
from deepcontrast.jobs.hardware import hardware, machine
from deepcontrast.jobs.images import Reading
from deepcontrast.jobs.say import Say
from deepcontrast.jobs.train import Images
from deepcontrast.learning import Lesson, lessons
from deepcontrast.output_checks import check_out
from deepcontrast.progress import Progress, silent
from deepcontrast.recipe import recipe_text
from deepcontrast.stack import Stack
from deepcontrast.training import threads
from deepcontrast.workdir import finish, is_done, working

BEST = "best.toml"


def search_settings(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    targets: Sequence[Path] = (),
    grid: Grid | None = None,
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Search a grid of settings and write what an experiment writes, search.csv, histories.csv and best.toml.

    Args:
        paths: images that the recipe learns from; without any, tissue is simulated for the recipes of deep stacks, and
            recipes that draw what they learn from draw it.
        out: folder of the result.
        config: the recipe.
        targets: of every image, for a recipe of pairs.
        grid: values to try, by the dotted key of the setting; by default learning rates and patches.
        seeds: of training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        resume: go on with what an interrupted search kept; it may be given other seeds as long as it is not complete.
        overwrite: replace an older result.
        progress: gets events.
        say: gets sentences.

    Raises:
        InputError: images that the recipe cannot learn from, or a setting that cannot be tried.
    """
    check_paired(config, bool(targets))
    # Without images tissue is simulated for recipes of deep stacks, and some recipes draw what they learn from.
    tissue = not paths and registry.load("tasks", config.task_name).DEEP
    if not tissue:
        config = with_inputs(config, len(paths))
    tried = default_grid(config) if grid is None else grid
    points_of(config, tried)
    check_out(out, resume=resume, overwrite=overwrite, inputs=[*paths, *targets])
    where, each = choose_device(device), tuple(dict.fromkeys(seeds))
    images = Images(paths, targets, Reading(), False, config)
    files, stacks, truths = ([], [], []) if tissue else images.open(say)
    job: dict[str, Any] = {
        "version": __version__,
        "verb": "experiment",
        "experiment": "search",
        "config": config.model_dump(),
        "grid": {key: list(values) for key, values in tried.items()},
        "input": {str(n): fingerprint(file) for n, file in enumerate(files)},
    }
    asked = {"seeds": list(each)}
    if resume and is_done(out, {**job, **asked}):
        say(f"'{out}' is complete already; nothing to do")
        return
    with (
        working(
            out, job, resume=resume, overwrite=overwrite, inputs=[*paths, *targets], machine=machine(where)
        ) as work,
        threads(work.machine["threads"]),
    ):
        placed = [simulated_subject(kind, 0, say).stack for kind in PHANTOMS] if tissue else images.place(stacks, say)
        if placed[0].size("C") > 1 and not config.task.get("joint"):
            say("the first channel is searched on")

        def lesson(settled: Config) -> Lesson:
            return lessons(placed, settled, targets=truths)[0]

        found = search(
            lesson, config, grid=tried, seeds=each, device=where, progress=progress, folder=work.path / "done"
        )
        _write(found, work.result, _circumstances(found, config, placed, each))
        finish(work, {**job, **asked, "hardware": hardware(where)})
    finding = found.finding
    for line in (finding.title, *text_table(finding.columns, finding.rows), *finding.sentences):
        say(line)
    say(f"done: {out}; to train with the best: deepcontrast train {out / BEST}")


def _write(found: Searched, folder: Path, settings: Mapping[str, str]) -> None:
    write_finding(found.finding, folder, settings)
    for name, rows in (("search.csv", found.finding.runs), ("histories.csv", found.histories)):
        write_table(folder / name, tuple(rows[0]), [tuple(row.values()) for row in rows])
    text = recipe_text(found.best, (f"the recipe {found.best.recipe}, searched.", *found.finding.sentences))
    write_atomic(folder / BEST, text.encode())


def _circumstances(found: Searched, config: Config, stacks: Sequence[Stack], seeds: Sequence[int]) -> dict[str, str]:
    """Return what the search was made with, its own settings last."""
    return {
        "stacks": "; ".join(f"{Path(s.source).name}: {' x '.join(map(str, s.shape))}" for s in stacks),
        "seeds": ", ".join(map(str, seeds)),
        "recipe": config.recipe,
        **found.finding.settings,
    }

"""``deepcontrast pairs``: pairs to learn from on disk, made of images of high quality, or of drawn structures."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcontrast import __version__
from deepcontrast.accept import check_stacks, with_inputs
from deepcontrast.config import Config
from deepcontrast.distortion import Drawn, Pair, Step
from deepcontrast.errors import InputError
from deepcontrast.io import fingerprint, stem, write_stack
from deepcontrast.jobs.hardware import hardware
from deepcontrast.jobs.images import Reading, list_images
from deepcontrast.jobs.say import Say, describe_stack
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.psf import nyquist
from deepcontrast.report.contact_sheet import Shown, contact_sheet
from deepcontrast.stack import Frame, Optics, Stack
from deepcontrast.tasks import structures
from deepcontrast.workdir import finish, working

SHOWN = 12
"""Pairs on the contact sheet."""


def make_pairs(
    paths: Sequence[Path],
    out: Path,
    config: Config,
    *,
    reading: Reading,
    count: int | None = None,
    only: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Write ``input/``, ``target/``, ``parameters.csv`` and ``contact_sheet.png``.

    Every pair depends on the seed, the name of its image and its number alone, not on the others.

    Args:
        paths: images of high quality, and folders of them; none where the recipe draws.
        out: a folder.
        config: of the task ``structures``.
        reading: how images are to be understood.
        count: pairs to draw; as many as a round of training has by default.
        only: the name of the one pair to make.
        overwrite: replace what is there.
        progress: gets an event per pair.
        say: gets what is to be told.

    Raises:
        InputError: another task, no images for a recipe that draws nothing, a chain that is not understood,
            or a name that no pair has.
    """
    if config.task_name != "structures":
        raise InputError(
            f"recipe '{config.recipe}' is of the task {config.task_name}, which makes no pairs; accepted: recipes of "
            "the task structures, e.g. semi-synthetic"
        )
    config = with_inputs(config, len(paths))
    params = structures.Params(**config.task)
    steps = structures.chain_of(params)
    if count is not None and not params.structure:
        raise InputError(f"--count {count}: of images, every one gives task.sets pairs ({params.sets})")
    files = list_images(paths)
    stacks = [reading.open(file) for file in files]
    for stack in stacks:
        describe_stack(stack, say)
        for line in structures.assumed(stack, config):
            say(line)
    check_stacks(stacks, flat=True)
    orders = _drawn(params, count or params.images) if params.structure else _of_images(files, stacks, params)
    if only is not None:
        orders = [order for order in orders if order.name == only]
        if not orders:
            raise InputError(f"--only '{only}': no pair has this name")
    with working(out, overwrite=overwrite, inputs=paths) as work:
        for folder in ("input", "target"):
            (work.result / folder).mkdir()
        table: list[dict[str, float | str]] = []
        shown: list[Shown] = []
        coarse = ""
        some = set(np.linspace(0, len(orders) - 1, SHOWN).round().astype(int).tolist())
        for n, order in enumerate(orders):
            pair = order.make(steps, config.train.seed)
            for folder, volume in (("input", pair.image), ("target", pair.target)):
                write_stack(work.result / folder / f"{order.name}.tif", order.as_stack(volume))
            coarse = coarse or _coarse(pair.drawn, order.like.optics)
            table.append({"pair": order.name, "image": order.image, **pair.drawn})
            if n in some:
                middle = len(pair.image) // 2
                shown.append(Shown(order.name, pair.image[middle], pair.target[middle], pair.drawn))
            progress(Event("pairs", n + 1, len(orders)))
        _write_table(work.result / "parameters.csv", table)
        (work.result / "contact_sheet.png").write_bytes(contact_sheet(shown))
        run = {"version": __version__, "verb": "pairs", "config": config.model_dump(), "hardware": hardware("cpu")}
        finish(work, {**run, "images": [fingerprint(file) for file in files]})
    if coarse:
        say(coarse)
    say(f"done: {out}: {len(orders)} pair{'s' * (len(orders) != 1)}")


def read_parameters(path: Path) -> dict[str, dict[str, float | str]]:
    """Return the table of parameters of a folder of pairs, by pair.

    :func:`deepcontrast.distortion.distort` makes the pair of an image again from its row.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return {row["pair"]: {key: _value(text) for key, text in row.items() if text} for row in csv.DictReader(file)}


@dataclass(frozen=True, eq=False)
class _Order:
    """A pair to be made: the name of its files, what it is made of, and how, by the steps of the chain and a seed."""

    name: str
    image: str
    make: Callable[[Sequence[Step], int], Pair]
    like: Stack

    def as_stack(self, volume: NDArray[np.float32]) -> Stack:
        """Return one of its images (Z, Y, X) with axes and voxels of what it is made of."""
        flat = "Z" not in self.like.axes
        return Stack(volume[0] if flat else volume, "YX" if flat else "ZYX", self.like.optics)


def _drawn(params: structures.Params, count: int) -> list[_Order]:
    """Return the orders of drawn pairs."""
    kind = params.structure
    like = Stack(np.empty((params.size, params.size), np.float32), "YX", structures.drawn_optics(params))

    def make(steps: Sequence[Step], seed: int, number: int) -> Pair:
        return structures.drawn_pair(params, steps, seed, kind, number)

    return [_Order(f"{kind}_{n:05d}", kind, partial(make, number=n), like) for n in range(count)]


def _of_images(files: Sequence[Path], stacks: Sequence[Stack], params: structures.Params) -> list[_Order]:
    """Return the orders of the pairs of images: every frame of each in all sets."""

    def make(steps: Sequence[Step], seed: int, frame: Frame, optics: Optics, name: str, number: int) -> Pair:
        return structures.distorted(np.asarray(frame), optics, steps, params, seed, name, number)

    orders = []
    for file, stack in zip(files, stacks, strict=True):
        optics = structures.optics_of(stack, params)
        like = replace(stack, optics=optics)
        for t, c, k in product(range(stack.size("T")), range(stack.size("C")), range(params.sets)):
            place = "".join(f"_{axis.lower()}{n}" for axis, n in (("T", t), ("C", c)) if stack.size(axis) > 1)
            name = f"{stem(file)}{place}"
            one = partial(make, frame=stack.frame(t, c), optics=optics, name=name, number=k)
            orders.append(_Order(f"{name}_set{k}", name, one, like))
    return orders


def _coarse(drawn: Drawn, optics: Optics) -> str:
    """Return a warning where pixels are too coarse for the objective that a pair was made with (Nyquist)."""
    na, wavelength, index = (drawn.get(f"convolve.{key}") for key in ("na", "wavelength", "index"))
    if drawn.get("convolve.kind") == "none" or drawn.get("convolve.file") or not na or not wavelength or not index:
        return ""
    limit = nyquist(na=float(na), wavelength_um=float(wavelength) / 1000, index=float(index))[1]
    size = max(optics.voxel_size[1] or 0.0, optics.voxel_size[2] or 0.0)
    if size <= limit:
        return ""
    return (
        f"pixels of {size:.4g} um are coarser than wavelength / (4 NA), {limit:.4g} um: they lose some of what this "
        "objective resolves"
    )


def _write_table(path: Path, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Write rows as CSV; numbers in as many digits as they have."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _value(text: str) -> float | str:
    """Return a number where a cell holds one: whole where it is written so."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text

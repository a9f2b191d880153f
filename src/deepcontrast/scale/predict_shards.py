"""A stack restored shard by shard, in the memory of a few shards, by whoever works on them.

Passes go over the whole stack, one after the other: a pass reads the one before, with the halo of the network, from the
partial folder, where it is kept in float32 until the next one is whole. The last pass is written in the result's
type at once; or the result is a blend of several passes, which are then all kept until it is made. That type, and the
offset and scale that a result may need, are decided before, from shards that are restored in float32 first: all of a
small stack, some of a large one. What is clipped is counted in every shard.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, reduce
from math import prod
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.atomic import write_json
from deepcontrast.brightness import Blend
from deepcontrast.errors import InputError
from deepcontrast.io import StackWriter, create_stack, open_writer
from deepcontrast.model import load_model
from deepcontrast.normalize import Norm
from deepcontrast.outputs import Counted, Encoding, choose, count
from deepcontrast.prediction import Done, Plan, Seam
from deepcontrast.progress import Event, Progress
from deepcontrast.scale.journal import Journal, Record, Shard, open_journal
from deepcontrast.scale.members import (
    Box,
    Member,
    left,
    merged,
    normed,
    open_members,
    restore,
    unmeasured,
    volumes_for,
)
from deepcontrast.scale.runners import Report, Run, Runner, Work, finish_shards
from deepcontrast.scale.shard_sizes import Lengths
from deepcontrast.stack import Frame, Stack
from deepcontrast.trust import area_beyond, verdict_of
from deepcontrast.valid import Survey

SAMPLE = 2**29
"""Voxels that are restored before the type of the result is decided."""

SPARE = 0.1
"""Share of the range of a sample that is left free at both ends, for the voxels that it does not know of."""


@dataclass(frozen=True, eq=False)
class Restoration:
    """What a worker must know to restore any shard of a stack; it can be pickled.

    Attributes:
        models: files of the models, which form one ensemble.
        open: opens the stack.
        surveys: of every time point and channel (t, c).
        iterations: how often the networks are applied.
        dtype: the result should be of, where its values fit.
        shift: whether the result has a place for an offset and a scale.
        compressed: whether the result is for others to read, with a pyramid, or for this run, once.
        plans: of the tiles, for each model.
        shard: voxels (z, y, x) of a shard.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        threads: of torch in each worker.
        folder: where passes and result lie.
        beside: names of the maps that are made of the last pass, see :func:`deepcontrast.scale.members.maps_of`.
        merged: whether the models are put together into one, which differ in their seeds.
        norms: with which norm of its own, if any, each model is applied to a time point and channel (t, c).
        blends: which passes the result is made of, of every time point and channel (t, c); by default the last.
    """

    models: tuple[Path, ...]
    open: Callable[[], Stack]
    surveys: Mapping[tuple[int, int], Survey]
    iterations: int
    dtype: str
    shift: bool
    compressed: bool
    plans: Sequence[Plan]
    shard: Lengths
    device: str
    threads: int
    folder: Path
    beside: tuple[str, ...] = ()
    merged: bool = False
    norms: Mapping[tuple[int, int], Sequence[Norm | None]] | None = None
    blends: Mapping[tuple[int, int], Blend] | None = None

    def __call__(self) -> Work:
        return _open_work(self)

    def at(self, k: int) -> Path:
        """Return where a pass lies, in float32; where it is the result, there is only a sample of the last one."""
        return self.folder / f"pass{k}.zarr"

    def keeps(self, k: int) -> bool:
        """Return whether the result is blended of a pass."""
        return any(k in blend.needed() for blend in (self.blends or {}).values())

    @property
    def result(self) -> Path:
        return self.folder / "result.ome.zarr"

    @property
    def maps(self) -> Mapping[str, Path]:
        """Where the maps beside the result lie, by their names."""
        return {name: self.folder / f"{name}.ome.zarr" for name in self.beside}

    @property
    def encoding(self) -> Path:
        """Where it is kept how the result is written, once that is decided."""
        return self.folder / "encoding.json"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A stack that was restored.

    Attributes:
        attributes: kept with the result.
        note: how it was written, in a sentence.
        seam: steps of the last pass where its tiles meet, per axis (Z, Y, X), beside those next to it; 1 where nothing
            shows, ``None`` where no tiles meet.
        errors: of a reduced precision, in sentences, as they were measured on the first tile of every shard.
        untrusted: share of the area where the networks disagree too much; ``None``: not known.
    """

    attributes: Mapping[str, float | str]
    note: str
    seam: tuple[float | None, float | None, float | None]
    errors: Sequence[str]
    untrusted: float | None = None

    def describe(self) -> list[str]:
        """Return it in lines for the user."""
        steps = ", ".join(f"{axis} {step:.3f}" for axis, step in zip("zyx", self.seam, strict=True) if step is not None)
        seam = (
            f"steps where tiles meet, beside the raw's (1 is none): {steps}"
            if steps
            else "no tiles meet within a shard: no seams"
        )
        verdict = [] if self.untrusted is None else [verdict_of(self.untrusted)]
        return [self.note, seam, *self.errors, *verdict]


def restore_stack(
    job: Restoration,
    runner: Runner,
    *,
    attributes: Mapping[str, float | str],
    progress: Progress,
) -> Outcome:
    """Restore the shards of a stack that an earlier run has not restored, and write them to ``job.result``.

    Args:
        job: what is restored.
        runner: who works.
        attributes: to be kept with the result.
        progress: gets events.

    Raises:
        InputError: a voxel is NaN or infinite.
        DeepContrastError: workers died again and again.
    """
    stack, last = job.open(), job.iterations
    with open_journal(job.folder / "journal") as journal, runner.open(job) as run:
        for k in range(1, last + 1):
            writer = _writer(job.at(k), stack, np.dtype(np.float32), job.shard, compressed=False)
            everything, some = range(len(writer.shards)), sampled(writer)
            is_result = k == last and job.blends is None
            if k == last and len(journal.of("write")) < len(everything):
                # Where all is written they may have been finished, and moved to where they belong.
                for path in job.maps.values():
                    _writer(path, stack, np.dtype(np.float32), job.shard, compressed=job.compressed)
            _do(run, journal, f"pass {k}", some if is_result else everything, f"predict {k}/{last}", progress)
            if k > 1 and not is_result and not job.keeps(k - 1):
                _remove(job.at(k - 1))
        if job.blends is not None:
            _do(run, journal, "sample", some, "blend", progress)
        sample = journal.of(f"pass {last}")
        judged = sample if job.blends is None else journal.of("sample")
        encoding = _decide(job, judged.values(), len(everything))
        seam = reduce(add, (Seam(**record["seam"]) for record in sample.values())).ratio()
        kept = {**attributes, **encoding.attributes, "seam": json.dumps(dict(zip("zyx", seam, strict=True)))}
        write_json(job.encoding, {**asdict(encoding), "dtype": encoding.dtype.name})
        if len(journal.of("write")) < len(everything):
            _writer(job.result, stack, encoding.dtype, job.shard, attributes=kept, compressed=job.compressed)
            _do(run, journal, "write", everything, "write", progress)
        written = journal.of("write")
    if job.compressed:
        for path in (*job.maps.values(), job.result):
            # Where it is no more to be written, the run before was stopped just after.
            with suppress(InputError):
                if path.exists():
                    open_writer(path).finish()
    restored, note = {**written, **sample}, encoding.note
    if len(judged) < len(everything):
        clipped = sum(record["clipped"] for record in written.values()) / prod(stack.shape)
        note += f" (judged by {len(judged)} of {len(everything)} shards); {clipped:.2%} of all voxels were clipped"
    return Outcome(
        attributes=kept,
        note=note,
        seam=reduce(add, (Seam(**restored[i]["seam"]) for i in everything)).ratio(),
        errors=sorted({error for record in restored.values() for error in record["errors"]}),
        untrusted=_untrusted(restored.values()),
    )


def _untrusted(records: Collection[Record]) -> float | None:
    """Return the share of the area of all shards where the networks disagree too much; ``None``: not known."""
    if not all("area" in record for record in records):
        return None
    beyond, known = (sum(record["area"][n] for record in records) for n in (0, 1))
    return beyond / known if known else None


def space(stack: Stack, iterations: int, dtype: np.dtype[Any], *, copied: bool, kept: int = 0, maps: int = 0) -> int:
    """Return the bytes on disk that a restoration takes at most.

    Args:
        stack: what is restored.
        iterations: how often.
        dtype: of the result.
        copied: whether the result is written once more, into another container.
        kept: passes that the result is blended of.
        maps: how many there are beside the result.
    """
    voxels = prod(stack.shape)
    # A pass and the one before, or the one before the last and the sample, or what is blended and one more; the result.
    passes = voxels * (kept + 1) if kept else voxels * min(iterations - 1, 2) + min(voxels, SAMPLE)
    results = dtype.itemsize + 4 * maps
    return 4 * passes + voxels * results * (1 + copied)


def sampled(writer: StackWriter) -> Sequence[int]:
    """Return the shards that the type of the result is decided by: all, or as many as hold ``SAMPLE`` voxels."""
    count, voxels = len(writer.shards), prod(writer.array.shape)
    wanted = max(1, count * SAMPLE // max(voxels, SAMPLE))
    # Drawn: any regular spacing could fall into step with the channels.
    return sorted(np.random.default_rng(0).choice(count, wanted, replace=False).tolist())


def place(axes: str, box: Sequence[slice]) -> tuple[int, int, Box]:
    """Return time point, channel and box (Z, Y, X) of a shard of a stack."""
    of = dict(zip(axes, box, strict=True))
    t, c = (of[axis].start if axis in of else 0 for axis in "TC")
    return t, c, (of.get("Z", slice(0, 1)), of["Y"], of["X"])


def _do(run: Run, journal: Journal, stage: str, indices: Sequence[int], label: str, progress: Progress) -> None:
    """Do the shards of a stage that are not done; events tell percent."""

    def tell(shares: Mapping[Shard, float]) -> None:
        done = len(journal.of(stage))
        share = (done + sum(shares.values())) / len(indices)
        # A shard is done when it is in the journal.
        percent = 100 if done == len(indices) else min(99, int(100 * share))
        progress(Event(label, percent, 100, {"shards": f"{done}/{len(indices)}"}))

    tell({})
    finish_shards(run, [(stage, i) for i in indices], journal, tell)


def _writer(path: Path, like: Stack, dtype: np.dtype[Any], shard: Lengths, **options: Any) -> StackWriter:
    """Go on writing what an earlier run began, or begin."""
    return open_writer(path) if path.exists() else create_stack(path, like, dtype=dtype, shard=shard, **options)


def _decide(job: Restoration, sample: Collection[Record], shards: int) -> Encoding:
    """Return how the result is written, judged by a sample of its shards."""
    dtype = np.dtype(job.dtype)
    if dtype.kind not in "iu":
        return Encoding(dtype, f"written as {dtype.name}; nothing was clipped")
    levels = reduce(add, (Counted(**record["levels"]) for record in sample))
    if len(sample) < shards:
        spare = SPARE * (levels.highest - levels.lowest)
        levels = replace(levels, lowest=levels.lowest - spare, highest=levels.highest + spare)
    found = choose(levels, dtype)
    if found.attributes and not job.shift:
        note = f"written as float32: there is no place for the offset and scale that {found.dtype.name} would need"
        return Encoding(np.dtype(np.float32), note)
    return found


def _levels(image: NDArray[np.float32], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return what decides how a result of an integer type is written."""
    return {"levels": asdict(count(image, dtype))} if dtype.kind in "iu" else {}


def _encoding(path: Path) -> Encoding:
    table = json.loads(path.read_text(encoding="utf-8"))
    return Encoding(**{**table, "dtype": np.dtype(table["dtype"])})


def _remove(path: Path) -> None:
    """Remove a pass so that half of it is never taken for one."""
    left = path.with_suffix(".tmp")
    if path.exists():
        shutil.rmtree(left, ignore_errors=True)
        path.rename(left)
        shutil.rmtree(left, ignore_errors=True)


def _open_work(job: Restoration) -> Work:
    """Open the stack and the models, in the process that will do shards of them."""
    torch.set_num_threads(job.threads)
    stack, last = job.open(), job.iterations
    models = [load_model(path) for path in job.models]
    models = [merged(models)] if job.merged else models
    task: Any = registry.load("tasks", models[0].task)
    writer, encoding = cache(open_writer), cache(_encoding)
    opened = cache(lambda c: open_members(task, models, c, job.device))

    def members(t: int, c: int) -> Sequence[Member]:
        if job.norms is None:
            return opened(c)
        return normed(task, opened(c), [job.norms[t, n] for n in range(stack.size("C"))], c)

    def restored(k: int, index: int, report: Report) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return a shard of a pass, and how it was made; the maps of the last pass are written."""
        box = writer(job.at(k)).shards[index]
        t, c, zyx = place(stack.axes, box)
        if k == 1:
            _check(stack.frame(t, c), zyx, stack.source)
        before = stack if k == 1 else Stack(writer(job.at(k - 1)).array, stack.axes)

        def volume(member: Member, n: int) -> Any:
            frame = before.frame(t, n)
            return task.cleaned(frame, member.fit, job.surveys[t, n]) if k == 1 else frame

        volumes = volumes_for(task, members(t, c), c, volume)
        maps, done = restore(
            task, members(t, c), volumes, box=zyx, plans=job.plans, device=job.device, report=report,
            beside=job.beside if k == last else (),
        )  # fmt: skip
        image, shape = maps["mean"], [part.stop - part.start for part in box]
        if k == last:
            hole = holes(t, c, zyx)
            image = put_back(image, hole, t, c, zyx)
            for name, path in job.maps.items():
                if hole is not None:
                    maps[name][hole] = np.nan
                writer(path).write(index, maps[name].reshape(shape))
        record = _record(done)
        too_much = members(t, c)[0].too_much if "disagreement" in maps else None
        if too_much is not None:
            record["area"] = area_beyond(maps["disagreement"], too_much)
        return image.reshape(shape), record

    def blended(box: Sequence[slice]) -> NDArray[np.float32]:
        t, c, zyx = place(stack.axes, box)
        blend = (job.blends or {})[t, c]
        passes = {k: Stack(writer(job.at(k)).array, stack.axes).frame(t, c)[zyx] for k in blend.needed(zyx[0])}
        image = np.empty([part.stop - part.start for part in zyx], np.float32)
        blend.write(passes, image, zyx[0])
        return put_back(image, holes(t, c, zyx), t, c, zyx).reshape([part.stop - part.start for part in box])

    def holes(t: int, c: int, zyx: Box) -> NDArray[np.bool_] | None:
        return unmeasured(task, members(t, c), stack, job.surveys, t, c, zyx)

    def put_back(
        image: NDArray[np.float32], hole: NDArray[np.bool_] | None, t: int, c: int, zyx: Box
    ) -> NDArray[np.float32]:
        if hole is not None:
            image[hole] = left(task, members(t, c), stack.frame(t, c)[zyx][hole])
        return image

    def work(shard: Shard, report: Report) -> Record:
        stage, index = shard
        if stage == "sample":
            return _levels(blended(writer(job.at(last)).shards[index]), np.dtype(job.dtype))
        if stage == "write":
            result, sample = writer(job.result), writer(job.at(last))
            box = result.shards[index]
            if job.blends is not None:
                image, how = blended(box), dict[str, Any]()
            elif index in sampled(sample):
                image, how = np.asarray(sample.array[box]), {}
            else:
                image, how = restored(last, index, report)
            result.write(index, encoding(job.encoding).encode(image))
            return {**how, "clipped": encoding(job.encoding).clipped(image)}
        k = int(stage.removeprefix("pass "))
        image, how = restored(k, index, report)
        writer(job.at(k)).write(index, image)
        return {**how, **_levels(image, np.dtype(job.dtype))} if k == last else how

    return work


def _check(raw: Frame, box: Box, source: str) -> None:
    """Refuse what a survey of a part of the planes may have passed over.

    Raises:
        InputError: a voxel is NaN or infinite.
    """
    if raw.dtype.kind == "f" and not np.isfinite(raw[box]).all():
        raise InputError(f"'{source}' has voxels that are NaN or infinite; replace them first")


def _record(done: Sequence[Done]) -> dict[str, Any]:
    """Return what is to be known of a shard later, in plain numbers."""
    return {
        "seam": asdict(reduce(add, (one.seam for one in done))),
        "seconds": [asdict(one.seconds) for one in done],
        "errors": [one.error.describe() for one in done if one.error],
    }

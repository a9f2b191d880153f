"""One pass of the networks over a volume: tiles are read, computed and written at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.compute import heap
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.flattened import planes_in
from deepcontrast.prediction.ensemble import Ensemble, Lane, beating, mark
from deepcontrast.prediction.pipeline import Seconds, stream
from deepcontrast.prediction.plan import AHEAD, Plan, make_plan
from deepcontrast.prediction.precision_error import PrecisionError
from deepcontrast.prediction.seam import Border, Face, Seam, SeamMeter, faces
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.task import Geometry, Task
from deepcontrast.tiles import Lengths, Slices, Tile, halved, layout, split, tiles
from deepcontrast.uncertainty import MAPS

SHORT = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed", "int_max", "32-bit index")
"""What torch says in a plain RuntimeError when memory is short, or a GPU's kernel cannot count a tile's voxels."""


Faces = dict[Border, Face]


class Readable(Protocol):
    """A volume (Z, Y, X) that is read where it is sliced: an array, a memory map, a zarr array, a frame, channels."""

    @property
    def shape(self) -> Lengths:
        """Its lengths."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a box, of several channels (C, Z, Y, X)."""


class Writable(Protocol):
    """A volume (Z, Y, X) that takes boxes."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Put a box in its place."""


@dataclass(frozen=True)
class Done:
    """What a pass over a volume, or a box of it, was.

    Attributes:
        plan: as it was at the end; its ``core`` is smaller than planned where memory did not suffice.
        seam: whether the result shows where its tiles meet.
        seconds: that reading, computing and writing were at work; they overlap, but for the reading of a box.
        error: of a reduced precision, measured in the middle of the first tile; ``None`` in float32.
        overflowed: tiles that exceeded float16 and were computed in float32.
    """

    plan: Plan
    seam: Seam
    seconds: Seconds
    error: PrecisionError | None
    overflowed: int


def predict_pass(
    task: Task,
    nets: Sequence[nn.Module],
    volume: Readable,
    fit: Any,
    config: Config,
    *,
    out: Writable,
    beside: Mapping[str, Writable] | None = None,
    box: Slices | None = None,
    plan: Plan | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    stage: str = "predict",
) -> Done:
    """Apply the networks once to a volume (Z, Y, X) in grey levels and write their mean into ``out``.

    Tiles are cut with the halo computed from the network, so that tiled equals whole to 1e-5 in float32. A
    volume is extended by mirroring, at its far ends to a multiple of the network's step and all around by one step
    more (:func:`deepcontrast.tiles.rim`), at its first and last plane by the network's context. Where memory does not
    suffice after all, tiles become smaller and the pass goes on from those that are written.

    Args:
        task: what is restored.
        nets: the networks of the ensemble, on the device.
        volume: the whole of it; read by another thread.
        fit: numbers of the channel.
        config: the settings.
        out: takes the result, in float32; written by another thread.
        beside: take what else there is to know of the result, by their names: what the task gives beside the mean, and
            of networks that predict a scale :data:`deepcontrast.uncertainty.MAPS`.
        box: the part that is asked for, of which ``out`` has the shape; by default the whole. It is read once, with
            the halo, before the first tile is computed. With the same plan a voxel is the same whatever box it is asked
            for in.
        plan: how; by default :func:`make_plan` decides.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets an event per tile, and a few a second within long ones.
        stage: its name in these events.

    Raises:
        InputError: not even the smallest tile fits the memory.
    """
    shape = tuple(int(n) for n in volume.shape)
    outs = {"mean": out, **(beside or {})}
    if plan is None:
        plan = make_plan(
            task, nets, shape, fit, config, device=device, maps=list(beside or ()), planes=planes_in(volume)
        )
    geometry = task.geometry(nets[0], fit, config)
    halo, step = geometry.halo, geometry.step
    inside = box or tuple(slice(0, n) for n in shape)
    todo = list(tiles(shape, plan.core, halo, step, block=plan.block, box=inside))
    context = geometry.context
    source = volume if box is None else _Once(volume, _around([_seen(tile.read, context) for tile in todo], shape))
    done, total = 0, len(todo)
    meter, seconds = SeamMeter(), Seconds()
    reading, writing = Lane(device), Lane(device)
    uncertain = bool(set(MAPS).intersection(outs))
    ensemble = Ensemble(
        task, nets, fit, config,
        device=device, precision=plan.precision, compiled=plan.compiled, uncertain=uncertain, progress=progress,
    )  # fmt: skip

    def read(tile: Tile) -> tuple[Faces, Tensor]:
        piece = _read(source, _seen(tile.read, context))
        own = piece if piece.ndim == 3 else piece.max(0) if geometry.channels == 1 else piece[0]
        return faces(tile.write, own[context : len(own) - context][tile.crop]), reading.upload(piece)

    def compute(tile: Tile, piece: tuple[Faces, Tensor]) -> tuple[Faces, dict[str, Tensor], Any]:
        raw, there = piece
        found = ensemble.restore(there)
        return raw, {name: found[name][tile.crop].contiguous() for name in outs}, mark(there)

    def write(tile: Tile, piece: tuple[Faces, dict[str, Tensor], Any]) -> None:
        raw, there, ready = piece
        place = tuple(slice(w.start - b.start, w.stop - b.start) for w, b in zip(tile.write, inside, strict=True))
        for name, one in there.items():
            result = writing.download(one, ready)
            outs[name][place] = result
            if name == "mean":
                meter.add(faces(tile.write, result), raw)

    def beat() -> None:
        progress(Event(stage, done, total))

    def finished() -> None:
        nonlocal done
        done += 1
        beat()

    keeping = heap.kept() if device == "cpu" else nullcontext()
    with keeping, nullcontext() if plan.compiled else beating(nets, beat):
        while todo:
            before = done
            short = _unless_short(
                partial(stream, todo, read, compute, write, finished, beat, ahead=AHEAD, seconds=seconds)
            )
            todo = todo[done - before :]
            if short:
                plan = _smaller(plan, shape, geometry)
                todo = [part for tile in todo for part in split(tile, plan.core, shape, halo, step)]
                total = done + len(todo)
                progress(Event(stage, values={"message": f"{short}; goes on in smaller tiles: {plan.describe()}"}))
    return Done(plan, meter.seam(), seconds, ensemble.error, ensemble.overflowed)


def predict_apart(
    task: Task,
    nets: Sequence[nn.Module],
    volume: Readable,
    fit: Any,
    config: Config,
    *,
    box: Slices | None = None,
    plan: Plan | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and scale (M, Z, Y, X) that each network predicts by itself; see :func:`predict_pass`."""
    shape = [int(n) for n in volume.shape] if box is None else [part.stop - part.start for part in box]
    means, scales = (np.empty((len(nets), *shape), np.float32) for _ in range(2))
    for net, mean, scale in zip(nets, means, scales, strict=True):
        predict_pass(
            task, [net], volume, fit, config, out=mean, beside={"scale": scale}, box=box, plan=plan, device=device
        )
    return means, scales


def _unless_short(work: Callable[[], None]) -> str:
    """Do some work and return an empty string, or in what words memory ran out."""
    try:
        work()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in SHORT):
            raise
        # The error itself would keep the tiles of its frames alive.
        said = "memory ran out"
    else:
        return ""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return said


def _smaller(plan: Plan, shape: Lengths, geometry: Geometry) -> Plan:
    """Return the plan with half the batch, or where that is one, half the tile.

    Raises:
        InputError: the tile is the smallest already.
    """
    core = halved(plan.core, geometry.step, geometry.halo)
    if core is None:
        raise InputError(
            "memory ran out with the smallest tile; free some memory, use another --device, or train a network with "
            "fewer features (net.features) or levels (net.depth)"
        )
    found = layout(shape, core, geometry.halo, geometry.step, block=plan.block)
    peak = int(plan.peak * prod(found.read) / prod(plan.read))
    return replace(plan, core=core, read=found.read, tiles=found.tiles, work=found.work, peak=peak)


class _Once:
    """A volume of which a box is read once, when it is first asked for: chunks of a file are larger than tiles.

    Where the box does not fit the memory, tiles are read one by one.
    """

    def __init__(self, volume: Readable, box: Slices) -> None:
        self.shape, self._volume, self._box = volume.shape, volume, box
        self._kept: NDArray[Any] | None = None

    def __getitem__(self, key: Slices) -> NDArray[Any]:
        """Return a part of the box."""
        if self._kept is None:
            try:
                self._kept = np.asarray(self._volume[self._box])
            except MemoryError:
                return np.asarray(self._volume[key])
        z, y, x = (slice(k.start - b.start, k.stop - b.start) for k, b in zip(key, self._box, strict=True))
        return self._kept[..., z, y, x]


def _seen(box: Slices, context: int) -> Slices:
    """Return a box with the planes above and below that the network is given too."""
    return slice(box[0].start - context, box[0].stop + context), *box[1:]


def _around(boxes: Sequence[Slices], shape: Sequence[int]) -> Slices:
    """Return what lies in the volume of the box around some."""
    return tuple(
        slice(max(0, min(part.start for part in along)), min(n, max(part.stop for part in along)))
        for along, n in zip(zip(*boxes, strict=True), shape, strict=True)
    )


def _read(volume: Readable, box: Slices) -> NDArray[np.float32]:
    """Return a box that may reach beyond the ends of the volume, where it is mirrored."""
    inside = tuple(slice(max(0, b.start), min(b.stop, n)) for b, n in zip(box, volume.shape, strict=True))
    piece = np.array(volume[inside], dtype=np.float32)
    over = [(0, 0)] * (piece.ndim - 3)
    over += [(i.start - b.start, b.stop - i.stop) for b, i in zip(box, inside, strict=True)]
    return np.pad(piece, over, mode="reflect") if any(map(any, over)) else piece

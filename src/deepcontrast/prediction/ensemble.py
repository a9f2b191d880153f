"""The networks of one model at work on a device: one tile in, what they say of it together out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.compute.precision import rounding
from deepcontrast.config import Config
from deepcontrast.prediction.plan import cube
from deepcontrast.prediction.precision_error import PrecisionError, precision_error
from deepcontrast.progress import Event, Progress
from deepcontrast.task import Task
from deepcontrast.uncertainty import mixture

JUDGED = 2**15
"""Voxels of the part of a tile that the error of a reduced precision is measured on."""

BEAT = 0.25
"""Seconds between two signs of life, at least."""


TURNS = ((0, False), (2, False), (0, True), (2, True), (1, False), (3, False), (1, True), (3, True))
"""The orientations of a plane: quarter turns, and whether it is mirrored along X before; first those of one shape."""


class Ensemble:
    """Restores tiles (Z, Y, X), or (C, Z, Y, X), in grey levels, as planned, and says what it could not do as planned.

    Attributes:
        error: of the reduced precision, measured in the middle of the first tile; ``None`` in float32.
        overflowed: tiles that exceeded float16 and were computed again in float32.
    """

    def __init__(
        self,
        task: Task,
        nets: Sequence[nn.Module],
        fit: Any,
        config: Config,
        *,
        device: str,
        precision: str,
        compiled: bool,
        uncertain: bool,
        progress: Progress,
    ) -> None:
        self.error: PrecisionError | None = None
        self.overflowed = 0
        self._task, self._nets, self._fit, self._config = task, nets, fit, config
        self._device, self._precision, self._progress = device, precision, progress
        self._uncertain = uncertain
        self._fast: Sequence[nn.Module] = [cast(nn.Module, torch.compile(net)) for net in nets] if compiled else nets

    def restore(self, tile: Tensor) -> Mapping[str, Tensor]:
        """Return ``"mean"`` of a tile, on the device, and what the task gives beside it.

        Where they are wanted, also the maps of ``uncertainty.MAPS``.
        """
        if self._precision == "float32":
            return self._maps(tile, "float32", fast=True)
        found = self._maps(tile, self._precision, fast=True)
        # bfloat16 reaches as far as float32.
        if self._precision == "float16" and not all(bool(one.isfinite().all()) for one in found.values()):
            self.overflowed += 1
            return self._maps(tile, "float32")
        if self.error is None:
            part = self._middle(tile)
            reduced, exact = (self._maps(part, precision)["mean"] for precision in (self._precision, "float32"))
            self.error = precision_error(self._precision, reduced, exact)
            self._progress(Event("precision", values={"message": self.error.describe()}))
        return found

    def _middle(self, tile: Tensor) -> Tensor:
        """Return the middle of a tile, small enough that computing it twice more costs nothing."""
        geometry = self._task.geometry(self._nets[0], self._fit, self._config)
        planes, *field = cube(geometry, JUDGED)
        shape = tile.shape[-3:]
        sides = [min(n, side) for n, side in zip(shape, (planes + 2 * geometry.context, *field), strict=True)]
        first = [(n - side) // 2 for n, side in zip(shape, sides, strict=True)]
        z, y, x = (slice(low, low + side) for low, side in zip(first, sides, strict=True))
        return tile[..., z, y, x]

    def _maps(self, tile: Tensor, precision: str, *, fast: bool = False) -> Mapping[str, Tensor]:
        with torch.inference_mode(), rounding(self._device, precision):
            ways = TURNS[: self._config.predict.orientations]
            if not self._uncertain:
                every = (self._one(n, tile, way, fast) for n in range(len(self._nets)) for way in ways)
                return _means(_but_scale(one) for one in every)
            members = [_means(self._one(n, tile, way, fast) for way in ways) for n in range(len(self._nets))]
            means, scales = (torch.stack([one[name] for one in members]) for name in ("mean", "scale"))
            beside = _means(_but_scale(one) for one in members)
            return {**beside, **mixture(means, scales, self._task.bounds(self._fit))}

    def _one(self, n: int, tile: Tensor, way: tuple[int, bool], fast: bool) -> dict[str, Tensor]:
        """Return what one network makes of a tile in one orientation."""
        seen = turned(tile, *way)
        return {name: turned_back(one, *way) for name, one in self._applied(n, seen, fast).items()}

    def _applied(self, n: int, tile: Tensor, fast: bool) -> dict[str, Tensor]:
        if fast and self._fast is not self._nets:
            try:
                return self._task.restore(self._fast[n], tile, self._fit, self._config)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                # Compilers fail in many ways; the network works without.
                self._fast = self._nets
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self._progress(Event("compile", values={"message": f"goes on without compiling: {reason}"}))
        return self._task.restore(self._nets[n], tile, self._fit, self._config)


def _but_scale(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in maps.items() if name != "scale"}


def _means(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means of maps that are made one after the other."""
    rest = iter(parts)
    total, count = dict(next(rest)), 1
    for part in rest:
        total, count = {name: one + part[name] for name, one in total.items()}, count + 1
    return {name: one / count for name, one in total.items()} if count > 1 else total


def turned(tile: Tensor, quarters: int, mirrored: bool) -> Tensor:
    """Return the planes of a tile (..., Y, X) in another orientation."""
    tile = tile.flip(-1) if mirrored else tile
    return torch.rot90(tile, quarters, (-2, -1)).contiguous() if quarters else tile


def turned_back(tile: Tensor, quarters: int, mirrored: bool) -> Tensor:
    """Return the planes of a tile as they were before :func:`turned`."""
    tile = torch.rot90(tile, -quarters, (-2, -1)) if quarters else tile
    return tile.flip(-1) if mirrored else tile


@contextmanager
def beating(nets: Sequence[nn.Module], beat: Callable[[], None]) -> Iterator[None]:
    """Call ``beat`` a few times a second while networks compute, between two of their layers; it may raise."""
    last = time.monotonic()

    def on_layer(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > BEAT:
            last = time.monotonic()
            beat()

    hooks = [layer.register_forward_pre_hook(on_layer) for net in nets for layer in net.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Lane:
    """Copies to and from a device, on a stream of its own where there is one, so that it computes meanwhile.

    Every method waits until its copy is there: it is made for a thread that does nothing else.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = None if self._device.type != "cuda" else torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def upload(self, tile: NDArray[np.float32]) -> Tensor:
        """Return a tile on the device."""
        host = torch.from_numpy(tile)
        if self._stream is None:
            return host.to(self._device)
        with torch.cuda.stream(self._stream):
            there = host.pin_memory().to(self._device, non_blocking=True)
        self._stream.synchronize()
        return there

    def download(self, result: Tensor, ready: Any) -> NDArray[np.float32]:
        """Return a result in the processor's memory; ``ready`` is what :func:`mark` gave when it was computed."""
        if self._stream is None:
            return result.cpu().numpy()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            here = result.to("cpu", non_blocking=True)
        self._stream.synchronize()
        return here.numpy()


def mark(tile: Tensor) -> Any:
    """Return a mark in the device's work so far that a copy can wait for; the tile is in use until then."""
    if tile.device.type != "cuda":
        return None
    tile.record_stream(torch.cuda.current_stream(tile.device))
    return torch.cuda.current_stream(tile.device).record_event()

"""What the main job gives: every stack enhanced, and all that was decided and measured on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.brightness import Brightness
from deepcontrast.equalise import Equalisation, equalise
from deepcontrast.errors import InputError
from deepcontrast.evaluation import Fidelity, Row
from deepcontrast.excerpt import Excerpt
from deepcontrast.model import Model
from deepcontrast.progress import Progress, silent
from deepcontrast.select import Choice
from deepcontrast.stack import Stack
from deepcontrast.task import Source

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Restored:
    """One time point of one channel, enhanced.

    Attributes:
        source: what was enhanced: a stack's volume, or that of its excerpt.
        passes: raw, then k = 1 .. K (Z, Y, X), grey levels, float32; maps of files in the working folder.
        enhanced: the chosen iterations in the raw's brightness, empty and saturated voxels as they were.
        chosen: k of every plane (Z,); between whole numbers a mixture.
        fidelity: whether it is still the raw's, per fifth of the depth.
        band_pass: the same for a Gaussian band-pass, for comparison.
        map: where structure was lost (+) and added (-) (Z, Y, X), in standard deviations of the raw's noise.
        rows: its part of metrics.json.
    """

    source: Source
    passes: tuple[Volume, ...]
    enhanced: Volume
    chosen: NDArray[np.float64]
    fidelity: tuple[Fidelity, ...]
    band_pass: tuple[Fidelity, ...]
    map: Volume
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Enhanced:
    """What :func:`enhance` gives.

    Attributes:
        stacks: the inputs, with the surface that was found or given.
        why_surface: the reason, per stack.
        model: trained, or the one that was given.
        fits: the numbers of every channel.
        histories: training curves of every channel's first network; empty where a model was given.
        choices: k by depth, of every channel.
        brightness: of the passes, of every channel.
        excerpts: what was looked at of every stack; ``None`` where it was the whole.
        restored: of every stack, or its excerpt, the channels, each its time points.
        equalised: how the planes of every stack's channels are multiplied when they are written; empty where they
            are not.
    """

    stacks: tuple[Stack, ...]
    why_surface: tuple[str, ...]
    model: Model
    fits: tuple[Any, ...]
    histories: tuple[Mapping[str, Sequence[float]], ...]
    choices: tuple[Choice, ...]
    brightness: tuple[Brightness, ...]
    excerpts: tuple[Excerpt | None, ...]
    restored: tuple[tuple[tuple[Restored, ...], ...], ...]
    equalised: tuple[tuple[Equalisation, ...], ...] = ()

    def equalise(self, progress: Progress = silent) -> Enhanced:
        """Return the same, to be written with the structures of every stack and channel equally bright at all depths.

        All time points of a channel take the factors of the first. What was measured is that of the result before.
        """
        found = []
        for channels in self.restored:
            of_stack = []
            for (one, *_), fit in zip(channels, self.fits, strict=True):
                camera, source = fit.camera, one.source
                of_stack.append(
                    equalise(
                        one.enhanced,
                        one.passes[0],
                        source.depth,
                        gain=camera.gain,
                        intercept=camera.intercept,
                        offset=fit.norm.offset,
                        valid=source.invalid.valid,
                        progress=progress,
                    )
                )
            found.append(tuple(of_stack))
        return replace(self, equalised=tuple(found))

    def image(self, index: int = 0) -> Stack:
        """Return an enhanced stack in float32, with the axes of its input, equalised where that was asked for.

        Raises:
            InputError: it is larger than the memory.
        """
        if self.excerpts[index] is not None:
            raise InputError(f"'{self.stacks[index].source}' is larger than the memory; its passes are made in shards")
        return self._stack(index, lambda one: self._written(index, one))

    def map(self, index: int = 0) -> Stack:
        """Return where structure was lost (+) and added (-), in standard deviations of the raw's noise.

        Of a stack that is larger than the memory, it is that of the excerpt.
        """
        return self._stack(index, lambda one: one.map)

    def _written(self, index: int, one: Restored) -> Volume:
        if not self.equalised:
            return one.enhanced
        source = one.source
        return self.equalised[index][source.c].apply(one.enhanced, source.depth, source.invalid.valid)

    def _stack(self, index: int, volume: Callable[[Restored], Volume]) -> Stack:
        part = self.excerpts[index]
        stack = self.stacks[index] if part is None else part.stack
        out = np.empty(stack.shape, np.float32)
        for channels in self.restored[index]:
            for one in channels:
                out[stack.index(one.source.t, one.source.c)] = volume(one)
        return replace(stack, array=out)

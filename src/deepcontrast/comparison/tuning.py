"""A baseline applied as a user would, and with the settings that suit the truth best, within a budget of seconds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.baselines import Scene
from deepcontrast.comparison.cost import PROBE, Box, fitting, measured, size, window
from deepcontrast.progress import Progress, silent
from deepcontrast.report.compare_data import ON_TRUTH

Volume = NDArray[np.float32]
Judge = Callable[[Volume, Box], float]
"""From a result and where it lies in the stack to how well it agrees with the truth: more is better."""

AS_A_USER = "as a user would"


@dataclass(frozen=True, eq=False)
class Applied:
    """One method with one set of settings.

    Attributes:
        k: passes, of a method that is iterated.
        tuned: ``AS_A_USER`` or ``ON_TRUTH``.
        parameters: the settings in words.
        volume: the result, of ``region``.
        region: of the stack; less than all of it for a slow method.
        seconds, peak_mb: what it cost.
    """

    k: float | None
    tuned: str
    parameters: str
    volume: Volume
    region: Box
    seconds: float
    peak_mb: float | None


def apply(
    name: str,
    volume: Volume,
    scene: Scene,
    *,
    judge: Judge | None = None,
    budget: float,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> Iterator[Applied]:
    """Yield a baseline's results: as a user would tune it, then, where it can be judged, tuned on the truth.

    A method that is trained on the stack (its module has ``passes``) yields every pass, and is never cut to a
    crop, which would leave most of its time as it is; the best of its passes is the one tuned on the truth.
    All others are timed on a small window first, and cut to what the budget allows. The settings for the truth
    are tried out on as much of the stack as the budget allows for all of them together.

    Args:
        name: in the registry.
        volume: the raw (Z, Y, X) without camera pattern.
        scene: what the user knows.
        judge: of results; ``None`` where there is no truth.
        budget: in seconds, for one set of settings and for the trials together.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``, for those that use one.
        seed: for those that draw random numbers.
        progress: gets the events of those that have any; may raise Cancelled.

    Raises:
        InputError: the method does not work here: a package that is not installed, optics that are not known.
    """
    module = registry.module("baselines", name)
    settings: dict[str, Any] = dict(module.suggested(scene))
    if hasattr(module, "passes"):
        yield from _iterated(module.passes, volume, settings, judge, _technical(module.passes, device, seed, progress))
        return
    function = registry.load("baselines", name)
    fixed = _technical(function, device, seed, progress)

    def run(box: Box, changed: Mapping[str, Any], tuned: str = AS_A_USER) -> Applied:
        result, cost = measured(lambda: function(volume[box], **{**settings, **changed}, **fixed))
        return Applied(None, tuned, in_words({**settings, **changed}), np.asarray(result), box, *cost)

    used, side = _within(volume.shape, budget, lambda box: run(box, {}))
    note = getattr(module, "NOTE", "")
    yield replace(used, parameters="; ".join(filter(None, (used.parameters, note))))
    if judge:
        # The user's own settings are among them: where they are tried, what is tuned agrees at least as well.
        choices: list[Mapping[str, Any]] = [{}, *(choice for choice in module.CHOICES if choice)]
        rate = (used.seconds, used.volume.size)
        trial = window(volume.shape, min(side, fitting(volume.shape, budget / len(choices), rate, rate)))
        scores = [judge(run(trial, choice).volume, trial) for choice in choices]
        best = choices[int(np.argmax(scores))]
        tuned = run(used.region, best, ON_TRUTH) if best else replace(used, tuned=ON_TRUTH)
        tried = "" if trial == used.region else f"; tuned on the middle {size(trial)[1]} x {size(trial)[2]} px"
        yield replace(tuned, parameters=tuned.parameters + tried)


def _iterated(
    passes: Callable[..., tuple[Volume, ...]],
    volume: Volume,
    settings: Mapping[str, Any],
    judge: Judge | None,
    fixed: Mapping[str, Any],
) -> Iterator[Applied]:
    given = {key: value for key, value in settings.items() if key != "iterations"}
    results, cost = measured(lambda: passes(volume, **given, **fixed))
    everything = window(volume.shape, max(volume.shape))
    made = [
        Applied(float(k), AS_A_USER, in_words({**given, "iterations": k}), result, everything, *cost)
        for k, result in enumerate(results, 1)
    ]
    yield from made
    if judge:
        best = max(made, key=lambda one: judge(one.volume, one.region))
        yield Applied(best.k, ON_TRUTH, best.parameters, best.volume, everything, *cost)


def _within(shape: tuple[int, ...], budget: float, run: Callable[[Box], Applied]) -> tuple[Applied, int]:
    """Return the result on the largest window that fits the budget, and the side of that window."""
    planes, longest = shape[0], max(shape[1:])
    whole = int(np.prod(shape))
    if longest <= PROBE:
        return run(window(shape, longest)), longest
    small = run(window(shape, PROBE))
    rate = (small.seconds, small.volume.size)
    side = fitting(shape, budget, rate, rate)
    twice = window(shape, 2 * PROBE)
    voxels = planes * size(twice)[1] * size(twice)[2]
    # The first call may have loaded or compiled something; a second window tells that part from the rest.
    if side < longest and voxels < whole and small.seconds * voxels / small.volume.size <= budget:
        large = run(twice)
        side = fitting(shape, budget, rate, (large.seconds, large.volume.size))
        if side == 2 * PROBE:
            return large, side
    return (small if side == PROBE else run(window(shape, side))), side


def _technical(function: Callable[..., Any], device: str, seed: int, progress: Progress) -> dict[str, Any]:
    """Return those of device, seed and progress that a function takes."""
    offered = {"device": device, "seed": seed, "progress": progress}
    return {name: value for name, value in offered.items() if name in inspect.signature(function).parameters}


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings as a table says them."""

    def word(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"{' x '.join(map(str, value.shape))} array"
        if isinstance(value, (tuple, list)):
            return " x ".join(map(word, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {word(value)}" for name, value in settings.items())

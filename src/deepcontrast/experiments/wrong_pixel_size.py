"""What if the pixels are smaller or larger than in training? The stack rescaled, restored, and scaled back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import interpolate

from deepcontrast.config import Config
from deepcontrast.experiments import Finding, Run, Subject, pairs
from deepcontrast.experiments._figures import Pictures, figure
from deepcontrast.experiments._networks import SHOWN, Network, Volume, clean, learned, seeded, shown_planes, source_of
from deepcontrast.experiments._scores import (
    WORDS,
    compared,
    comparisons,
    definitions,
    listed,
    measure,
    summarise,
    told,
    verdict,
)
from deepcontrast.progress import Progress, silent

PHANTOMS = ("tissue",)
FACTORS = (0.5, 0.71, 1.0, 1.41, 2.0)
SIGMAS = (0.5, 2.0)
RESTORED, SCALED, RETRAINED = "restored", "scaled only", "trained with another blur"


def wrong_pixel_size(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
) -> Finding:
    """Return the scores of one network applied to a stack whose pixels are finer or coarser than in training.

    The stack is rescaled in xy by a factor (2: structures become twice as large in pixels), restored, and scaled
    back. ``scaled only`` is the same without the network: what interpolation alone costs, and what it gains by
    averaging noise. ``trained with another blur`` is the network of a training in which the blur was 0.5 or 2
    times as wide, as with a wrong voxel size, on the stack as it is.

    Args:
        subjects: the stacks.
        config: the settings.
        seeds: of training; a simulated stack is used with its own only.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.

    Source: CARE, supplementary figure 26 c.
    """
    runs: list[Run] = []
    pictures: Pictures = ()
    times = min(SHOWN, config.predict.iterations)
    for subject, seed in pairs(subjects, seeds):
        source, settings = source_of(subject), seeded(config, seed)
        network = learned(source, settings, device=device, progress=progress)
        raw = clean(network, source)
        results: dict[tuple[str, float], Volume] = {}
        for factor in FACTORS:
            results[SCALED, factor] = rescaled(rescaled(raw, factor), raw.shape[1:])
            results[RESTORED, factor] = at_scale(network, raw, factor, times, progress)
        results[RETRAINED, 1.0] = results[RESTORED, 1.0]
        for factor in SIGMAS:
            wrong = replace(network.fit, sigma=network.fit.sigma * factor)
            other = learned(source, settings, fit=wrong, device=device, progress=progress)
            results[RETRAINED, factor] = other.passes(raw, times, progress=progress)[-1]
        for (which, factor), result in sorted(results.items(), key=lambda item: item[0][1]):
            scores = measure(subject, source, raw, result, network.fit)
            runs.append({"stack": subject.name, "seed": seed, "result": which, "factor": factor, **scores})
        if not pictures:
            planes = shown_planes(source.depth)[:2]
            pictures = [(f"plane {z}", {f"x {f:g}": results[RESTORED, f][z] for f in FACTORS}) for z in planes]
    columns, rows = summarise(runs, ("result", "factor"))
    return Finding(
        "Wrong pixel size: a network on a stack of other sampling",
        "CARE, supplementary figure 26 c",
        columns,
        rows,
        tuple(runs),
        figure(pictures, columns, rows, x="factor", scores=told(runs), series="result"),
        sentences(runs),
        {
            "iterations": str(times),
            "rescaling": "bilinear, anti-aliased, in xy; it averages noise, and enlarging correlates it",
            **definitions(runs),
        },
    )


def rescaled(volume: Volume, to: float | tuple[int, ...]) -> Volume:
    """Return a volume (Z, Y, X) rescaled in y and x by a factor, or to a size (Y, X)."""
    size = tuple(max(1, round(n * to)) for n in volume.shape[1:]) if isinstance(to, float) else to
    if size == volume.shape[1:]:
        return volume
    planes = torch.from_numpy(np.ascontiguousarray(volume, np.float32))[:, None]
    return interpolate(planes, size=list(size), mode="bilinear", antialias=True)[:, 0].numpy()


def at_scale(network: Network, volume: Volume, factor: float, times: int, progress: Progress) -> Volume:
    """Return a volume (Z, Y, X) rescaled in xy, restored ``times`` times and scaled back."""
    result = network.passes(rescaled(volume, factor), times, progress=progress)[-1]
    return rescaled(result, volume.shape[1:])


def sentences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what the network adds to rescaling alone at every size, and how wrong blurs compare."""
    said = []
    for factor in FACTORS:
        found = comparisons(runs, {"result": RESTORED, "factor": factor}, {"result": SCALED, "factor": factor})
        where = f"Pixels rescaled by {factor:g}" if factor != 1.0 else "Pixels as in training"
        said.append(f"{where}: restored is {verdict(found)} not restored: {listed(found)}.")
    for score in told(runs):
        gains: dict[float, float] = {}
        for factor in FACTORS:
            one = compared(runs, score, {"result": RESTORED, "factor": factor}, {"result": SCALED, "factor": factor})
            if one is not None:
                gains[factor] = one.difference
        if gains:
            best = max(gains, key=lambda factor: gains[factor])
            said.append(f"{WORDS[score]} gains most, {gains[best]:+.3f}, at a factor of {best:g}.")
    for factor in SIGMAS:
        found = comparisons(runs, {"result": RETRAINED, "factor": factor}, {"result": RETRAINED, "factor": 1.0})
        said.append(f"Trained with {factor:g} x the blur: {verdict(found)} with 1 x: {listed(found)}.")
    return tuple(said)

"""What if the grey values are normalised wrongly? The same network with another offset and scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deepcontrast.config import Config
from deepcontrast.experiments import Cell, Finding, Run, Subject, pairs
from deepcontrast.experiments._figures import Pictures, figure
from deepcontrast.experiments._networks import SHOWN, Volume, clean, learned, seeded, shown_planes, source_of
from deepcontrast.experiments._scores import comparisons, definitions, listed, measure, spread, summarise, told, verdict
from deepcontrast.normalize import Norm
from deepcontrast.progress import Progress, silent

PHANTOMS = ("tissue",)
FITTED = "as fitted"
SCALES = ("scale x 0.25", "scale x 4")
OFFSETS = ("offset 0", "offset at the median", "percentiles 1 and 30")


def wrong_normalisation(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
) -> Finding:
    """Return the scores of one network applied with right and wrong normalisations.

    ``change`` is the root mean square difference from the result of the right one, over that result's standard
    deviation.

    Args:
        subjects: the stacks.
        config: the settings.
        seeds: of training; a simulated stack is used with its own only.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.

    Source: CARE, supplementary figure 26 b (trained with percentiles 2 and 99.7, applied with 1 and 30).
    """
    runs: list[Run] = []
    pictures: Pictures = ()
    times = min(SHOWN, config.predict.iterations)
    for subject, seed in pairs(subjects, seeds):
        source = source_of(subject)
        network = learned(source, seeded(config, seed), device=device, progress=progress)
        raw = clean(network, source)
        shown: dict[str, Volume] = {}
        for name, norm in norms(raw, network.fit.norm).items():
            fit = replace(network.fit, norm=norm)
            shown[name] = result = network.passes(raw, times, fit=fit, progress=progress)[-1]
            right = shown[FITTED]
            change = float(np.sqrt(np.mean((result - right) ** 2)) / max(float(right.std()), 1e-12))
            where: dict[str, Cell] = {"stack": subject.name, "seed": seed, "normalisation": name, "change": change}
            runs.append({**where, "offset": norm.offset, **measure(subject, source, raw, result, fit)})
        scores = measure(subject, source, raw, raw, network.fit)
        runs.append({"stack": subject.name, "seed": seed, "normalisation": "raw", "change": None, **scores})
        if not pictures:
            planes = shown_planes(source.depth)[:2]
            pictures = [(f"plane {z}", {title: volume[z] for title, volume in shown.items()}) for z in planes]
    columns, rows = summarise(runs, ("normalisation",))
    return Finding(
        "Wrong normalisation: offset and scale other than in training",
        "CARE, supplementary figure 26 b",
        columns,
        rows,
        tuple(runs),
        figure(pictures, columns, rows, x="normalisation", scores=told(runs), joined=False),
        sentences(runs),
        {
            "iterations": str(times),
            "bias": "with" if config.net.bias else "without",
            "change": "root mean square difference from the result as fitted, over its standard deviation",
            **definitions(runs),
        },
    )


def norms(raw: Volume, fitted: Norm) -> Mapping[str, Norm]:
    """Return the fitted normalisation and wrong ones, by name; percentiles are those of the stack (Z, Y, X)."""
    first, thirty, median = (float(p) for p in np.percentile(raw, (1, 30, 50)))
    offset_0, at_median, percentiles = OFFSETS
    smaller, larger = SCALES
    return {
        FITTED: fitted,
        smaller: replace(fitted, scale=fitted.scale / 4),
        larger: replace(fitted, scale=fitted.scale * 4),
        offset_0: replace(fitted, offset=0.0),
        at_median: replace(fitted, offset=median),
        # A dim stack may hold one value from percentile 1 to 30.
        percentiles: Norm(first, max(thirty - first, 1e-6)),
    }


def sentences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return whether scale and offset matter, and by how much."""
    said = []
    for name in (*SCALES, *OFFSETS):
        change, _ = spread([run["change"] for run in runs if run["normalisation"] == name])
        if not isinstance(change, float):
            continue
        if change < 1e-3:
            said.append(f"{name}: the result stays the same (change {change:.1e}).")
            continue
        found = comparisons(runs, {"normalisation": name}, {"normalisation": FITTED})
        said.append(
            f"{name}: the result changes by {change:.2f} of its standard deviation and is {verdict(found)} that "
            f"of the fitted normalisation: {listed(found)}."
        )
    return tuple(said)

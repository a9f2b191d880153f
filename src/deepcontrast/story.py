"""What the report of an enhanced stack says: numbers of the result, in the order a reader asks for them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.depth import depth_unit
from deepcontrast.enhanced import Enhanced, Restored
from deepcontrast.evaluation import FIFTHS, UNSUPPORTED, Row, by_plane, mean_known
from deepcontrast.fidelity_map import FLAGGED, THRESHOLD
from deepcontrast.report.data import ReportData

TILE = 64
IDLE, STILL, LOOKED_AT = 0.02, 0.002, 8
"""Change by the first and by the second pass, as a share of the standard deviation before it, below which a network is
called idle; planes seen."""


def report_data(
    result: Enhanced,
    index: int,
    channel: int,
    *,
    title: str,
    note: str = "",
    scores: tuple[tuple[str, ...], ...] | None = None,
) -> ReportData:
    """Return what the report of one stack and channel shows; of several time points, the first.

    Args:
        result: of the whole experiment.
        index: of the stack.
        channel: of the model.
        title: of the page.
        note: what was done to write the result.
        scores: table against truth, header first.
    """
    stack, fit, choice = result.stacks[index], result.fits[channel], result.choices[channel]
    part = result.excerpts[index]
    one = result.restored[index][channel][0]
    invalid = one.source.invalid
    unit, depth = depth_unit(stack), one.source.depth
    task: Any = registry.load("tasks", result.model.task)
    config = result.model.config
    history = result.histories[channel] if result.histories else {}
    size = stack.optics.voxel_size[2]
    low, high = fit.depth_range
    middle = len(depth) // 2
    k_count = len(one.passes) - 1
    several = len(result.model.channels) > 1
    equalised = result.equalised[index][channel] if result.equalised else None
    return ReportData(
        title=title + (f", channel {result.model.channels[channel].name}" if several else ""),
        summary=(*summary(one), *((f"Equalised over depth: {equalised.describe()}.",) if equalised else ())),
        facts=(
            ("Image", replace(stack, source=Path(stack.source).name).describe()),
            ("Surface", f"the {stack.optics.surface} plane ({result.why_surface[index]})"),
            ("Depth", f"{depth.min():.4g} to {depth.max():.4g} {unit}"),
            *((("Looked at", part.describe()),) if part is not None else ()),
            *((("Note", text)) for text in stack.notes),
            ("Written", note or "-"),
        ),
        depth_um=depth,
        depth_unit=unit,
        voxel_size=stack.optics.voxel_size,
        passes=one.passes,
        enhanced=one.enhanced,
        chosen=one.chosen,
        why=choice.why,
        selection={name: table for name, table in choice.scores.items() if np.isfinite(table).any()},
        selection_depth=choice.depth,
        selection_best=choice.best,
        contrast=_contrast(result, channel, k_count, len(depth)),
        contrast_tiles=_tiles(one) if len(result.stacks) == 1 else None,
        camera=asdict(fit.camera),
        pattern=fit.pattern,
        invalid=_counts(invalid.counts, invalid.at_zero),
        degradation={
            "sigma_px": fit.sigma or None,
            "sigma_um": fit.sigma * size if fit.sigma and size else None,
            "why": fit.sigma_why,
            "alpha_surface": config.task.get("alpha_surface"),
            "alpha_deep": config.task.get("alpha_deep"),
            "sigmas_px": fit.sigmas,
            "thin": fit.thin,
            "recorrupted": fit.recorrupted,
            "layers": fit.layers,
            "in_space": fit.in_space,
        },
        degraded_example=task.example(one.source, middle, fit, config),
        training={
            "step": np.arange(1, len(history.get("loss", ())) + 1),
            "loss": np.asarray(history.get("loss", ())),
            "val_step": np.asarray(history.get("val_step", ())),
            "val_loss": np.asarray(history.get("val_loss", ())),
        },
        fidelity=_fidelity(one, unit),
        provenance=(
            ("Version", str(result.model.provenance.get("version", "-"))),
            ("Recipe", config.recipe),
            ("Seed", str(config.train.seed)),
            (
                "Network",
                f"{config.net.name}, depth {config.net.depth}, {config.net.features} features, "
                + ("in space" if fit.in_space else f"in the plane, {len(fit.layers)} planes to restore one"),
            ),
            ("Training", f"{config.train.steps} steps of {config.train.batch} patches of {fit.patch} px"),
            ("Held out for validation", ", ".join(f"stack {s} at y {y}, x {x}" for s, y, x in fit.held_out)),
            ("Depth that alpha spans", f"{low:.4g} to {high:.4g} {unit}"),
            ("Trained on", ", ".join(result.model.provenance.get("images", ())) or "-"),
            ("Settings", config.json()),
        ),
        scores=scores,
        valid=invalid.valid,
        fidelity_map=one.map,
        flagged_from=THRESHOLD,
        equalised=None
        if equalised is None
        else {"factor": equalised.at(depth), "measured": equalised.measured, "words": equalised.describe()},
    )


def summary(one: Restored) -> tuple[str, ...]:
    """Return the sentences at the top: what was gained, and how far the result is still the raw's."""
    deepest = np.argsort(one.source.depth)[-max(1, len(one.source.depth) // 3) :]
    raw, best = (_mean(one.rows, method, k, deepest) for method, k in (("raw", 0), ("deepcontrast", None)))
    low, high = one.chosen.min(), one.chosen.max()
    once = "once" if high == 1 else f"{high:.3g} times"
    times = once if low == high else f"{low:.3g} to {high:.3g} times, depending on depth"
    gained = (
        f"Contrast of structures over background (exp WCI) in the deepest third: "
        f"{np.exp(best - raw):.2f} times the raw's."
        if np.isfinite(raw) and np.isfinite(best)
        else "Contrast cannot be stated: the wavelet contrast of the deepest third is undefined."
    )
    return (gained, f"The network was applied {times}.", *_idle(one), *_verdict(one))


def _idle(one: Restored) -> tuple[str, ...]:
    """Return a caution where the network changes so little that it cannot have learned.

    The first pass also lacks what was taken from the raw before it, as stripes; the second is of the network alone.
    """
    some = slice(None, None, max(1, len(one.passes[0]) // LOOKED_AT))
    pairs = zip(one.passes[:2], one.passes[1:3], strict=False)
    changes = [change for before, after in pairs if (change := _change(before[some], after[some])) is not None]
    idle = [change for change, limit in zip(changes, (IDLE, STILL), strict=False) if change < limit]
    if not idle:
        return ()
    return (
        f"Caution: the network changes next to nothing ({idle[0]:.1%} of the contrast): it may not have learned. "
        "Train it again from other first weights, --set train.seed=1.",
    )


def _change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float | None:
    """Return the median change of planes (Z, Y, X) as a share of their deviation; ``None`` where all are blank."""
    changes = [
        float(np.std(new - old) / np.std(old)) for old, new in zip(before, after, strict=True) if np.std(old) > 0
    ]
    return float(np.median(changes)) if changes else None


def _flagged(one: Restored) -> tuple[float, float, float, float]:
    """Return lost and added area: their means over the planes, and their worst fifth of the depth."""
    order = np.argsort(one.source.depth, kind="stable")
    found = []
    for name in ("lost_area", "added_area"):
        area = by_plane((row for row in one.rows if row.metric == name), len(order))[name]
        fifths = [mean_known(area[part]) for part in np.array_split(order, min(FIFTHS, len(order)))]
        found.append((mean_known(area), float(np.nanmax(fifths, initial=0.0))))
    (lost, worst_lost), (added, worst_added) = found
    return lost, added, worst_lost, worst_added


def _verdict(one: Restored) -> tuple[str, ...]:
    """Return whether the result is still the raw's, in sentences."""
    correlation = min(part.correlation for part in one.fidelity)
    count = sum(part.components for part in one.fidelity)
    lone = sum(part.unsupported for part in one.fidelity)
    lost, added, worst_lost, worst_added = _flagged(one)
    found = (
        f"structure was lost in {lost:.1%} of the area and added in {added:.1%} (in the worst fifth of the depth "
        f"{worst_lost:.1%} and {worst_added:.1%}), beyond what the raw's noise explains; the map below shows where"
    )
    explained = (
        f"The result still explains the raw: {found}. Re-blurred, it correlates with the raw's structures by "
        f"{correlation:.2f} or better in every fifth of the depth, noise included."
        if max(worst_lost, worst_added) <= FLAGGED
        else f"Caution: the result differs from the raw: {found}; {FLAGGED:.0%} is too much. Look at the raw beside "
        "it, or take fewer iterations."
    )
    if not count:
        return explained, "No structure in the result is bright enough to be checked one by one against the raw."
    shown = f"of {count} bright structures in the result, {lone} have nothing at their place in the raw"
    if lone <= UNSUPPORTED * count:
        return explained, f"{shown[0].upper()}{shown[1:]}."
    return (
        explained,
        f"Caution: {shown}, more than {UNSUPPORTED:.0%}. Do not trust structures that the raw does not show.",
    )


def _mean(rows: tuple[Row, ...], method: str, k: int | None, planes: NDArray[np.int64]) -> float:
    """Return the mean WCI of planes; NaN where it is undefined."""
    wanted = set(planes.tolist())
    values = [
        row.value
        for row in rows
        if (row.metric, row.method, row.k) == ("wci", method, k) and row.value is not None and row.z in wanted
    ]
    return float(np.mean(values)) if values else float("nan")


def _contrast(result: Enhanced, channel: int, k_count: int, planes: int) -> dict[str, NDArray[np.float64]]:
    """Return WCI and PCI (stacks, K + 1, Z); stacks of another length are read at the same relative depth."""
    out = {}
    for name in ("wci", "pci"):
        all_stacks = []
        for channels in result.restored:
            one = channels[channel][0]
            table = np.full((k_count + 1, len(one.source.depth)), np.nan)
            for row in one.rows:
                if row.metric == name and row.k is not None and row.value is not None:
                    table[int(row.k), row.z] = row.value
            at = np.linspace(0, table.shape[1] - 1, planes).round().astype(int)
            all_stacks.append(table[:, at])
        out[name] = np.stack(all_stacks)
    return out


def _tiles(one: Restored) -> dict[str, NDArray[Any]] | None:
    """Return WCI of xy tiles at up to 24 planes, for the bootstrap within one stack."""
    planes, height, width = one.passes[0].shape
    if height < 2 * TILE or width < 2 * TILE:
        return None
    z = np.unique(np.linspace(0, planes - 1, min(24, planes)).round().astype(int))
    wci = registry.load("metrics", "wci")
    corners = [(y, x) for y in range(0, height - TILE + 1, TILE) for x in range(0, width - TILE + 1, TILE)]
    table = np.full((len(one.passes), len(z), len(corners)), np.nan)
    known = one.source.invalid.valid
    for k, volume in enumerate(one.passes):
        for i, plane in enumerate(z):
            for j, (y, x) in enumerate(corners):
                box = (plane, slice(y, y + TILE), slice(x, x + TILE))
                value = wci(np.asarray(volume[box]), valid=None if known is None else known[box])[0].value
                table[k, i, j] = np.nan if value is None else value
    return {"wci": table, "z": z}


def _counts(counts: dict[str, NDArray[np.int64]], at_zero: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return counts | ({"at the lowest value (kept)": at_zero} if at_zero.any() else {})


def _fidelity(one: Restored, unit: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"around {ours.depth:.4g} {unit}",
            f"correlation with the raw's structures {ours.correlation:.2f} (band-pass {band.correlation:.2f}); "
            f"{ours.unsupported} of {ours.components} bright structures have nothing in the raw "
            f"(band-pass {band.unsupported} of {band.components})",
        )
        for ours, band in zip(one.fidelity, one.band_pass, strict=True)
    )

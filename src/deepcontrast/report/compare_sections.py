"""What each section of the comparison shows: tables, pictures, plots and sentences for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.report import compare_figures as figures
from deepcontrast.report import compare_scores as scores
from deepcontrast.report import views
from deepcontrast.report.canvas import RAW as GREY
from deepcontrast.report.compare_data import ON_TRUTH, CompareData, MethodResult
from deepcontrast.report.compare_figures import Curve, Line
from deepcontrast.report.data import Array
from deepcontrast.report.pictures import Picture, data_uri, display_range, picture
from deepcontrast.report.sections import Plot
from deepcontrast.report.wording import counted, depth_axis, place

PIXELS = 4_000_000
"""Of all pictures together: noise hardly packs, and a page of 10 MB still opens at once."""

LARGEST, SMALLEST, LEAST_INSET = 400, 128, 24
MOST_NAMED = 4
"""Baselines that stand out of the others in a plot."""

GROUPS = {
    "": ("raw", "written"),
    "DeepContrast, pass by pass": ("pass",),
    "Baselines, tuned as a user would": ("user",),
    "Baselines, tuned on the truth": ("truth",),
}
LONGEST = 28
"""Letters of a label that fit beside a plot."""

UNMOVED = "iou_clipped"
"""All but equal to its twin, because clipping is monotone: in the table, but not plotted twice."""

MOST_BINS, PLANES_OF_A_BAND = 10, 5


@dataclass(frozen=True)
class Thumbnail:
    """A method in one plane: the plane and the inset, ``None`` where not measured.

    Attributes:
        label: of the method.
        kind: see ``compare_scores.kind``.
        whole: the plane, or the part of it that was measured.
        place: left, top, width and height of that part in percent of the plane.
        inset: the square at full resolution.
    """

    label: str
    kind: str
    whole: Picture | None
    place: tuple[float, float, float, float]
    inset: Picture | None


def groups(data: CompareData) -> list[tuple[str, list[int]]]:
    """Return the methods by kind, each group with its heading; without raw and ours on the crops of others."""
    found = []
    for heading, kinds in GROUPS.items():
        members = [
            i
            for kind in kinds
            for i, m in enumerate(data.methods)
            if scores.kind(m) == kind and not scores.aside(data, m)
        ]
        if members:
            found.append((heading, members))
    return found


def comparable(data: CompareData) -> list[tuple[str, list[int]]]:
    """Return the methods in groups that saw the same voxels: the kinds on the whole stack, then crop by crop."""
    whole = [(heading, [i for i in of if not scores.cropped(data, data.methods[i])]) for heading, of in groups(data)]
    crops: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for i, method in enumerate(data.methods):
        if scores.cropped(data, method):
            crops.setdefault(bounds(data, method), []).append(i)
    parts = [(f"On a crop: {_crop_words(data, data.methods[of[0]])}", of) for of in crops.values()]
    return [(heading, of) for heading, of in (*whole, *parts) if of]


def references(data: CompareData) -> list[str]:
    """Return what the methods were scored against, in words."""
    known = {
        "truth": data.truth is not None,
        "mask": data.mask is not None,
        "labels": any("seg" in m.stack_scores for m in data.methods),
    }
    return [name for name, given in known.items() if given]


def lines(data: CompareData) -> list[Line]:
    """Return how each method is drawn: the same colour in every plot."""
    last = max((m.k or 0 for m in data.methods if scores.is_pass(m)), default=1)
    names = list(dict.fromkeys(m.name for m in data.methods if scores.kind(m) in ("user", "truth")))
    drawn = []
    for m in data.methods:
        kind = scores.kind(m)
        colour: Any = {"raw": GREY, "written": figures.WRITTEN}.get(kind)
        if kind == "pass":
            colour = figures.colour_of_pass(m.k or 1, last)
        elif colour is None:
            colour = figures.BASELINES[names.index(m.name) % len(figures.BASELINES)]
        label = m.label.replace(f"tuned {ON_TRUTH}", "truth")
        drawn.append(Line(label if len(label) <= LONGEST else label[: LONGEST - 1] + "…", kind, colour))
    return drawn


def tables(data: CompareData) -> dict[str, Any]:
    """Return the scores against the truth, and contrast, cost and settings, as tables in the same order."""
    parts = comparable(data)
    order = [i for _, members in parts for i in members]
    other = scores.contrast_columns(data) + scores.cost_columns(data)
    quality = [scores.table(data, part, order=order) for part in scores.split(scores.score_columns(data))]
    rest = scores.table(data, other, order=order)
    rows = [
        {**_row_head(data, data.methods[i]), "scores": [part.rows[n] for part in quality], "other": rest.rows[n]}
        for n, i in enumerate(order)
    ]
    starts = np.cumsum([0, *(len(members) for _, members in parts)])
    return {
        "groups": [(parts[n][0], rows[starts[n] : starts[n + 1]]) for n in range(len(parts))],
        "scores": quality,
        "other": rest,
        "settings": any(m.parameters for m in data.methods),
        "fidelity": any(name == "Fidelity" for name, _ in rest.heads),
        "cropped": any(scores.cropped(data, m) for m in data.methods),
        "on_truth": any(scores.kind(m) == "truth" for m in data.methods),
    }


def _row_head(data: CompareData, method: MethodResult) -> dict[str, Any]:
    kind = scores.kind(method)
    marks = [f"tuned {ON_TRUTH}"] if kind == "truth" and ON_TRUTH not in method.label else []
    marks += ["crop"] if scores.cropped(data, method) else []
    return {"label": method.label, "kind": kind, "marks": marks, "settings": method.parameters}


def _crop_words(data: CompareData, method: MethodResult) -> str:
    whole = data.methods[0].volume.shape
    (first, end), *sides = bounds(data, method)
    words = [f"planes {first + 1} to {end}" if (first, end) != (0, whole[0]) else "all planes"]
    words += [f"{axis} {low} to {high - 1}" for axis, (low, high) in zip("yx", sides, strict=True)]
    return ", ".join(words)


def bounds(data: CompareData, method: MethodResult) -> tuple[tuple[int, int], ...]:
    """Return first and last index + 1 of a method's region along z, y and x."""
    whole = data.methods[0].volume.shape
    return tuple((s.indices(n)[0], s.indices(n)[1]) for s, n in zip(method.region, whole, strict=True))


def plane(data: CompareData, method: MethodResult, z: int) -> tuple[Array, int, int] | None:
    """Return what a method has of a plane of the whole stack, with the row and column where it begins."""
    (first, end), (y, _), (x, _) = bounds(data, method)
    return (method.volume[z - first], y, x) if first <= z < end else None


@dataclass(frozen=True)
class Square:
    """Where the inset of a plane lies, and the row of the profile through it."""

    y: int
    x: int
    side: int
    row: int

    def of(self, part: tuple[Array, int, int] | None) -> Array | None:
        """Return the inset of a part of the plane, or nothing where it is not all in there."""
        if part is None:
            return None
        image, top, left = part
        y, x = self.y - top, self.x - left
        if y < 0 or x < 0 or y + self.side > image.shape[0] or x + self.side > image.shape[1]:
            return None
        return image[y : y + self.side, x : x + self.side]


def square(data: CompareData, z: int) -> Square:
    """Return the inset with the most structure, in the truth or else the raw, where all methods were measured.

    Crops too small to show anything are passed over.
    """
    guide = np.asarray(data.methods[0].volume[z] if data.truth is None else data.truth[z])
    top, left, (bottom, right) = 0, 0, guide.shape
    for method in data.methods:
        _, (y0, y1), (x0, x1) = bounds(data, method)
        y0, y1, x0, x1 = max(top, y0), min(bottom, y1), max(left, x0), min(right, x1)
        if plane(data, method, z) is not None and min(y1 - y0, x1 - x0) >= LEAST_INSET:
            top, bottom, left, right = y0, y1, x0, x1
    side = min(views.inset_side((guide.shape[0], guide.shape[1])), bottom - top, right - left)
    y, x = views.inset(guide[top:bottom, left:right], side)
    y, x = y + top, x + left
    return Square(y, x, side, views.profile_row(guide[y : y + side, x : x + side]))


def thumbnail_side(data: CompareData, planes: int) -> int:
    """Return the long side of a picture of a plane, so that all pictures keep within ``PIXELS``."""
    _, rows, columns = data.methods[0].volume.shape
    count = planes * (len(data.methods) + (data.truth is not None))
    area = PIXELS / count - views.inset_side((rows, columns)) ** 2
    long = (max(area, 0) * max(rows, columns) / min(rows, columns)) ** 0.5
    return int(min(LARGEST, max(SMALLEST, long)))


def depth_pictures(data: CompareData, z: int, long_side: int) -> dict[str, Any]:
    """Return every method in one plane, with truth and mask beside raw and what is written."""
    at = square(data, z)
    _, rows, columns = data.methods[0].volume.shape
    shown: dict[str, list[Thumbnail]] = {}
    for heading, members in groups(data):
        cells = [
            _thumbnail(
                data,
                data.methods[i].label,
                scores.kind(data.methods[i]),
                plane(data, data.methods[i], z),
                z,
                at,
                long_side,
            )
            for i in members
        ]
        shown[heading] = cells
    known = (("truth", data.truth), ("mask", data.mask))
    beside = [
        _thumbnail(data, name, name, (np.asarray(volume[z], np.float32), 0, 0), z, at, long_side)
        for name, volume in known
        if volume is not None
    ]
    shown[""] += beside
    return {
        "label": place(data, z),
        "groups": list(shown.items()),
        "box": (100 * at.x / columns, 100 * at.y / rows, 100 * at.side / columns, 100 * at.side / rows),
        "row": 100 * (at.row + 0.5) / at.side,
        "aspect": _aspect(data),
    }


def _aspect(data: CompareData) -> float:
    _, rows, columns = data.methods[0].volume.shape
    _, height, width = data.voxel_size
    return float(columns * width / (rows * height)) if height and width else float(columns / rows)


def _thumbnail(
    data: CompareData, label: str, kind: str, part: tuple[Array, int, int] | None, z: int, at: Square, long_side: int
) -> Thumbnail:
    if part is None:
        return Thumbnail(label, kind, None, (0, 0, 0, 0), None)
    image, top, left = part
    _, rows, columns = data.methods[0].volume.shape
    pixel, limits = data.voxel_size[1:], (0.0, 1.0) if kind == "mask" else None
    alt = f"{label}, {place(data, z)}"
    side = max(1, round(long_side * max(image.shape) / max(rows, columns)))
    cut = at.of(part)
    bar = kind == "raw"
    return Thumbnail(
        label,
        kind,
        picture(image, alt, pixel=pixel, limits=limits, long_side=side, bar=bar),
        (100 * left / columns, 100 * top / rows, 100 * image.shape[1] / columns, 100 * image.shape[0] / rows),
        None if cut is None else picture(cut, f"inset of {alt}", pixel=pixel, limits=limits, bar=bar),
    )


def profile(data: CompareData, z: int) -> dict[str, Any]:
    """Return the profiles of all methods along the line through the inset of a plane."""
    at = square(data, z)
    drawn = lines(data)
    order = [i for _, members in groups(data) for i in members]

    def along(part: tuple[Array, int, int] | None) -> Array | None:
        cut = at.of(part)
        if cut is None:
            return None
        low, high = display_range(cut)
        return np.asarray((cut[at.row] - low) / (high - low))

    values = [along(plane(data, m, z)) for m in data.methods]
    raw = values[0]
    assert raw is not None  # the raw is whole
    truth = None if data.truth is None else along((data.truth[z], 0, 0))
    step = data.voxel_size[2]
    png = figures.profiles(
        np.arange(at.side) * (step or 1.0),
        [(drawn[i], values[i]) for i in order],
        raw,
        truth,
        "position along the line (µm)" if step else "position along the line (px)",
    )
    label = place(data, z)
    return {"label": label, "plot": Plot(data_uri(png), f"every method along one line, {label}", 1120)}


def depth_families(data: CompareData) -> tuple[list[str], list[str]]:
    """Return the families of metrics that are plotted against depth: of contrast, and of quality."""
    found = scores.families(scores.measured(data))
    return [f for f in found if f in scores.CONTRAST], [f for f in found if f not in scores.CONTRAST]


def against_depth(data: CompareData, base: str) -> Plot:
    """Return the plot of a family of metrics against depth, a row each for as written and clipped."""
    drawn = lines(data)
    parts = bins(data.depth_um)
    variants = [name for name in scores.measured(data) if scores.base(name) == base and name != UNMOVED]
    about = scores.family(base)
    rows = []
    for metric in variants:
        variant = "clipped" if metric.endswith(scores.CLIPPED) else "as written"
        title = f"{about.name}, {variant}" if len(variants) > 1 else about.name
        curves = {
            i: _curve(drawn[i], data.depth_um, np.asarray(m.scores[metric], float), parts)
            for i, m in enumerate(data.methods)
            if metric in m.scores and not scores.cropped(data, m)
        }
        named = best(data, metric)
        left = [c for c in curves.values() if c.line.kind in ("raw", "pass", "written")]
        right = [c for i, c in curves.items() if c.line.kind in ("raw", "written") or i in named]
        pale = [c for i, c in curves.items() if c.line.kind in ("user", "truth") and i not in named]
        rows.append((title, left, right, pale))
    png = figures.against_depth(rows, data.depth_um, depth_axis(data))
    return Plot(data_uri(png), f"{about.name} of every method against depth", 1120)


def band_words(data: CompareData) -> str:
    """Return what the bands of the plots against depth are."""
    parts = bins(data.depth_um)
    if min(len(part) for part in parts) >= PLANES_OF_A_BAND:
        return (
            f"Lines are means over {len(parts)} parts of the depth, bands hold 95 % of the planes of a part: variation "
            "within this one stack, which says nothing of other stacks"
        )
    return "Each point is one plane: there are too few for a band"


def bins(depth: Array) -> list[NDArray[np.intp]]:
    """Return the planes of each part of the depth, shallow first; single planes where there are few."""
    order = np.argsort(depth, kind="stable")
    count = min(MOST_BINS, len(order) // PLANES_OF_A_BAND)
    return list(np.array_split(order, count if count >= 3 else len(order)))


def _curve(line: Line, depth: Array, values: Array, parts: Sequence[NDArray[np.intp]]) -> Curve:
    rows = []
    for part in parts:
        known = values[part][np.isfinite(values[part])]
        ends = np.percentile(known, [2.5, 97.5]) if known.size >= PLANES_OF_A_BAND - 1 else (np.nan, np.nan)
        rows.append((float(depth[part].mean()), float(known.mean()) if known.size else np.nan, *ends))
    return Curve(line, *np.array(rows, float).T)


def best(data: CompareData, metric: str) -> list[int]:
    """Return the baselines that stand out in a metric: the best few, and the best that was tuned on the truth.

    Those that saw a crop do not compete.
    """
    sign = -1 if scores.family(metric).better < 0 else 1
    means = [float("nan") if scores.cropped(data, m) else scores.mean(m.scores.get(metric)) for m in data.methods]
    found = []
    for kind, most in (("user", MOST_NAMED), ("truth", 1)):
        of = [i for i, m in enumerate(data.methods) if scores.kind(m) == kind and np.isfinite(means[i])]
        found += sorted(of, key=lambda i: -sign * means[i])[:most]
    return found


def against_k(data: CompareData) -> Plot | None:
    """Return the rise and fall with k against truth, or nothing where there is no truth or no pass."""
    whole = [i for i, m in enumerate(data.methods) if not scores.cropped(data, m)]
    passes = sorted((data.methods[i].k or 0.0, i) for i in whole if scores.is_pass(data.methods[i]))
    metrics = [name for name in scores.measured(data) if scores.base(name) not in scores.CONTRAST and name != UNMOVED]
    if not passes or not metrics:
        return None
    written = [data.methods[i] for i in whole if scores.kind(data.methods[i]) == "written"]
    drawn = lines(data)
    panels, rivals = [], []
    for metric in metrics:
        values = [scores.mean(data.methods[i].scores.get(metric)) for i in (0, *(i for _, i in passes))]
        own = scores.mean(written[0].scores.get(metric)) if written else float("nan")
        clipped = ", clipped" if metric.endswith(scores.CLIPPED) else ""
        panels.append((scores.family(metric).short + clipped, np.array(values), own))
        named = best(data, metric)
        first = [next((i for i in named if drawn[i].kind == kind), None) for kind in ("user", "truth")]
        rivals.append([(drawn[i], scores.mean(data.methods[i].scores[metric])) for i in first if i is not None])
    png = figures.against_k(panels, np.array([0.0, *(k for k, _ in passes)]), rivals)
    return Plot(data_uri(png), "mean of each metric against the number of passes", 1120 if len(panels) > 2 else 560)


def violins(data: CompareData) -> dict[str, Any] | None:
    """Return the distributions of the IoU of tiles, where they were measured, and how many tiles they hold."""
    drawn = lines(data)
    rows = []
    for _, members in comparable(data):
        for i in members:
            values = np.asarray(data.iou_tiles.get(data.methods[i].label, ()), float)
            values = values[np.isfinite(values)]
            if values.size:
                rows.append((drawn[i], values))
    if not rows:
        return None
    sizes = {len(values) for _, values in rows}
    if len(sizes) > 1:
        words = f"N = {counted(min(sizes))} to {counted(max(sizes))} tiles, as each row says"
    else:
        words = f"N = {counted(sizes.pop())} tiles in every row"
    png = figures.violins(rows, "IoU of a tile at its best threshold")
    return {"plot": Plot(data_uri(png), "violins of the IoU of tiles, a row per method", 1120), "n": words}


def costs(data: CompareData) -> Plot | None:
    """Return time and memory of each method, or nothing where none was measured."""
    order = [
        i for _, members in groups(data) for i in members if any(value is not None for value in _cost(data.methods[i]))
    ]
    if not order:
        return None
    shown, drawn = [data.methods[i] for i in order], lines(data)
    seconds = np.array([scores.whole_time(data, m) for m in shown])
    memory = np.array([np.nan if m.peak_mb is None else m.peak_mb for m in shown])
    times = [
        scores.shown(s, "time") + (", from its crop" if scores.cropped(data, m) else "")
        for s, m in zip(seconds, shown, strict=True)
    ]
    png = figures.costs(
        [drawn[i] for i in order],
        [
            ("Time for the whole stack (s)", seconds, times),
            ("Peak memory (MB)", memory, [scores.shown(value, ".0f") for value in memory]),
        ],
    )
    return Plot(data_uri(png), "time and peak memory of every method", 1120)


def _cost(method: MethodResult) -> tuple[float | None, ...]:
    return method.seconds, method.voxels_per_second, method.peak_mb

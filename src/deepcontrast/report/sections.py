"""What each section of the page shows: numbers, pictures and sentences for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepcontrast.report import figures, views
from deepcontrast.report.data import Array, ReportData
from deepcontrast.report.intensity import IntensitySummary, intensity_summary
from deepcontrast.report.pictures import data_uri, display_range, picture
from deepcontrast.report.wording import (
    counted,
    depth_axis,
    depth_of,
    finite,
    k_words,
    number,
    pass_words,
    place,
    span,
    with_unit,
    words,
)

INDEX_NAMES = {"wci": "WCI, wavelet contrast index", "pci": "PCI, percentile contrast index"}
MOST_COLUMNS = 8
THUMBNAIL = 256


@dataclass(frozen=True)
class Plot:
    """A plot and its width in CSS pixels."""

    src: str
    alt: str
    width: int


def before_after(data: ReportData, z: int) -> dict[str, Any]:
    pixel, valid = data.voxel_size[1:], None if data.valid is None else data.valid[z]
    pair = []
    for name, volume in (("raw", data.passes[0]), ("enhanced", data.enhanced)):
        plane = np.asarray(volume[z])
        alt = f"{name}, {place(data, z)}"
        pair.append(picture(plane, alt, pixel=pixel, limits=display_range(plane, valid)))
    return {
        "label": place(data, z),
        "k": k_words(float(data.chosen[z])),
        "raw": pair[0],
        "enhanced": pair[1],
    }


def section(data: ReportData, shown: list[int]) -> dict[str, Any] | None:
    """Return the xz section, or nothing where the stack is too thin to show one."""
    depth, columns = len(data.depth_um), data.enhanced.shape[2]
    dz, _, dx = data.voxel_size
    true = dz / dx if dz and dx else 1.0
    if depth < 4 or columns / (depth * true) > 25:
        return None
    order = np.argsort(data.depth_um, kind="stable")
    row = views.section_row(data.passes[0], shown)
    valid = None if data.valid is None else np.asarray(data.valid[:, row])[order]
    pair = []
    for name, volume in (("raw", data.passes[0]), ("enhanced", data.enhanced)):
        plane = np.asarray(volume[:, row])[order]
        alt = f"xz section of {name}, surface at the top"
        pair.append(picture(plane, alt, pixel=(dz, dx), limits=display_range(plane, valid)))
    rank = {int(z): i for i, z in enumerate(order)}
    ticks = [(100 * (rank[z] + 0.5) / depth, depth_of(data, z)) for z in shown]
    return {
        "raw": pair[0],
        "enhanced": pair[1],
        "row": row + 1,
        "rows": data.enhanced.shape[1],
        "ticks": ticks,
        "known": dz is not None and dx is not None,
    }


def contrast(data: ReportData, shown: list[int]) -> dict[str, Any] | None:
    given = {name: np.asarray(data.contrast[key], float) for key, name in INDEX_NAMES.items() if key in data.contrast}
    if not given:
        return None
    stacks = max(len(values) for values in given.values())
    curves = {name: _mean_of_stacks(values) for name, values in given.items()}
    bands: dict[str, figures.Bands] = {}
    if stacks >= 2:
        bands = {name: figures.stack_bands(values) for name, values in given.items()}
        band_words = f"mean of {stacks} stacks and its 95 % confidence band"
    elif data.contrast_tiles is not None:
        planes = np.asarray(data.contrast_tiles["z"], int)
        for key, name in INDEX_NAMES.items():
            if name in curves and key in data.contrast_tiles:
                band = figures.tile_bands(curves[name], np.asarray(data.contrast_tiles[key], float), planes)
                if band is not None:
                    bands[name] = band
        band_words = (
            "shaded: within-stack variation, the 95 % band of a block bootstrap over xy tiles of this one "
            "stack; it says nothing about other stacks"
        )
    if not bands:
        band_words = "one stack, so there is no confidence band"
    written = {name: at_chosen(values, data.chosen) for name, values in curves.items()}
    png = figures.contrast(
        data.depth_um, curves, bands, written, [float(data.depth_um[z]) for z in shown], depth_axis(data)
    )
    gains = []
    for name, values in curves.items():
        deep, shallow = _gain(values[0], written[name], data.depth_um)
        if np.isfinite(deep) and np.isfinite(shallow):
            index = name.partition(",")[0]
            gains.append(
                f"{index}: the contrast ratio of what was written is {deep:.2f} times raw's in the deepest "
                f"third of the planes and {shallow:.2f} times in the shallowest."
            )
    undefined = [
        f"{name.partition(',')[0]} for {pass_words(k)} in {int(missing)} of {values.shape[1]} planes"
        for name, values in curves.items()
        for k, missing in enumerate((~np.isfinite(values)).sum(axis=1))
        if missing
    ]
    plot = Plot(data_uri(png), "contrast against depth for raw and each number of passes", 1120)
    return {"plot": plot, "bands": band_words, "gains": gains, "undefined": undefined}


def _mean_of_stacks(values: Array) -> Array:
    known = np.isfinite(values)
    count = known.sum(axis=0)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1)
    return np.asarray(np.where(count > 0, mean, np.nan))


def at_chosen(curves: Array, chosen: Array) -> Array:
    """Return the contrast (Z,) at the chosen k, interpolated between passes where it is fractional."""
    last = len(curves) - 1
    low = np.clip(np.floor(chosen).astype(int), 0, last)
    high = np.minimum(low + 1, last)
    share = np.clip(chosen - low, 0, 1)
    z = np.arange(curves.shape[1])
    blend = (1 - share) * curves[low, z] + share * curves[high, z]
    return np.asarray(np.where(share == 0, curves[low, z], blend))


def _gain(raw: Array, written: Array, depth: Array) -> tuple[float, float]:
    """Return the median ratio of exp(index), written over raw, in the deepest and the shallowest third."""
    order = np.argsort(depth, kind="stable")
    third = max(1, len(order) // 3)
    ratios = []
    for part in (order[-third:], order[:third]):
        gain = (written - raw)[part]
        gain = gain[np.isfinite(gain)]
        ratios.append(float(np.exp(np.median(gain))) if gain.size else float("nan"))
    return ratios[0], ratios[1]


def profile(data: ReportData, z: int) -> dict[str, Any]:
    raw, enhanced = np.asarray(data.passes[0][z]), np.asarray(data.enhanced[z])
    side = views.inset_side((raw.shape[0], raw.shape[1]))
    y, x = views.inset(raw, side)
    cut = (slice(y, y + side), slice(x, x + side))
    row = views.profile_row(raw[cut])
    pixel = data.voxel_size[1:]
    pictures, lines = [], []
    for name, plane in (("raw", raw), ("enhanced", enhanced)):
        low, high = display_range(plane[cut])
        alt = f"inset of {name}, {place(data, z)}, with the line of the profile"
        pictures.append(picture(plane[cut], alt, pixel=pixel, limits=(low, high)))
        lines.append((plane[y + row, x : x + side] - low) / (high - low))
    step = pixel[1]
    png = figures.profile(
        np.arange(side) * (step or 1.0),
        lines[0],
        lines[1],
        "position along the line (µm)" if step else "position along the line (px)",
    )
    plot = Plot(data_uri(png), f"raw and enhanced along the line, {place(data, z)}", 560)
    at = 100 * (row + 0.5) / side
    return {"label": place(data, z), "raw": pictures[0], "enhanced": pictures[1], "at": at, "plot": plot}


def strip(data: ReportData, z: int) -> dict[str, Any]:
    last = len(data.passes) - 1
    ks = sorted({round(k) for k in np.linspace(0, last, min(last + 1, MOST_COLUMNS))})
    raw = np.asarray(data.passes[0][z])
    rows, columns = raw.shape
    side = views.inset_side((rows, columns))
    y, x = views.inset(raw, side)
    chosen = float(data.chosen[z])
    near = {int(np.floor(chosen)), int(np.ceil(chosen))}
    pixel, valid = data.voxel_size[1:], None if data.valid is None else data.valid[z]
    panels = []
    for k in ks:
        plane = np.asarray(data.passes[k][z])
        alt = f"{pass_words(k)}, {place(data, z)}"
        square = plane[y : y + side, x : x + side]
        limits = display_range(plane, valid)
        panels.append(
            {
                "label": pass_words(k),
                "chosen": k in near,
                "whole": picture(plane, alt, pixel=pixel, limits=limits, long_side=THUMBNAIL, bar=k == 0),
                "inset": picture(square, f"inset of {alt}", pixel=pixel, bar=k == 0),
            }
        )
    box = (100 * x / columns, 100 * y / rows, 100 * side / columns, 100 * side / rows)
    return {"label": place(data, z), "k": k_words(chosen), "panels": panels, "box": box}


def choice(data: ReportData) -> dict[str, Any]:
    scored = bool(data.selection)
    png = figures.selection(
        data.depth_um, data.chosen, data.selection, data.selection_depth, data.selection_best, depth_axis(data)
    )
    low, high = float(np.min(data.chosen)), float(np.max(data.chosen))
    words = f"k = {low:.3g} in every plane" if low == high else f"k between {low:.3g} and {high:.3g}"
    width = 1120 if scored else 620
    return {"why": data.why, "words": words, "scored": scored, "plot": Plot(data_uri(png), "chosen k", width)}


def fidelity_map(data: ReportData, shown: list[int]) -> dict[str, Any] | None:
    """Return planes with what was lost and added laid over them, and the flagged area against depth."""
    if data.fidelity_map is None:
        return None
    panels = []
    for z in shown:
        plane, score = np.asarray(data.enhanced[z]), np.asarray(data.fidelity_map[z])
        valid = None if data.valid is None else data.valid[z]
        shades = [(*display_range(p, valid), p) for p in (np.asarray(data.passes[0][z]), plane)]
        pictures = [np.clip((p - low) / (high - low), 0, 1) for low, high, p in shades]
        panels.append((place(data, z), pictures[0], pictures[1], score))
    png = figures.fidelity_map(panels, data.flagged_from)
    area = np.full((len(data.fidelity_map), 2), np.nan)
    for z, plane in enumerate(data.fidelity_map):
        known = plane if data.valid is None else plane[data.valid[z]]
        if known.size:
            area[z] = (known > data.flagged_from).mean(), (known < -data.flagged_from).mean()
    curve = figures.flagged_area(data.depth_um, area, depth_axis(data))
    return {
        "plot": Plot(data_uri(png), "raw and result, with what was lost and added marked", 1120),
        "curve": Plot(data_uri(curve), "flagged area against depth", 1120),
        "limit": f"{data.flagged_from:g}",
        "lost": f"{np.nanmean(area[:, 0]):.1%}",
        "added": f"{np.nanmean(area[:, 1]):.1%}",
    }


def intensity(data: ReportData) -> dict[str, Any]:
    found = intensity_summary(data.passes[0], data.enhanced, data.depth_um, valid=data.valid)
    png = figures.falloff(found, depth_axis(data))
    rows = [
        (
            span(data, part["depth_from"], part["depth_to"]),
            number(part["slope"], ".2f"),
            number(part["r2"], ".2f"),
            counted(part["voxels"]),
        )
        for part in found["bins"]
    ]
    plot = Plot(data_uri(png), "brightness of structure against depth, and slope of enhanced on raw", 1120)
    return {
        "plot": plot,
        "rows": rows,
        "sentences": _intensity_words(found),
        "large": f"{found['large_px']:.3g}",
    }


def _intensity_words(found: IntensitySummary) -> list[str]:
    first, last = found["bins"][0], found["bins"][-1]
    sentences = []
    if len(found["bins"]) > 1 and np.isfinite(first["slope"]) and np.isfinite(last["slope"]):
        sentences.append(
            f"One grey level of structure in the raw became {first['slope']:.2f} near the surface and "
            f"{last['slope']:.2f} in the deepest part: equal structures are not amplified equally."
            if abs(first["slope"] - last["slope"]) > 0.02 * abs(first["slope"])
            else f"One grey level of structure in the raw became {first['slope']:.2f} at every depth."
        )
    if np.isfinite(found["raw_deep"]) and np.isfinite(found["enhanced_deep"]) and len(found["bins"]) > 1:
        sentences.append(
            f"Against the surface, the deepest structure is {found['raw_deep']:.2f} times as bright in the "
            f"raw, and {found['enhanced_deep']:.2f} times in the result."
        )
    return sentences


def equalised(data: ReportData) -> dict[str, Any] | None:
    """Return by what the planes were multiplied, or nothing where they were not."""
    if data.equalised is None:
        return None
    png = figures.equalised(data.depth_um, data.equalised["factor"], data.equalised["measured"], depth_axis(data))
    plot = Plot(data_uri(png), "factor of the planes, and brightness of structures, against depth", 1120)
    return {"plot": plot, "words": data.equalised["words"]}


def invalid(data: ReportData) -> dict[str, Any] | None:
    counts = {reason: np.asarray(n, float) for reason, n in data.invalid.items() if np.sum(n) > 0}
    if not counts:
        return None
    area = int(data.enhanced.shape[1]) * int(data.enhanced.shape[2])
    total = area * len(data.depth_um)
    words = [
        f"{reason}: {counted(n.sum())} voxels ({100 * n.sum() / total:.2g} %), {counted((n > 0).sum())} planes"
        for reason, n in counts.items()
    ]
    png = figures.invalid(data.depth_um, {r: n / area for r, n in counts.items()}, depth_axis(data))
    return {"words": words, "plot": Plot(data_uri(png), "share of invalid voxels against depth", 1120)}


def camera(data: ReportData) -> dict[str, Any]:
    camera = data.camera
    means, variances = (np.asarray(camera.get(key, ()), float) for key in ("means", "variances"))
    gain, intercept = (finite(camera.get(key)) for key in ("gain", "intercept"))
    plot = None
    if means.size:
        png = figures.noise(means, variances, gain, intercept)
        plot = Plot(data_uri(png), "variance of the noise against mean intensity", 540)
    facts = [
        ("Gain", with_unit(gain, "grey levels per photon")),
        ("Noise would vanish at", with_unit(intercept, "grey levels")),
        ("Camera offset", with_unit(camera.get("offset"), "grey levels", "not known apart from read noise")),
        (
            "Read noise",
            with_unit(camera.get("read_noise"), "grey levels", "not known apart from the offset"),
        ),
        ("Behaves like photon noise", words(camera.get("poissonian"))),
        ("Correlation of noise with its neighbour in z, y, x", words(camera.get("whiteness"))),
        ("Correlation of noise between distant planes", words(camera.get("fixed_pattern"))),
        ("Fixed pattern that was removed", words(camera.get("pattern_kind"))),
    ]
    pattern = None
    if data.pattern is not None:
        half = float(np.percentile(np.abs(data.pattern), 99.5)) or 1.0
        pattern = picture(
            np.asarray(data.pattern),
            "fixed pattern of the camera",
            pixel=data.voxel_size[1:],
            limits=(-half, half),
            long_side=512,
        )
    known = [(name, value) for name, value in facts if value != "not known"]
    sentence = ""
    if gain is not None and camera.get("poissonian") is not False:
        sentence = (
            f"One photon makes about {gain:.3g} grey levels: the points lie on a line when the noise comes "
            "from photons, and the line's slope is the gain."
        )
    elif camera.get("poissonian") is False:
        sentence = "The noise is not plain photon noise; what was done instead is said below."
    return {
        "plot": plot,
        "facts": known,
        "sentence": sentence,
        "notes": tuple(camera.get("notes") or ()),
        "pattern": pattern,
    }


def degradation(data: ReportData) -> dict[str, Any]:
    given = data.degradation
    blur = with_unit(given.get("sigma_px"), "px", otherwise="")
    if given.get("sigma_um") is not None:
        blur += f" = {given['sigma_um']:.3g} µm"
    sigmas, share, layers = (given.get(name) for name in ("sigmas_px", "thin", "layers"))
    if narrower := [f"{one:.3g}" for one in sigmas or () if one != given.get("sigma_px")]:
        blur += f", mixed at random with {', '.join(narrower)} px"
    shallow, deep = given.get("alpha_surface"), given.get("alpha_deep")
    example = None
    if data.degraded_example is not None:
        raw, worse = (np.asarray(plane, np.float32) for plane in data.degraded_example)
        pixel, limits = data.voxel_size[1:], display_range(raw)
        example = {
            "raw": picture(raw, "raw plane", pixel=pixel, limits=limits, long_side=512),
            "degraded": picture(
                worse, "the same plane, degraded for training", pixel=pixel, limits=limits, long_side=512
            ),
        }
    return {
        "blur": blur,
        "why": str(given.get("why") or ""),
        "share": None
        if shallow is None or deep is None
        else f"{shallow:.3g} at the surface to {deep:.3g} at the deepest",
        "noise": _shared(share or 0.0, bool(given.get("recorrupted"))),
        "planes": _planes(layers or (0,), bool(given.get("in_space"))),
        "example": example,
    }


def _shared(share: float, recorrupted: bool) -> str:
    """Return in words what noise the network's input and target have in common."""
    if recorrupted:
        return "noise added to the input and taken from the target, so that they share none"
    if share:
        return f"photons shared out, {share:.0%} to the input, the others to the target: they share no noise"
    return "all noise in both, as published: what the network returns keeps it"


def _planes(layers: Sequence[int], in_space: bool) -> str:
    """Return in words what the network is given to restore a plane."""
    if len(layers) == 1:
        return "the plane alone"
    if in_space:
        return f"slabs of {len(layers)} planes, all of which it learns to restore"
    return f"the plane and those at {', '.join(f'{n:+d}' for n in layers if n)} from it"


def training(data: ReportData) -> dict[str, Any] | None:
    if not np.size(data.training.get("loss", ())):
        return None
    plot = Plot(data_uri(figures.training(data.training)), "training and validation loss against step", 1120)
    held_out = np.asarray(data.training.get("val_loss", ()), float)
    words = f"{counted(np.max(data.training['step']))} steps"
    if np.isfinite(held_out).any():
        best = int(np.nanargmin(held_out))
        at = counted(data.training["val_step"][best])
        words += f"; the lowest loss on held-out regions is {held_out[best]:.4g}, at step {at}"
    return {"plot": plot, "words": words}

"""The plots of the report: arrays to PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator
from scipy import ndimage, stats

from deepcontrast.report.canvas import ENHANCED, INK, RAW, new_figure, plain_style, png_bytes, room, say
from deepcontrast.report.data import Array
from deepcontrast.report.intensity import IntensitySummary

MARKER_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
LOST, ADDED = "#e66100", "#2a8cff"
Bands = tuple[Array, Array, Array]
"""Planes, lower and upper end: (P,), (curves, P), (curves, P)."""


def colour_of_k(k: float, last: int) -> Any:
    """Return the colour of pass k: viridis from dark to light; raw is grey."""
    return RAW if k == 0 else colormaps["viridis"](0.9 * (k - 1) / max(last - 1, 1))


def contrast(
    depth: Array,
    curves: Mapping[str, Array],
    bands: Mapping[str, Bands],
    written: Mapping[str, Array],
    marks: Sequence[float],
    depth_label: str,
) -> bytes:
    """Plot contrast against depth, one panel per index, a line per pass (the paper's figure 4).

    Args:
        depth: (Z,).
        curves: index to (K + 1, Z), raw first.
        bands: index to the bands of its curves, where there are any.
        written: index to (Z,), the contrast at the k that was chosen.
        marks: depths to mark, those of the planes shown.
        depth_label: the axis in words.
    """
    order = np.argsort(depth, kind="stable")
    with plain_style():
        figure = new_figure(1120, 400)
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (name, values) in zip(panels, curves.items(), strict=True):
            last = len(values) - 1
            for mark in marks:
                axes.axvline(mark, color="#bbbbbb", linewidth=0.8, linestyle=(0, (2, 3)))
            for k, line in enumerate(values):
                colour = colour_of_k(k, last)
                if name in bands:
                    planes, low, high = bands[name]
                    by = np.argsort(depth[planes], kind="stable")
                    where = depth[planes][by]
                    axes.fill_between(where, low[k][by], high[k][by], color=colour, alpha=0.16, linewidth=0)
                axes.plot(depth[order], line[order], color=colour, label="raw" if k == 0 else f"k = {k}")
            if name in written:
                shown = written[name][order]
                axes.plot(
                    depth[order],
                    shown,
                    color="black",
                    linewidth=2.2,
                    linestyle=(0, (1, 1.6)),
                    label="written",
                )
            axes.set_title(name)
            axes.set_xlabel(depth_label)
            if not np.isfinite(values).any():
                say(axes, "not defined in any plane")
                axes.set_yticks([])
            room(axes, depth)
        panels[0].set_ylabel("contrast (natural logarithm)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=10, handlelength=1.6)
        return png_bytes(figure)


def stack_bands(values: Array) -> Bands:
    """Return the mean's 95 % confidence band over stacks, by Student's t: values are (stacks, K + 1, Z)."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    safe = np.maximum(count, 1)
    mean = np.where(known, values, 0).sum(axis=0) / safe
    spread = np.where(known, values - mean, 0) ** 2
    error = np.sqrt(spread.sum(axis=0) / np.maximum(count - 1, 1) / safe)
    half = np.where(count >= 2, stats.t.ppf(0.975, np.maximum(count - 1, 1)) * error, np.nan)
    return np.arange(values.shape[2]), mean - half, mean + half


def tile_bands(curves: Array, tiles: Array, planes: Array, draws: int = 500) -> Bands | None:
    """Return the 95 % band of a block bootstrap over xy tiles, about the curves of the whole plane.

    A draw takes whole tiles, with replacement, the same for every plane and pass: neighbouring planes are
    not independent. The band is that of the tile mean, moved onto the curve.

    Args:
        curves: (K + 1, Z).
        tiles: (K + 1, Z', tiles), NaN where undefined.
        planes: (Z',) which planes of Z.
        draws: number of bootstrap draws.
    """
    count = tiles.shape[2]
    if count < 2 or not np.isfinite(tiles).any():
        return None
    picks = np.random.default_rng(0).integers(count, size=(draws, count))
    weight = np.stack([np.bincount(pick, minlength=count) for pick in picks], axis=1).astype(np.float64)
    known = np.isfinite(tiles)
    total = known @ weight
    means = np.divide(np.where(known, tiles, 0) @ weight, total, out=np.full(total.shape, np.nan), where=total > 0)
    n = known.sum(axis=2)
    centre = np.where(known, tiles, 0).sum(axis=2) / np.maximum(n, 1)
    # A tile mean of one or no tile says nothing of variation.
    off = np.where((n >= 2)[..., None] & np.isfinite(means), means - centre[..., None], 0.0)
    low, high = np.percentile(off, [2.5, 97.5], axis=2)
    at = curves[:, planes]
    blank = np.where(n >= 2, 0.0, np.nan)
    return planes, at + low + blank, at + high + blank


def selection(
    depth: Array, chosen: Array, scores: Mapping[str, Array], bins: Array, best: Array, depth_label: str
) -> bytes:
    """Plot what the rule for k looked at, against k for each part of the depth, and the chosen k against depth.

    Args:
        depth: of the planes (Z,).
        chosen: k of the planes (Z,).
        scores: name to values (B, K + 1) of k = 0 .. K.
        bins: depth of the parts (B,).
        best: k that was taken in each (B,).
        depth_label: the axis in words.
    """
    order = np.argsort(depth, kind="stable")
    with plain_style():
        figure = new_figure(1120 if scores else 620, 330)
        panels = list(figure.subplots(1, len(scores) + 1, squeeze=False)[0])
        for axes, (name, table) in zip(panels, scores.items(), strict=False):
            ks = np.arange(np.shape(table)[1])
            for i, line in enumerate(np.asarray(table, float)):
                colour = colormaps["cividis"](0.95 * (1 - i / max(len(bins) - 1, 1)))
                line = np.where(np.isfinite(line), line, np.nan)
                axes.plot(ks, line, color=colour, marker=".", markersize=5, label=f"{bins[i]:.3g}")
                known = np.isfinite(line)
                if known.any():
                    height = float(np.interp(best[i], ks[known], line[known]))
                    axes.plot([best[i]], [height], marker="o", markersize=8.5, color=colour, markeredgecolor="black")
            axes.set_title(name[0].upper() + name[1:])
            axes.set_xlabel("k, number of passes")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if scores:
            handles, labels = panels[-2].get_legend_handles_labels()
            step = max(1, -(-len(labels) // 10))
            place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
            panels[-2].legend(handles[::step], labels[::step], title=depth_label, **place)
        axes = panels[-1]
        axes.plot(depth[order], chosen[order], color=INK)
        axes.fill_between(depth[order], 0, chosen[order], color=ENHANCED, alpha=0.12, linewidth=0)
        axes.set_title("The k that was written")
        axes.set_xlabel(depth_label)
        axes.set_ylabel("k, number of passes")
        axes.set_ylim(0, float(np.nanmax(chosen, initial=0)) + 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        room(axes, depth)
        return png_bytes(figure)


def profile(position: Array, raw: Array, enhanced: Array, x_label: str) -> bytes:
    """Plot raw and enhanced along a line, each as a share of the display range of its picture."""
    with plain_style():
        figure = new_figure(560, 250)
        axes = figure.subplots()
        axes.plot(position, raw, color=RAW, linewidth=1.2, label="raw")
        axes.plot(position, enhanced, color=ENHANCED, linewidth=1.8, label="enhanced")
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.set_xlabel(x_label)
        axes.set_ylabel("share of display range")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
        room(axes, position)
        return png_bytes(figure)


def noise(means: Array, variances: Array, gain: float | None, intercept: float | None) -> bytes:
    """Plot the variance of the residual against its mean, and the camera's line."""
    with plain_style():
        figure = new_figure(540, 330)
        axes = figure.subplots()
        axes.plot(means, variances, "o", color=ENHANCED, markersize=4, alpha=0.75, label="measured")
        if gain is not None and intercept is not None and means.size:
            x = np.array([min(float(np.min(means)), intercept), float(np.max(means))])
            axes.plot(x, gain * (x - intercept), color="#d55e00", label=f"{gain:.3g} × (mean − {intercept:.4g})")
        top = float(np.max(variances, initial=0))
        axes.set_ylim(-0.03 * top if top > 0 else -1, 1.08 * top if top > 0 else 1)
        axes.set_xlabel("mean (grey levels)")
        axes.set_ylabel("variance (grey levels²)")
        axes.legend(loc="upper left")
        return png_bytes(figure)


def training(curves: Mapping[str, Array]) -> bytes:
    """Plot training and validation loss against the step."""
    step, loss = np.asarray(curves["step"], float), np.asarray(curves["loss"], float)
    at = np.asarray(curves.get("val_step", ()), float)
    held_out = np.asarray(curves.get("val_loss", ()), float)
    with plain_style():
        figure = new_figure(1120, 300)
        axes = figure.subplots()
        window = max(1, len(loss) // 60)
        thin = max(1, len(loss) // 3000)
        axes.plot(step[::thin], loss[::thin], color="#b9cfdf", linewidth=0.7, label="each step")
        if window > 1:
            mean = np.convolve(loss, np.ones(window) / window, mode="valid")
            axes.plot(step[window - 1 :], mean, color=ENHANCED, label=f"mean of {window} steps")
        if at.size:
            axes.plot(at, held_out, "o-", color="#d55e00", markersize=4, label="held-out regions")
        both = np.concatenate([loss, held_out])
        both = both[np.isfinite(both)]
        if both.size and both.min() > 0 and both.max() > 4 * both.min():
            axes.set_yscale("log")
        axes.set_xlabel("training step")
        axes.set_ylabel("loss")
        axes.legend(loc="upper right", ncols=3)
        return png_bytes(figure)


def fidelity_map(panels: Sequence[tuple[str, Array, Array, Array]], flagged_from: float) -> bytes:
    """Show planes of raw and result, and the result with lost and added structure marked.

    Args:
        panels: label, raw and result as shares of their display ranges, and the map's scores; each (Y, X).
        flagged_from: size of a score that is marked.
    """
    _, height, width = np.shape(panels[0][1:])
    with plain_style():
        figure = new_figure(1120, len(panels) * (float(np.clip(370 * height / width, 60, 740)) + 22))
        rows = figure.subplots(len(panels), 3, squeeze=False)
        for axes, (label, raw, result, score) in zip(rows, panels, strict=True):
            block = max(1, -(-max(height, width) // 620))
            before, after = (image[::block, ::block] for image in (raw, result))
            marked = np.repeat(after[..., None], 3, axis=2)
            for sign, colour in ((1, LOST), (-1, ADDED)):
                # A mark of one pixel must not fall between those that are shown.
                chosen = ndimage.maximum_filter(sign * score, block)[::block, ::block] > flagged_from
                marked[chosen] = 0.35 * marked[chosen] + 0.65 * np.array(to_rgb(colour))
            for panel, image, name in zip(axes, (before, after, marked), ("raw", "result", "marked"), strict=True):
                panel.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                panel.set_title(f"{name}, {label}" if name == "raw" else name)
                panel.set_axis_off()
        return png_bytes(figure)


def flagged_area(depth: Array, area: Array, depth_label: str) -> bytes:
    """Plot the share of every plane (Z, 2) that is flagged as lost and as added, in percent."""
    order = np.argsort(depth, kind="stable")
    with plain_style():
        figure = new_figure(1120, 220)
        axes = figure.subplots()
        for i, (name, colour) in enumerate((("lost", LOST), ("added", ADDED))):
            axes.plot(depth[order], 100 * area[order, i], color=colour, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(depth_label)
        axes.set_ylabel("% of the plane")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
        room(axes, depth)
        return png_bytes(figure)


def equalised(depth: Array, factor: Array, measured: Array, depth_label: str) -> bytes:
    """Plot the factor of every plane (Z,), and the brightness of structures (2, N) before and after."""
    order = np.argsort(depth, kind="stable")
    at, before = measured
    after = before * np.interp(at, depth[order], factor[order])
    with plain_style():
        figure = new_figure(1120, 240)
        left, right = figure.subplots(1, 2)
        left.plot(depth[order], factor[order], color=ENHANCED)
        left.set_ylabel("factor")
        for levels, colour, name in ((before, RAW, "before"), (after, ENHANCED, "as written")):
            right.plot(at, levels, ".", color=colour, label=name)
        right.set_ylabel("grey levels above the offset")
        right.set_ylim(bottom=0)
        right.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
        for axes in (left, right):
            axes.set_xlabel(depth_label)
            room(axes, depth)
        return png_bytes(figure)


def falloff(summary: IntensitySummary, depth_label: str) -> bytes:
    """Plot the brightness of structure with depth, before and after, and the slope of one on the other."""
    depth = np.asarray(summary["depth"])
    with plain_style():
        figure = new_figure(1120, 320)
        left, right = figure.subplots(1, 2)
        left.plot(depth, summary["raw"], "o-", color=RAW, markersize=3.5, label="raw")
        left.plot(depth, summary["enhanced"], "o-", color=ENHANCED, markersize=3.5, label="enhanced")
        left.axhline(1, color="#999999", linewidth=0.8)
        left.set_ylim(bottom=0)
        left.set_title("Brightness of structure, shallowest part = 1")
        left.set_xlabel(depth_label)
        left.legend(loc="best")
        room(left, depth)
        middle = [(part["depth_from"] + part["depth_to"]) / 2 for part in summary["bins"]]
        slopes = [part["slope"] for part in summary["bins"]]
        right.plot(middle, slopes, "o-", color=ENHANCED)
        for x, y, part in zip(middle, slopes, summary["bins"], strict=True):
            if np.isfinite(y):
                right.annotate(f"R² {part['r2']:.2f}", (x, y), xytext=(0, 8), textcoords="offset points", ha="center")
        top = max([s for s in slopes if np.isfinite(s)], default=1.0)
        right.set_ylim(min(0.0, *(s for s in slopes if np.isfinite(s)), 0.0), 1.25 * top if top > 0 else 1.0)
        right.set_title("Slope of enhanced on raw structure signal")
        right.set_xlabel(depth_label)
        room(right, depth)
        return png_bytes(figure)


def invalid(depth: Array, shares: Mapping[str, Array], depth_label: str) -> bytes:
    """Plot the share of every plane that holds no measurement, by reason, in percent."""
    order = np.argsort(depth, kind="stable")
    with plain_style():
        figure = new_figure(1120, 220)
        axes = figure.subplots()
        for i, (reason, share) in enumerate(shares.items()):
            colour = MARKER_COLOURS[i % len(MARKER_COLOURS)]
            axes.plot(depth[order], 100 * share[order], color=colour, label=reason)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(depth_label)
        axes.set_ylabel("% of the plane")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.1)
        room(axes, depth)
        return png_bytes(figure)

"""The straight line of variance against mean, fitted to the blocks that structure leaves alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.noise.blocks import MIN_BLOCKS, ORDERS, Blocks
from deepcontrast.noise.planes import Bools, Floats

LAST = len(ORDERS) - 1


@dataclass(frozen=True)
class Line:
    """variance = gain (mean - intercept), never below a floor."""

    gain: float
    intercept: float
    floor: float
    error: float  # standard error of the gain
    keep: Bools  # (n,) the blocks it rests on
    order: int  # which of ORDERS their residual is of
    intercept_error: float  # standard error of the intercept: the line turned about the middle of its blocks

    def variance(self, mean: Floats) -> Floats:
        return np.maximum(self.gain * (mean - self.intercept), self.floor)


def fit_line(blocks: Blocks) -> Line | None:
    """Return the line of the most efficient filter that agrees with the most structure-proof one.

    The reference is the highest order, on the blocks with the least texture.
    """
    full = _line(blocks, LAST)
    if full is None or full.gain <= 0:
        return full
    texture = blocks.texture / full.variance(blocks.light[LAST])
    calm = least(texture, groups_of(blocks.light[LAST], 12), 0.3) | (texture < 1.5)
    reference = _line(blocks, LAST, calm)
    if reference is None or reference.gain <= 0:
        return full
    for order in range(len(ORDERS)):
        line = full if order == LAST else _line(blocks, order)
        if line is not None and line.gain > 0 and _agrees(blocks, line, reference):
            return line
    return reference


def intercept_for(blocks: Blocks, line: Line, gain: float) -> float:
    """Return the zero-variance intercept that goes with a given gain."""
    mean, power, light = (rows[line.order][line.keep] for rows in (blocks.mean, blocks.power, blocks.light))
    weight = 1 / line.variance(light) ** 2
    return float(np.sum(weight * (mean - power / gain)) / weight.sum())


def binned(blocks: Blocks, line: Line | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and variance of at most 40 groups of the blocks that the line rests on, or of all."""
    order, keep = (LAST, np.ones(len(blocks.depth), bool)) if line is None else (line.order, line.keep)
    mean, power, light = (rows[order][keep] for rows in (blocks.mean, blocks.power, blocks.light))
    groups = groups_of(light, max(1, min(40, len(light) // 8)))
    size = np.bincount(groups)
    means, powers = np.bincount(groups, mean) / size, np.bincount(groups, power) / size
    return tuple(map(float, means)), tuple(map(float, powers))


def groups_of(light: Floats, count: int) -> NDArray[np.int64]:
    """Return for every block which of ``count`` equally large groups of rising brightness it is in."""
    order = np.argsort(np.argsort(light, kind="stable"), kind="stable")
    return np.asarray(order * count // len(light), np.int64)


def least(values: Floats, groups: NDArray[np.int64], share: float) -> Bools:
    """Mark in every group the blocks below that quantile of the values."""
    keep = np.zeros(len(values), bool)
    for g in np.unique(groups):
        inside = groups == g
        keep |= inside & (values <= np.quantile(values[inside], share))
    return keep


def _line(blocks: Blocks, order: int, among: Bools | None = None) -> Line | None:
    """Fit variance against mean; blocks whose residual is larger than noise makes it are left out (one-sided).

    The neighbours' mean serves as instrument and sets the weights: a block's own mean carries the noise of its own
    residual, which would tilt the line at low counts.
    """
    mean, power, light = blocks.mean[order], blocks.power[order], blocks.light[order]
    among = np.ones(len(mean), bool) if among is None else among
    if float(np.median(power / blocks.count)) < 0.003 * float(np.var(mean[among])):
        light = mean  # so much light that the block's own mean is as good and more to the point
    groups = groups_of(light, max(4, min(24, len(mean) // 12)))
    middles = [(light[s].mean(), np.median(power[s])) for g in np.unique(groups) if (s := among & (groups == g)).any()]
    spots, levels = np.array([m[0] for m in middles]), np.array([m[1] for m in middles])
    if len(spots) < 2 or np.ptp(spots) <= 1e-9 * max(1.0, float(np.abs(spots).max())):
        return None
    floor = 0.05 * float(np.median(levels))
    if floor <= 0:
        return None
    gain, constant = np.polyfit(spots, levels, 1)
    keep, error, centre = among, float("inf"), 0.0
    for _ in range(12):
        guess = np.maximum(gain * light + constant, floor)
        ratio = power / guess
        low = ratio[keep & (ratio < 1)]
        spread = float(np.sqrt(np.mean((low - 1) ** 2))) if low.size else 1.0
        keep = among & (ratio < 1 + 5 * spread)
        if keep.sum() < MIN_BLOCKS // 2:
            return None
        weight = 1 / guess[keep] ** 2
        centre = float(np.sum(weight * light[keep]) / weight.sum())
        lever = weight * (light[keep] - centre)
        moment = float(np.sum(lever * mean[keep]))
        if moment <= 0:
            return None
        gain = float(np.sum(lever * power[keep])) / moment
        constant = float(np.sum(weight * (power[keep] - gain * mean[keep])) / weight.sum())
        rest = power[keep] - gain * mean[keep] - constant
        error = float(np.sqrt(2 * np.sum((lever * rest) ** 2))) / moment  # planes share neighbours: twice
    if gain == 0 or not np.isfinite(gain):
        return None
    intercept = -constant / gain
    return Line(gain, intercept, floor, error, keep, order, abs((centre - intercept) * error / gain))


def _agrees(blocks: Blocks, line: Line, reference: Line) -> bool:
    """Say whether in no third of the brightness the residual exceeds the reference by more than chance and 1.5 %."""
    thirds = groups_of(blocks.light[line.order], 3)
    for third in range(3):
        mine, theirs = (
            (blocks.power[one.order] / reference.variance(blocks.mean[one.order]))[one.keep & (thirds == third)]
            for one in (line, reference)
        )
        if len(mine) < 4 or len(theirs) < 4:
            continue
        error = np.sqrt(2 * (mine.var() / len(mine) + theirs.var() / len(theirs)))
        if mine.mean() - theirs.mean() > 0.015 + 1.5 * error:
            return False
    return True

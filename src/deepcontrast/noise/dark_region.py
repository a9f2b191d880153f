"""A region without light, where the image shows one: only there are offset and read noise told apart."""

from __future__ import annotations

import numpy as np

from deepcontrast.noise.blocks import MIN_BLOCKS, Blocks
from deepcontrast.noise.grey_levels import Grey

READ_NOISE = 3.5  # electrons; a "dark" region noisier than this is taken to be lit


def signal_free(blocks: Blocks, gain: float, grey: Grey) -> tuple[float, float] | None:
    """Return offset and read noise in grey levels where a flat, dark, unlit region shows them, else None.

    It must be a separate peak of block means at the dark end, no wider than noise makes it; its noise must be that
    of a camera, and symmetric: shot noise of a faint even light would be skewed (third cumulant = gain x variance).
    """
    level, third, power = blocks.level, blocks.third, blocks.power[0]
    order = np.argsort(level)
    lowest = order[: max(MIN_BLOCKS, len(order) // 20)]
    width = float(np.sqrt(np.median(power[lowest]) / np.median(blocks.count[lowest])))
    if width <= 0:
        return None
    ranked = level[order]
    inside = np.searchsorted(ranked, ranked + 4 * width) - np.arange(len(ranked))
    start = int(np.argmax(inside[: max(1, len(ranked) // 2)]))
    offset = float(ranked[start] + 2 * width)
    for _ in range(5):
        peak = np.abs(level - offset) < 3 * width
        if not peak.any():
            return None
        offset = float(np.median(level[peak]))
    number = int(peak.sum())
    below = int((level < offset - 4 * width).sum())
    above = int(((level > offset + 3 * width) & (level < offset + 6 * width)).sum())
    if number < max(MIN_BLOCKS, 0.01 * len(level)) or below > 0.05 * number or above > 0.25 * number:
        return None
    if float(level[peak].std()) > 1.4 * width:
        return None
    variance = float(power[peak].mean())
    skew, error = float(third[peak].mean()), float(third[peak].std() / np.sqrt(number))
    if skew - 2 * error > 0.25 * gain * variance:
        return None
    noise = float(np.sqrt(max(variance - grey.step**2 / 12, 0.0)))
    return (float(level[peak].mean()), noise) if noise <= READ_NOISE * gain else None

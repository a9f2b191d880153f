"""Tables of what was measured, in Markdown. Needs nothing but Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from statistics import median

from sides import Measured
from startup import Start

REFERENCE = "csbdeep"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is words, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def compared(results: Sequence[Measured]) -> str:
    """Return the table of one measure: a line per network and side, the ratio to csbdeep beside it.

    Above 1 a side takes fewer CPU seconds than csbdeep.
    """
    rows = []
    for case, group in groupby(results, key=lambda result: result.case):
        sides = list(group)
        reference = median(next(side for side in sides if side.side == REFERENCE).cpu_seconds)
        for side in sides:
            middle = median(side.cpu_seconds)
            spread = f"{min(side.cpu_seconds):.2f} to {max(side.cpu_seconds):.2f}"
            ratio, peak = f"{reference / middle:.2f}", f"{side.peak / 1e9:.2f}"
            rows.append([case, side.side, f"{side.parameters:,}", f"{middle:.2f}", spread, ratio, peak])
    return markdown(
        ["network", "side", "weights", "CPU s, median", "CPU s, range", "times as fast as csbdeep", "peak, GB"], rows
    )


def started(starts: Sequence[Start]) -> str:
    """Return the table of commands and what they take on the clock and in CPU seconds."""
    rows = []
    for start in starts:
        values = [min(start.seconds), median(start.seconds), min(start.cpu_seconds), median(start.cpu_seconds)]
        rows.append([start.command, *(f"{value:.2f}" for value in values)])
    return markdown(["command", "least, s", "median, s", "least, CPU s", "median, CPU s"], rows)


def put(page: str, section: str, text: str) -> str:
    """Return a page with the text between the markers of a section, in place of what was there.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not found.search(page):
        raise ValueError(f"the page has no '{begin}' ... '{end}'")
    return found.sub(lambda _: f"{begin}\n{text}{end}", page)

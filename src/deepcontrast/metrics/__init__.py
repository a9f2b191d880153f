"""What an image is worth: each file one metric, a function from images to measurements.

A metric takes one plane (Y, X) and keyword-only extras, and returns measurements. Where a value is not
defined it is ``None`` and the reason says why; it is never infinite and never NaN.
"""

from typing import NamedTuple


class Measurement(NamedTuple):
    """One number: the metric's name, its value (``None`` where undefined) and then the reason."""

    metric: str
    value: float | None
    reason: str = ""

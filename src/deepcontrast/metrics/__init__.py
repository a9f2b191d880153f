"""What an image is worth: each file one metric, a function from images to measurements.

A metric takes an image, where it needs one what to compare it with (truth, reference, mask, labels), and
keyword-only extras, and returns measurements. Most take one plane (Y, X); ``iou_stack`` a volume (Z, Y, X),
``nrmse``, ``ssim``, ``seg``, ``error``, ``jaccard``, ``isotropy``, ``fourier_shell`` and ``spots`` either. Where a
value is not defined it is ``None`` and the reason says why; it is never infinite and never NaN.
"""

from typing import NamedTuple


class Measurement(NamedTuple):
    """One number: the metric's name, its value (``None`` where undefined) and then the reason."""

    metric: str
    value: float | None
    reason: str = ""

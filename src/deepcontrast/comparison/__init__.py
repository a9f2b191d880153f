"""Every method side by side on one stack: ours for every k, and what a user would do instead, scored alike."""

from deepcontrast.comparison.scoring import Known
from deepcontrast.comparison.side_by_side import Compared, check_methods, compare, leaders, lines, means

__all__ = ["Compared", "Known", "check_methods", "compare", "leaders", "lines", "means"]

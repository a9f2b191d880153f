"""Apply trained networks to volumes, tile by tile. It receives a task and knows none."""

from deepcontrast.prediction.nets import load_nets
from deepcontrast.prediction.plan import Plan, make_plan
from deepcontrast.prediction.precision_error import PrecisionError
from deepcontrast.prediction.seam import Seam
from deepcontrast.prediction.tiled import Done, predict_apart, predict_pass

__all__ = ["Done", "Plan", "PrecisionError", "Seam", "load_nets", "make_plan", "predict_apart", "predict_pass"]

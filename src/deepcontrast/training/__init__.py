"""Training: draw, degrade, predict, compare, step. It receives a task and knows none.

``loop`` is the schedule, ``step`` one step, ``learner`` what it changes, ``mode`` how the network is computed,
``checkpoint`` what a resumed run needs, ``distributed`` several processes, one per device.
"""

from deepcontrast.training.learner import initialise
from deepcontrast.training.loop import Trained, learning_rate, settle, threads, train, validate
from deepcontrast.training.mode import Mode

__all__ = ["Mode", "Trained", "initialise", "learning_rate", "settle", "threads", "train", "validate"]

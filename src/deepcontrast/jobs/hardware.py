"""What a run ran on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepcontrast.model import Model
from deepcontrast.training import distributed


def hardware(device: str, model: Model | None = None) -> dict[str, Any]:
    """Return what the run ran on, and the precision that its model was trained in."""
    trained_in = {} if model is None else {"trained_in": model.provenance.get("precision", "float32")}
    return {
        **trained_in,
        "device": device,
        "name": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def machine(device: str) -> dict[str, Any]:
    """Return what a resumed run must share with the first for the same bytes."""
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": device,
        "processes": distributed.size(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

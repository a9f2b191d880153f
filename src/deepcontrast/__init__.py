"""DeepContrast: contrast of deep-tissue stacks without ground truth.

    import deepcontrast as dc
    dc.enhance(dc.open("liver.tif")).save("liver_enhanced/")

Names are loaded when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepcontrast.api import Restorer, Result, enhance, evaluate, load, predict, train
    from deepcontrast.config import Config
    from deepcontrast.errors import DeepContrastError
    from deepcontrast.jobs.images import open_image as open
    from deepcontrast.jobs.images import undo_equalise
    from deepcontrast.stack import Optics, Stack

__version__ = "0.1.0"

_HOMES = {
    "Config": "config:Config",
    "DeepContrastError": "errors:DeepContrastError",
    "Optics": "stack:Optics",
    "Restorer": "api:Restorer",
    "Result": "api:Result",
    "Stack": "stack:Stack",
    "enhance": "api:enhance",
    "evaluate": "api:evaluate",
    "load": "api:load",
    "open": "jobs.images:open_image",
    "predict": "api:predict",
    "train": "api:train",
    "undo_equalise": "jobs.images:undo_equalise",
}

__all__ = [
    "Config",
    "DeepContrastError",
    "Optics",
    "Restorer",
    "Result",
    "Stack",
    "enhance",
    "evaluate",
    "load",
    "open",
    "predict",
    "train",
    "undo_equalise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deepcontrast' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"deepcontrast.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

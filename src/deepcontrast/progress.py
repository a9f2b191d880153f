"""What a long function tells its listener: the command line, a plugin, a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One report of a long function.

    Attributes:
        stage: what is being done, e.g. ``"train"`` or ``"predict"``.
        done: units finished; equal to ``total`` in the last event of a stage.
        total: units in all; 0 for a message without a measure, whose line is ``values["message"]``.
        values: numbers or words of the moment, e.g. ``{"loss": 0.1}``.
    """

    stage: str
    done: int = 0
    total: int = 0
    values: Mapping[str, object] = field(default_factory=dict)


Progress = Callable[[Event], None]
"""A listener. It may raise :class:`deepcontrast.errors.Cancelled` to stop the work."""


def silent(event: Event) -> None:
    """Listen to nothing: the default of every library function."""

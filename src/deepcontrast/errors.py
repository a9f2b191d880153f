"""Every error a user can cause or mend, each also the builtin it resembles.

A message is one line: what was given, what is accepted, the nearest match where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DeepContrastError(Exception):
    """Something outside the program must change; the command line exits with 2."""


class InputError(DeepContrastError, ValueError):
    """The image, option or setting that was given cannot be used."""


class InputNotFoundError(DeepContrastError, FileNotFoundError):
    """A file or folder that was named is not there."""


class OutputExistsError(DeepContrastError, FileExistsError):
    """The output is there already, or another run is at work on it."""


class OutputError(DeepContrastError, OSError):
    """The output cannot be written: disk full, no permission."""


class ModelFileError(DeepContrastError, ValueError):
    """A model file is truncated, altered, or of a newer format."""


class Cancelled(DeepContrastError, RuntimeError):
    """Raised by a progress listener to stop a long function; what was done can be resumed."""


def nearest(given: str, accepted: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest accepted word, or an empty string."""
    match = get_close_matches(given, list(accepted), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""

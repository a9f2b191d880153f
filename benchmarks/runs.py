"""What a benchmark has done already: one JSON line for every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def kept(file: Path) -> list[dict[str, Any]]:
    """Return the runs that are done."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

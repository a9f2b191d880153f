"""What a running job tells, as a progress bar, lines, JSON, or silence."""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

from deepcontrast.progress import Event, Progress


class Listener:
    """Turns events into a progress bar, lines, JSON, or silence."""

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.last = 0.0
        self.stage = ""
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Listener:
        # The numbers behind these are checked where they are used; a user can do nothing about them.
        warnings.simplefilter("ignore")
        if not self.quiet and not self.as_json and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, line: str) -> None:
        if self.as_json:
            print(json.dumps({"message": line}), flush=True)
        elif not self.quiet:
            if self.bar:
                self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
            else:
                print(line, flush=True)

    @property
    def progress(self) -> Progress:
        return self._event

    def _event(self, event: Event) -> None:
        if self.quiet:
            return
        if event.total == 0:
            self._tell(event)
            return
        now, ended = time.monotonic(), event.total > 0 and event.done >= event.total
        begun = event.stage != self.stage
        # Not a terminal: a line every 30 s is enough for a log.
        pause = 0.5 if self.as_json else 0.1 if self.bar else 30.0
        if not (ended or begun or now - self.last > pause):
            return
        self.last, self.stage = now, event.stage
        values = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in event.values.items()}
        shown = "  ".join(f"{k} {v}" for k, v in values.items())
        if self.as_json:
            line = {"stage": event.stage, "done": event.done, "total": event.total, "values": values}
            print(json.dumps(line), flush=True)
        elif self.bar:
            if begun or self.task is None:
                self.task = self.bar.add_task(event.stage, total=event.total, values=shown)
            self.bar.update(self.task, completed=event.done, total=event.total, values=shown)
        else:
            print(f"{event.stage} {event.done}/{event.total} {shown}".rstrip(), file=sys.stderr, flush=True)

    def _tell(self, event: Event) -> None:
        """Show a message in between, which leaves the bar as it is."""
        text = f"{event.stage}: {event.values.get('message', '')}"
        if self.as_json:
            print(json.dumps({"stage": event.stage, **event.values}), flush=True)
        elif self.bar:
            self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

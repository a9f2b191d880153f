"""Which shards are finished, and what was measured of each: what a resumed run skips."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

Shard = tuple[str, int]
"""One piece of work: the stage it belongs to, and the number of the shard."""

Record = Mapping[str, Any]
"""What was measured of a finished shard: numbers and words that JSON can hold."""


@dataclass(frozen=True, eq=False)
class Journal:
    """The finished shards of a run, one JSON line each, appended when a shard is written.

    Attributes:
        records: of the finished shards.
        file: the journal, open at its end.
    """

    records: dict[Shard, Record]
    file: BinaryIO

    def append(self, shard: Shard, record: Record) -> None:
        """Note that a shard is finished; the line is on the disk when this returns."""
        stage, index = shard
        line = {"stage": stage, "shard": index, "record": record}
        self.file.write(json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.records[shard] = record

    def of(self, stage: str) -> dict[int, Record]:
        """Return the records of a stage by the number of the shard, in order."""
        return {index: self.records[at, index] for at, index in sorted(self.records) if at == stage}


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal, with the shards that an earlier run finished; a last line that was torn is cut off."""
    with path.open("a+b") as file:
        file.seek(0)
        records, good = {}, 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            found = json.loads(line)
            records[found["stage"], int(found["shard"])] = found["record"]
            good += len(line)
        # What is appended must not be glued to half a line.
        file.truncate(good)
        file.seek(0, os.SEEK_END)
        yield Journal(records, file)

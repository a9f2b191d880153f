"""What a run may use: memory, processes, a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from deepcontrast.compute.memory import available, resident, spare
from deepcontrast.scale.runners import Here, Processes, Runner, Scheduler

LOOKED_AT = 2 * 10**9
"""Bytes for looking at a stack that others share the work on."""

LOOKING = 250 * 10**6
"""Bytes that looking at a stack takes whatever its size: figures, tables, what training loads and leaves behind."""


@dataclass(frozen=True)
class Resources:
    """What a run may use.

    Attributes:
        memory: bytes, of all processes on this machine together, or of each worker of a cluster; on a GPU, of its
            memory. By default a share of what is left.
        workers: local processes; 1 is this one.
        scheduler: address of a dask.distributed scheduler, whose workers then do the work.
    """

    memory: int | None = None
    workers: int = 1
    scheduler: str | None = None

    def runner(self) -> Runner:
        """Return who works."""
        if self.scheduler is not None:
            return Scheduler(self.scheduler)
        return Here() if self.workers == 1 else Processes(self.workers)

    @property
    def shared(self) -> bool:
        """Whether others than this process do the work."""
        return self.scheduler is not None or self.workers > 1

    def check(self) -> None:
        """Refuse, before anything is done, a cluster that does not answer.

        Raises:
            InputError: says so.
        """
        if self.scheduler is not None:
            Scheduler(self.scheduler).client().close()

    def looks_at(self) -> int:
        """Return the bytes for choosing k and measuring, in this process, by a look at the whole or at an excerpt.

        Where others share the work an excerpt will do, so that they get their share.
        """
        room = spare("cpu", self.memory)
        # Of the machine's memory half is left as it is in any case.
        room = min(room, available() - LOOKING) if self.memory is None else room - LOOKING
        return min(room, LOOKED_AT) if self.shared else room

    def memory_of_one(self, device: str) -> int:
        """Return the bytes that one worker may take, besides what every process holds that has the package loaded."""
        if self.scheduler is not None or self.workers == 1:
            return spare(device, self.memory)
        if self.memory is None:
            return spare(device) // self.workers
        # This process holds as much as any other, and does nothing.
        return spare(device, (self.memory - resident()) // self.workers)

    def threads_of_one(self, threads: int) -> int:
        """Return torch's threads in one worker, of as many as one process would have."""
        return 1 if self.scheduler is not None else max(1, threads // self.workers)

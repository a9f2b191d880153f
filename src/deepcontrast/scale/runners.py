"""Who works on shards: this process, several local ones, or the workers of a dask cluster.

A runner opens the work once per worker, and keeps it open over all stages of a run. Shards come back in the order in
which they are finished; what depends on that order would not be the same twice.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Empty, Queue
from typing import Any, Protocol

from deepcontrast.errors import DeepContrastError, InputError
from deepcontrast.scale.journal import Journal, Record, Shard

DEATHS = 3
"""Workers that may die on one shard before the run gives it up."""

BEAT = 0.4
"""Seconds after which a listener is called even where nothing happened, so that it can cancel."""

Report = Callable[[float], None]
"""Takes the share of a shard that is done. It may raise to stop the work."""

Work = Callable[[Shard, Report], Record]
"""Does one shard, whole, and returns what was measured. Doing it again must give the same bytes."""

Start = Callable[[], Work]
"""Opens the work in the process that will do it: reads the model, opens the files. It can be pickled."""

Tell = Callable[[Mapping[Shard, float]], None]
"""Takes the shares of all shards that are being worked on, at least twice a second."""

Run = Callable[[Sequence[Shard], Tell], Iterator[tuple[Shard, Record]]]
"""Does shards and yields each when it is finished."""


class Runner(Protocol):
    """Who works. Leaving the context stops everyone, whatever they are doing."""

    def open(self, start: Start) -> AbstractContextManager[Run]:
        """Give the function that does shards."""


def finish_shards(run: Run, shards: Sequence[Shard], journal: Journal, tell: Tell) -> None:
    """Do those shards that are not in the journal, and note each when it is finished."""
    todo = [shard for shard in shards if shard not in journal.records]
    for shard, record in run(todo, tell):
        journal.append(shard, record)
        tell({})


@dataclass(frozen=True)
class Here:
    """This process."""

    @contextmanager
    def open(self, start: Start) -> Iterator[Run]:
        work = start()

        def run(shards: Sequence[Shard], tell: Tell) -> Iterator[tuple[Shard, Record]]:
            for shard in shards:
                yield shard, work(shard, lambda share, shard=shard: tell({shard: share}))  # type: ignore[misc]

        yield run


@dataclass(frozen=True)
class Processes:
    """Local processes, started afresh: torch's threads do not survive a fork.

    A process that dies, killed by the system for its memory or by hand, is replaced and its shard done again.

    Attributes:
        count: of the processes.
    """

    count: int

    @contextmanager
    def open(self, start: Start) -> Iterator[Run]:
        workers: list[_Worker] = []
        try:
            yield lambda shards, tell: self._run(start, workers, shards, tell)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.end()

    def _run(
        self, start: Start, workers: list[_Worker], shards: Sequence[Shard], tell: Tell
    ) -> Iterator[tuple[Shard, Record]]:
        waiting, deaths = deque(shards), Counter[Shard]()
        while waiting or any(worker.shard for worker in workers):
            for worker in workers:
                if waiting and worker.shard is None:
                    worker.give(waiting.popleft())
            while waiting and len(workers) < self.count:
                workers.append(_Worker.begin(start, waiting.popleft()))
            for ready in connection.wait([worker.pipe for worker in workers], timeout=BEAT):
                worker = next(worker for worker in workers if worker.pipe is ready)
                shard = worker.shard
                try:
                    said = worker.hear()
                except (EOFError, OSError):
                    workers.remove(worker)
                    code = worker.end()
                    if shard is not None:
                        deaths[shard] += 1
                        if deaths[shard] == DEATHS:
                            raise DeepContrastError(_gave_up(shard, f"{DEATHS} processes ({_ended(code)})")) from None
                        waiting.appendleft(shard)
                    continue
                if said is not None and shard is not None:
                    yield shard, said
            tell({worker.shard: worker.share for worker in workers if worker.shard})


@dataclass(frozen=True)
class Scheduler:
    """The workers of a running dask.distributed cluster, which must see the same files under the same paths.

    dask gives the shards of a lost worker to another one. A shard under way when the run is stopped is finished
    by its worker.

    Attributes:
        address: of the scheduler, e.g. ``"tcp://10.0.0.1:8786"``.
    """

    address: str

    def client(self) -> Any:
        """Return a connection to the scheduler, to be closed.

        Raises:
            InputError: dask is not installed, or nobody answers.
        """
        try:
            # Its functions carry no types.
            distributed: Any = import_module("distributed")
        except ImportError:
            raise InputError("--scheduler needs dask: pip install 'deepcontrast[dask]'") from None
        try:
            return distributed.Client(self.address, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"no dask scheduler answers at '{self.address}' ({error})") from None

    @contextmanager
    def open(self, start: Start) -> Iterator[Run]:
        # Tasks carry the work as bytes, by which a worker knows it again: it is opened once on each.
        packed = pickle.dumps(start)
        with self.client() as client:
            futures: dict[Any, Shard] = {}
            ended: Queue[Any] = Queue()

            def run(shards: Sequence[Shard], tell: Tell) -> Iterator[tuple[Shard, Record]]:
                waiting = deque(shards)
                while waiting or futures:
                    # A few for each worker: more would only lie in the scheduler's memory.
                    room = 4 * max(1, sum(client.nthreads().values())) - len(futures)
                    for _ in range(min(room, len(waiting))):
                        future = client.submit(_remote, packed, waiting[0], pure=False)
                        futures[future] = waiting.popleft()
                        future.add_done_callback(ended.put)
                    with suppress(Empty):
                        future = ended.get(timeout=BEAT)
                        shard = futures.pop(future)
                        try:
                            record = future.result()
                        except import_module("distributed").KilledWorker as error:
                            raise DeepContrastError(_gave_up(shard, f"the cluster's workers ({error})")) from None
                        yield shard, record
                    tell({})

            try:
                yield run
            finally:
                client.cancel(list(futures))


@dataclass(eq=False)
class _Worker:
    """A local process as its parent sees it: what it is at work on, and how far it is."""

    process: BaseProcess
    pipe: Connection
    shard: Shard | None = None
    share: float = 0.0

    @classmethod
    def begin(cls, start: Start, shard: Shard) -> _Worker:
        spawn = get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(start, theirs), daemon=True)
        with _deaf():
            process.start()
        # With the child's end open here, its death would not be heard.
        theirs.close()
        worker = cls(process, ours)
        worker.give(shard)
        return worker

    def give(self, shard: Shard) -> None:
        self.shard, self.share = shard, 0.0
        # If it has just died, the next wait says so.
        with suppress(OSError):
            self.pipe.send(shard)

    def hear(self) -> Record | None:
        """Return the record of a finished shard, ``None`` for a report on the way; raise what the work raised."""
        kind, *said = self.pipe.recv()
        if kind == "error":
            error, text = said
            raise error from RuntimeError(text)
        if kind == "share":
            self.share = said[0]
            return None
        self.shard = None
        record: Record = said[0]
        return record

    def end(self) -> int | None:
        """Make sure that the process is gone; return how it ended."""
        self.process.join(1)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return self.process.exitcode


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that are started here not hear Ctrl-C, which reaches all of a terminal: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover - Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(start: Start, pipe: Connection) -> None:
    """Do the shards that come through the pipe, in a process of its own."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > BEAT:
            last = time.monotonic()
            pipe.send(("share", share))

    try:
        work = start()
        while True:
            shard = pipe.recv()
            pipe.send(("done", work(shard, report)))
    except BaseException as error:
        # Nobody listens any more where the run is over.
        with suppress(OSError):
            pipe.send(("error", _picklable(error), traceback.format_exc()))


def _die_with_parent() -> None:
    """End this process when its parent is gone, killed perhaps: a resumed run must not meet it at work."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _remote(packed: bytes, shard: Shard) -> Record:
    """Do one shard on a worker of a cluster."""
    return _opened(packed)(shard, _unheard)


def _unheard(_share: float) -> None:
    """Take a share and tell nobody: dask's workers have no way back but the result."""


@lru_cache(maxsize=1)
def _opened(packed: bytes) -> Work:
    start: Start = pickle.loads(packed)
    return start()


def _picklable(error: BaseException) -> BaseException:
    """Return the error, or one that says the same where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _ended(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _gave_up(shard: Shard, who: str) -> str:
    stage, index = shard
    return (
        f"shard {index} of '{stage}' ended {who}; where memory is the reason, try fewer --workers, or a "
        "smaller --memory where that is an option"
    )

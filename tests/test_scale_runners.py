"""Shards are done once, by whoever is there, and again where a worker was lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deepcontrast.errors import Cancelled, DeepContrastError, InputError
from deepcontrast.scale.journal import Record, Shard, open_journal
from deepcontrast.scale.runners import Here, Processes, Report, Runner, Scheduler, finish_shards

COUNT = 6
SHARDS = [("toy", i) for i in range(COUNT)]


@dataclass(frozen=True)
class Toy:
    """Writes one file for each shard; ``kill`` and ``fail`` name a shard that goes wrong, ``stay`` one that lasts."""

    folder: Path
    kill: int = -1
    once: bool = True
    fail: int = -1
    stay: int = -1

    def __call__(self) -> Callable[[Shard, Report], Record]:
        return self.work

    def work(self, shard: Shard, report: Report) -> Record:
        _, index = shard
        (self.folder / f"pid{os.getpid()}").touch()
        killed = self.folder / "killed"
        if index == self.kill and not (self.once and killed.exists()):
            killed.touch()
            (self.folder / f"shard{index}").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.fail:
            raise InputError("the image is wrong")
        report(0.5)
        while index == self.stay:
            report(0.5)
            time.sleep(0.05)
        (self.folder / f"shard{index}").write_bytes(f"content of {index}".encode())
        return {"sum": index * 1.5}


def do(runner: Runner, toy: Toy, tell: Callable[[Mapping[Shard, float]], None] = lambda shares: None) -> dict[int, Any]:
    with open_journal(toy.folder / "journal") as journal, runner.open(toy) as run:
        finish_shards(run, SHARDS, journal, tell)
        return dict(journal.of("toy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard*"))}


EXPECTED = {f"shard{i}": f"content of {i}".encode() for i in range(COUNT)}


@pytest.fixture
def cluster() -> Iterator[str]:
    # For one test: its threads draw random numbers, and hypothesis minds.
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp"
    ) as local:
        yield local.scheduler_address


def test_every_runner_does_every_shard_once(tmp_path: Path, cluster: str) -> None:
    for n, runner in enumerate((Here(), Processes(2), Scheduler(cluster))):
        folder = tmp_path / str(n)
        folder.mkdir()
        assert do(runner, Toy(folder)) == {i: {"sum": i * 1.5} for i in range(COUNT)}
        assert contents(folder) == EXPECTED
        assert len((folder / "journal").read_bytes().splitlines()) == COUNT


def test_shards_of_a_killed_worker_are_done_again(tmp_path: Path) -> None:
    done = do(Processes(3), Toy(tmp_path, kill=2))
    assert sorted(done) == list(range(COUNT))
    assert contents(tmp_path) == EXPECTED
    assert (tmp_path / "killed").exists()


def test_a_shard_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeepContrastError, match=r"shard 4 of 'toy' ended 3 processes \(signal 9\)"):
        do(Processes(1), Toy(tmp_path, kill=4, once=False))
    with open_journal(tmp_path / "journal") as journal:
        assert sorted(journal.of("toy")) == [0, 1, 2, 3]


def test_what_the_work_raises_ends_the_run(tmp_path: Path, cluster: str) -> None:
    for n, runner in enumerate((Here(), Processes(1), Scheduler(cluster))):
        folder = tmp_path / str(n)
        folder.mkdir()
        with pytest.raises(InputError, match="the image is wrong"):
            do(runner, Toy(folder, fail=3))


def test_cancelling_stops_the_workers_and_leaves_what_is_done(tmp_path: Path) -> None:
    began = time.monotonic()
    stopped = 0.0

    def cancel(shares: Mapping[Shard, float]) -> None:
        nonlocal stopped
        if ("toy", 3) in shares and shares["toy", 3] == 0.5:
            stopped = time.monotonic()
            raise Cancelled

    with pytest.raises(Cancelled):
        do(Processes(1), Toy(tmp_path, stay=3), cancel)
    assert stopped > began
    assert time.monotonic() - stopped < 2
    [worker] = [int(path.name[3:]) for path in tmp_path.glob("pid*")]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    # A resumed run does the rest.
    done = do(Here(), Toy(tmp_path))
    assert sorted(done) == list(range(COUNT))
    assert contents(tmp_path) == EXPECTED


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    do(Here(), Toy(tmp_path))
    whole = (tmp_path / "journal").read_bytes()
    lines = whole.splitlines(keepends=True)
    for end in range(len(whole) - len(lines[-1]), len(whole)):
        (tmp_path / "journal").write_bytes(whole[:end])
        with open_journal(tmp_path / "journal") as journal:
            assert sorted(journal.of("toy")) == list(range(COUNT - 1))
            journal.append(SHARDS[-1], {"sum": (COUNT - 1) * 1.5})
        assert (tmp_path / "journal").read_bytes() == whole


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dask scheduler answers at 'nonsense://x'"):
        do(Scheduler("nonsense://x"), Toy(tmp_path))


def test_ctrl_c_is_left_to_the_parent(tmp_path: Path) -> None:
    interrupted: list[int] = []

    def interrupt(shares: Mapping[Shard, float]) -> None:
        if not interrupted:
            interrupted.extend(int(path.name[3:]) for path in tmp_path.glob("pid*"))
            for worker in interrupted:
                os.kill(worker, signal.SIGINT)

    assert sorted(do(Processes(2), Toy(tmp_path), interrupt)) == list(range(COUNT))
    assert interrupted
    # A worker that it had ended would have been replaced.
    assert len(list(tmp_path.glob("pid*"))) <= 2

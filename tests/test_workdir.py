"""A result appears whole or not at all, and two runs never share a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepcontrast.errors import InputError, OutputError, OutputExistsError
from deepcontrast.workdir import check_out, check_space, finish, is_complete, working, write_atomic, write_json

JOB = {"config": {"steps": 5}, "input": "sha256:1"}


def complete(out: Path, text: str = "one") -> None:
    with working(out, JOB, overwrite=out.exists()) as work:
        (work.result / "image.txt").write_text(text)
        finish(work, JOB)


def test_the_result_appears_by_one_rename(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with working(out, JOB) as work:
        (work.result / "image.txt").write_text("one")
        assert not out.exists()
        finish(work, JOB)
    assert is_complete(out)
    assert sorted(p.name for p in out.iterdir()) == ["image.txt", "run.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_fine_and_a_full_one_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    complete(out)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_out(out, resume=False, overwrite=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputExistsError, match="is a file"):
        check_out(tmp_path / "file", resume=False, overwrite=False)


def test_overwrite_keeps_the_old_result_until_the_new_one_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out, "old")
    with pytest.raises(RuntimeError), working(out, JOB, overwrite=True) as work:
        (work.result / "image.txt").write_text("new")
        raise RuntimeError
    assert (out / "image.txt").read_text() == "old"
    complete(out, "new")
    assert (out / "image.txt").read_text() == "new"


def test_an_unfinished_run_is_resumed_or_overwritten_never_mixed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), working(out, JOB) as work:
        (work.path / "checkpoint").write_text("state")
        raise RuntimeError
    with pytest.raises(OutputExistsError, match="--resume"), working(out, JOB):
        pass
    with pytest.raises(InputError, match="exclude"):
        check_out(out, resume=True, overwrite=True)
    with working(out, JOB, resume=True) as work:
        assert work.resumed
        assert (work.path / "checkpoint").exists()
    with working(out, JOB, overwrite=True) as work:
        assert not (work.path / "checkpoint").exists()


def test_resuming_another_job_names_the_difference(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), working(out, JOB):
        raise RuntimeError
    other = {**JOB, "config": {"steps": 6}}
    with pytest.raises(InputError, match=r"config\.steps: then 5, now 6"), working(out, other, resume=True):
        pass


def test_a_live_lock_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with working(out, JOB), pytest.raises(OutputExistsError, match="at work"), working(out, JOB, resume=True):
        pass


def test_a_wrong_input_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError), working(tmp_path / "out", JOB):
        raise InputError("no")
    assert not list(tmp_path.iterdir())


def test_too_little_disk_is_said_before_starting(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="disk full"):
        check_space(tmp_path / "out", 10**18)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "missing" / "a", b"new")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", {"value": float("nan")})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    write_json(tmp_path / "a", {"b": 1, "a": None})
    assert json.loads((tmp_path / "a").read_text()) == {"a": None, "b": 1}

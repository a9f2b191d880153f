"""A result appears whole or not at all, and two runs never share a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deepcontrast import workdir
from deepcontrast.atomic import write_atomic, write_json
from deepcontrast.errors import InputError, OutputError, OutputExistsError
from deepcontrast.output_checks import check_inputs_stay, check_out, check_space, is_complete
from deepcontrast.workdir import finish, finish_single, is_done, working

JOB: dict[str, object] = {"config": {"steps": 5}, "input": "sha256:1"}


def complete(out: Path, text: str = "one") -> None:
    with working(out, JOB, overwrite=out.exists()) as work:
        (work.result / "image.txt").write_text(text)
        finish(work, JOB)


def interrupted(out: Path, job: dict[str, object] = JOB, **options: Any) -> None:
    """Leave what a run leaves that was stopped after its first checkpoint."""
    with pytest.raises(RuntimeError) as caught, working(out, job, **options) as work:
        (work.path / "checkpoint").write_text("state")
        raise RuntimeError
    assert caught.value.__notes__ == ["--resume goes on"]


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
    interrupted(out)
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


def test_names_beside_the_result_are_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out, "first")
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "mine.txt").write_text("keep")
    complete(out, "second")
    assert (tmp_path / "out.old" / "mine.txt").read_text() == "keep"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.old"]


def test_only_a_result_of_ours_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    with pytest.raises(OutputExistsError, match="no result of deepcontrast"), working(out, JOB, overwrite=True):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputExistsError, match="is a file"):
        check_out(tmp_path / "file", overwrite=True)
    foreign = tmp_path / "new.partial"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("keep")
    with pytest.raises(OutputExistsError, match="no unfinished run"), working(tmp_path / "new", JOB, overwrite=True):
        pass
    assert (foreign / "mine.txt").exists()
    assert (out / "thesis.txt").exists()


def test_no_input_is_destroyed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out)
    for path in (out / "image.txt", out, tmp_path / "other" / ".." / "out" / "image.txt"):
        with pytest.raises(InputError, match="would be destroyed"):
            check_out(out, overwrite=True, inputs=[path])
    interrupted(tmp_path / "b")
    with pytest.raises(InputError, match="would be destroyed"):
        check_out(tmp_path / "b", overwrite=True, inputs=[tmp_path / "b.partial" / "checkpoint"])
    check_inputs_stay(out, [tmp_path / "outside", tmp_path])


def test_what_a_killed_start_left_is_never_adopted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(out)
    # Killed while clearing: the job is the first to go, so that the rest is known to be nobody's.
    (tmp_path / "out.partial" / "job.json").unlink()
    with working(out, JOB, resume=True) as work:
        assert not work.resumed
        assert not (work.path / "checkpoint").exists()
        assert (work.path / "job.json").exists()


def test_the_job_is_the_first_to_be_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupted(out)
    monkeypatch.setattr(workdir, "remove", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), working(out, {**JOB, "seed": 1}, overwrite=True):
        pass
    assert (tmp_path / "out.partial" / "checkpoint").exists()
    assert not (tmp_path / "out.partial" / "job.json").exists()


def test_an_interrupted_overwrite_is_resumed(tmp_path: Path) -> None:
    out, other = tmp_path / "out", {**JOB, "input": "sha256:2"}
    complete(out, "old")
    interrupted(out, other, overwrite=True)
    assert not is_done(out, other)
    assert is_done(out, JOB)
    with working(out, other, resume=True) as work:
        assert work.resumed
        (work.result / "image.txt").write_text("new")
        finish(work, other)
    assert (out / "image.txt").read_text() == "new"
    with pytest.raises(InputError, match="complete, but of another run"):
        is_done(out, JOB)


def test_resume_of_a_complete_run_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(workdir, "_discard", lambda path: None)  # killed right after the rename
        complete(out)
    assert (tmp_path / "out.partial" / "job.json").exists()
    assert is_done(out, JOB)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("left", [("lock", "pass"), ("lock",), ()])
def test_resume_of_a_complete_run_goes_on_with_the_tidying(left: tuple[str, ...], tmp_path: Path) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    complete(out)
    partial.mkdir()
    for name in left:
        (partial / name).touch()
    assert is_done(out, JOB)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_not_of_a_run_is_left_alone(tmp_path: Path) -> None:
    complete(tmp_path / "out")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").touch()
    assert is_done(tmp_path / "out", JOB)
    assert (tmp_path / "out.partial" / "mine").exists()


def test_the_old_result_survives_a_kill_between_the_renames(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out, "old")
    interrupted(out, {**JOB, "seed": 1}, overwrite=True)
    os.replace(out, tmp_path / "out.partial" / "old")
    with pytest.raises(InputError, match="seed: then 1"), working(out, JOB, resume=True):
        pass
    assert (out / "image.txt").read_text() == "old"


def test_a_result_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputExistsError, match="appeared"), working(out, JOB) as work:
        out.mkdir()
        (out / "mine.txt").write_text("keep")
        finish(work, JOB)
    assert (out / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_nothing_is_left_where_nothing_could_be_resumed(error: type[BaseException], tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with pytest.raises(error) as caught, working(out, JOB) as work:
        (work.path / "passes").mkdir()
        (work.path / "passes" / "k1.tmp").write_text("half")
        raise error
    assert not list(tmp_path.iterdir())
    assert not hasattr(caught.value, "__notes__")


def test_a_run_without_a_job_leaves_nothing_and_minds_no_leftover(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), working(out) as work:
        (work.path / "pass").write_text("x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "lock").touch()  # killed, then no one could tidy up
    with working(out) as work:
        finish(work, {"verb": "simulate"})
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_resumed_run_gets_the_first_ones_threads_and_no_other_device(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(out, machine={"threads": 4, "torch": "2.13", "device": "cpu"})
    other = {"threads": 2, "torch": "2.13", "device": "cuda"}
    with pytest.raises(InputError, match=r'machine\.device: then "cpu", now "cuda"'):
        working(out, JOB, resume=True, machine=other).__enter__()
    with working(out, JOB, resume=True, machine={**other, "device": "cpu"}) as work:
        assert work.machine["threads"] == 4


def test_a_file_is_worked_on_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mm").mkdir()
    out = tmp_path / "mm.safetensors"
    with working(out, JOB, folder=False) as work:
        assert work.path.name == "mm.safetensors.partial"
        (work.result / "made").write_text("weights")
        finish_single(work, work.result / "made")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mm", "mm.safetensors"]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_out(out, folder=False)
    with pytest.raises(OutputExistsError, match="is a folder"):
        check_out(tmp_path / "mm", folder=False, overwrite=True)


def test_the_folder_the_user_is_in_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    complete(Path("."))
    assert sorted(p.name for p in Path(".").iterdir()) == ["image.txt", "run.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_a_file_as_parent_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_out(tmp_path / "file" / "out")


def test_a_finished_image_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "a.ome.zarr"
    out.mkdir()
    (out / "zarr.json").write_text("old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_out(out, folder=False)
    with pytest.raises(RuntimeError), working(out, JOB, folder=False, overwrite=True):
        raise RuntimeError
    assert (out / "zarr.json").read_text() == "old"
    with working(out, JOB, folder=False, overwrite=True) as work:
        made = work.path / "image"
        made.mkdir()
        (made / "zarr.json").write_text("new")
        finish_single(work, made)
    assert (out / "zarr.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_file_is_replaced_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.tif"
    out.write_text("old")
    seen: list[str] = []
    replaced = os.replace

    def watched(source: Path, target: Path) -> None:
        replaced(source, target)
        seen.append(out.read_text())

    with working(out, JOB, folder=False, overwrite=True) as work:
        made = work.path / "made"
        made.write_text("new")
        monkeypatch.setattr("deepcontrast.workdir.os.replace", watched)
        finish_single(work, made)
    assert seen == ["new"]


def test_an_image_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "a.tif"
    with pytest.raises(OutputExistsError, match="appeared"), working(out, JOB, folder=False) as work:
        (work.path / "made").write_text("new")
        out.write_text("mine")
        finish_single(work, work.path / "made")
    assert out.read_text() == "mine"


def test_metadata_alone_and_an_empty_journal_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    def stopped(name: str, size: int) -> None:
        with pytest.raises(RuntimeError), working(tmp_path / "out", JOB) as work:
            (work.path / "pass.zarr" / "0").mkdir(parents=True)
            (work.path / "pass.zarr" / "zarr.json").write_text("{}")
            (work.path / "journal").touch()
            (work.path / "pass.zarr" / "0" / name).write_bytes(b"x" * size)
            raise RuntimeError

    for name, size in (("zarr.json", 2), ("0.abc.partial", 9)):
        stopped(name, size)
        assert not list(tmp_path.iterdir())
    stopped("0", 9)
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial"]


def test_a_resumed_run_obeys_the_first_ones_plan(tmp_path: Path) -> None:
    interrupted(tmp_path / "out", machine={"plan": {"tile": 64}, "device": "cpu"})
    with working(tmp_path / "out", JOB, resume=True, machine={"plan": {"tile": 32}, "device": "cpu"}) as work:
        assert work.machine["plan"] == {"tile": 64}

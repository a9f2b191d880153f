"""The command line: what it writes, one line for whatever is wrong, and runs that survive being killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from deepcontrast.cli import run
from deepcontrast.io import open_stack, write_stack
from deepcontrast.model import load_model
from deepcontrast.stack import Optics, Stack

from .conftest import TINY

SET = [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture(scope="module")
def finished(tiny_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the tiny stack."""
    folder = tmp_path_factory.mktemp("finished")
    write_stack(folder / "tiny.tif", tiny_stack)
    assert run(["enhance", str(folder / "tiny.tif"), "--out", str(folder / "out"), *SET, "--quiet"]) == 0
    return folder / "out"


def test_enhance_writes_what_it_promises(finished: Path, tiny_stack: Stack) -> None:
    names = ["enhanced.tif", "metrics.json", "model.safetensors", "report.html", "run.json"]
    assert sorted(p.name for p in finished.iterdir()) == names
    assert not list(finished.parent.glob("*.partial"))
    enhanced = open_stack(finished / "enhanced.tif")
    assert (enhanced.axes, enhanced.shape, enhanced.dtype) == ("ZYX", tiny_stack.shape, tiny_stack.dtype)
    assert enhanced.optics.voxel_size == pytest.approx(tiny_stack.optics.voxel_size)
    assert not np.array_equal(enhanced.volume(), tiny_stack.volume())
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == {"format_version", "rows", "chosen_iterations", "why"}
    assert set(metrics["rows"][0]) == {"method", "k", "t", "c", "z", "depth_um", "metric", "value", "reason"}
    wci = {(r["method"], r["k"], r["z"]) for r in metrics["rows"] if r["metric"] == "wci"}
    assert {("raw", 0, z) for z in range(10)} <= wci
    assert {("deepcontrast", k, z) for k in (1, 2) for z in range(10)} <= wci
    assert all(r["reason"] for r in metrics["rows"] if r["value"] is None)
    record = json.loads((finished / "run.json").read_text())
    assert record["state"] == "complete"
    assert record["input"]["tiny.tif"].startswith("sha256:")
    assert record["config"]["train"]["steps"] == 12


def test_the_model_file_names_no_path_host_or_time(finished: Path) -> None:
    content = (finished / "model.safetensors").read_bytes()
    assert str(finished.parent).encode() not in content
    assert os.uname().nodename.encode() not in content
    assert set(load_model(finished / "model.safetensors").provenance) == {"version", "torch", "images"}


def test_json_says_json_lines_only(tiny_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["enhance", str(tiny_file), "--out", str(tmp_path / "o"), *SET, "--json"]) == 0
    out, err = capfd.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["stage"] for line in lines if "stage" in line} >= {"read", "fit", "train", "predict 1/2", "write"}
    assert err == ""


def test_resume_of_a_complete_run_says_so(finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = str(finished.parent / "tiny.tif")
    assert run(["enhance", image, "--out", str(finished), *SET, "--resume"]) == 0
    assert "complete already" in capsys.readouterr().out
    assert run(["enhance", image, "--out", str(finished), *SET, "--seed", "9", "--resume"]) == 2
    assert "config.train.seed: then 0, now 9" in capsys.readouterr().err


def test_several_stacks_share_one_model(tiny_stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate(("a.tif", "b.ome.tif")):
        write_stack(folder / name, Stack(tiny_stack.volume() + i, "ZYX", tiny_stack.optics))
    out = tmp_path / "out"
    assert run(["enhance", str(folder), "--out", str(out), *SET, "--quiet"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a", "b", "model.safetensors", "run.json"]
    assert (out / "a" / "enhanced.tif").exists()
    assert (out / "b" / "enhanced.ome.tif").exists()
    again = tmp_path / "again"
    model = str(out / "model.safetensors")
    one = str(folder / "a.tif")
    assert run(["enhance", one, "--out", str(again), "--model", model, "--iterations", "2", "--quiet"]) == 0
    assert json.loads((again / "metrics.json").read_text())["chosen_iterations"] == 2
    target = str(tmp_path / "p.tif")
    assert run(["predict", model, one, "--out", target, "--iterations", "2", "--quiet"]) == 0
    # enhance brings each plane back to the raw's brightness, predict writes what the network gives.
    for ours, network in zip(open_stack(again / "enhanced.tif").volume(), open_stack(target).volume(), strict=True):
        assert np.corrcoef(ours.ravel(), network.ravel())[0, 1] > 0.999


def test_time_points_and_channels(tiny_stack: Stack, tmp_path: Path) -> None:
    volume = tiny_stack.volume()
    array = np.stack([[volume, volume[:, ::-1]], [volume + 3, volume[:, ::-1] + 3]])
    path = tmp_path / "movie.ome.tif"
    write_stack(path, Stack(array, "TCZYX", tiny_stack.optics, ("actin", "nuclei")))
    out = tmp_path / "out"
    assert run(["enhance", str(path), "--out", str(out), *SET, "--quiet"]) == 0
    enhanced = open_stack(out / "enhanced.ome.tif")
    assert (enhanced.axes, enhanced.shape) == ("TCZYX", array.shape)
    assert enhanced.channels == ("actin", "nuclei")
    assert len(load_model(out / "model.safetensors").channels) == 2
    one = tmp_path / "one"
    assert run(["enhance", str(path), "--out", str(one), *SET, "--channel", "nuclei", "--quiet"]) == 0
    assert open_stack(one / "enhanced.ome.tif").axes == "TZYX"


def test_a_single_plane_is_predicted(finished: Path, tiny_stack: Stack, tmp_path: Path) -> None:
    write_stack(tmp_path / "plane.tif", Stack(tiny_stack.volume()[3], "YX", tiny_stack.optics))
    model = str(finished / "model.safetensors")
    out = tmp_path / "p.tif"
    assert run(["predict", model, str(tmp_path / "plane.tif"), "--out", str(out), "--quiet"]) == 0
    assert open_stack(out).axes == "YX"


def test_one_failing_image_does_not_stop_a_batch(
    finished: Path, tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\x00 not a tiff")
    model, out = str(finished / "model.safetensors"), tmp_path / "out"
    paths = [str(tmp_path / "broken.tif"), str(tiny_file)]
    assert run(["predict", model, *paths, "--out", str(out), "--quiet"]) == 2
    assert "1 of 2 images failed: broken.tif" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["tiny.tif"]


def test_invalid_voxels_come_back_unchanged(tiny_stack: Stack, tmp_path: Path) -> None:
    volume = tiny_stack.volume().copy()
    volume[:, :, :10] = 0
    volume[4, 30:36, 30:40] = 65535
    volume[7] = 55
    write_stack(tmp_path / "holes.tif", Stack(volume, "ZYX", tiny_stack.optics))
    out = tmp_path / "out"
    assert run(["enhance", str(tmp_path / "holes.tif"), "--out", str(out), *SET, "--quiet"]) == 0
    enhanced = open_stack(out / "enhanced.tif").volume()
    for box in (np.s_[:, :, :10], np.s_[4, 30:36, 30:40], np.s_[7]):
        np.testing.assert_array_equal(enhanced[box], volume[box])


def wrong_images(folder: Path, stack: Stack) -> dict[str, tuple[list[str], str]]:
    """Write every wrong input; return arguments and what the one line must say."""
    volume = stack.volume()
    nan = volume.astype(np.float32)
    nan[2, 3, 4] = np.nan
    (folder / "text.tif").write_text("not an image")
    write_stack(folder / "plane.tif", Stack(volume[0], "YX"))
    write_stack(folder / "one.tif", Stack(volume[:1], "ZYX"))
    write_stack(folder / "nan.tif", Stack(nan, "ZYX"))
    write_stack(folder / "flat.tif", Stack(np.full_like(volume, 7), "ZYX"))
    write_stack(folder / "good.tif", stack)
    tifffile.imwrite(folder / "rgb.tif", np.zeros((32, 32, 3), np.uint8), photometric="rgb")
    return {
        "missing file": (["god.tif"], "good.tif"),
        "not an image": (["text.tif"], "not an image"),
        "2D": (["plane.tif"], "one plane"),
        "one plane": (["one.tif"], "one plane"),
        "NaN": (["nan.tif"], "1 voxels that are NaN"),
        "constant": (["flat.tif"], "constant"),
        "RGB": (["rgb.tif"], "RGB"),
        "axes of another length": (["good.tif", "--axes", "YX"], "axes"),
        "axes of another order": (["good.tif", "--axes", "XYZ"], "did you mean 'ZYX'"),
        "unknown key": (["good.tif", "--set", "train.stps=5"], "did you mean 'train.steps'"),
        "value out of range": (["good.tif", "--set", "train.steps=0"], "train.steps"),
        "not key=value": (["good.tif", "--set", "train.steps"], "key=value"),
        "unknown recipe": (["good.tif", "--recipe", "contrst"], "did you mean 'contrast'"),
        "unknown option": (["good.tif", "--iteratons", "3"], "--iterations"),
        "bad iterations": (["good.tif", "--iterations", "many"], "accepted: auto"),
        "bad surface": (["good.tif", "--surface", "top"], "first, last, auto"),
        "bad voxel size": (["good.tif", "--voxel-size", "1,2"], "3 numbers"),
        "unknown channel": (["good.tif", "--channel", "7"], "no channel '7'"),
        "no such device": (["good.tif", "--device", "tpu"], "accepted: auto"),
        "both flags": (["good.tif", "--resume", "--overwrite"], "exclude each other"),
        "missing model": (["good.tif", "--model", "m.safetensors"], "no model file"),
        "mask of another shape": (["good.tif", "--mask", "plane.tif"], "mask has shape"),
        "equal stems": (["good.tif", "good.tif"], "would both be written"),
        "two values of one option": (["good.tif", "--set", "train.steps=5", "train.batch=2"], "train.batch=2"),
    }


CASES = (
    "missing file", "not an image", "2D", "one plane", "NaN", "constant", "RGB", "axes of another length",
    "axes of another order", "unknown key", "value out of range", "not key=value", "unknown recipe",
    "unknown option", "bad iterations", "bad surface", "bad voxel size", "unknown channel", "no such device",
    "both flags", "missing model", "mask of another shape", "equal stems", "two values of one option",
)  # fmt: skip


@pytest.fixture(scope="module")
def wrong(tiny_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[list[str], str]]]:
    folder = tmp_path_factory.mktemp("wrong")
    return folder, wrong_images(folder, tiny_stack)


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_gives_one_line_and_writes_nothing(
    case: str,
    wrong: tuple[Path, dict[str, tuple[list[str], str]]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, cases = wrong
    assert set(cases) == set(CASES)
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    arguments, expected = cases[case]
    assert run(["enhance", *arguments, "--out", "out", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("deepcontrast: ")
    assert expected in err
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


def test_a_damaged_model_is_refused(
    finished: Path, tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (finished / "model.safetensors").read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    newer = content.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9')
    assert newer != content
    for name, data in (("truncated", content[:-5]), ("flipped", bytes(flipped)), ("newer", newer)):
        model = tmp_path / f"{name}.safetensors"
        model.write_bytes(data)
        for verb in (["predict", str(model), str(tiny_file)], ["enhance", str(tiny_file), "--model", str(model)]):
            assert run([*verb, "--out", str(tmp_path / "o.tif"), "--quiet"]) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert str(model) in err
    assert not (tmp_path / "o.tif").exists()


def test_existing_output_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "run.json").read_bytes()
    assert run(["enhance", str(finished.parent / "tiny.tif"), "--out", str(finished), *SET]) == 2
    assert "exists" in capsys.readouterr().err
    assert (finished / "run.json").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission(tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert run(["enhance", str(tiny_file), "--out", str(locked / "out"), *SET, "--quiet"]) == 2
    assert "permission" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    assert run(["enhance", str(tiny_file), "--out", str(tmp_path / "out"), *SET, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "disk full" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_a_defect_is_one_line_with_the_traceback(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("deepcontrast.jobs.describe", broken)
    assert run(["info", str(tiny_file)]) == 1
    err = capsys.readouterr().err
    path = Path(err.rsplit("traceback: ", 1)[1].strip().rstrip(")"))
    assert "ZeroDivisionError: oops" in path.read_text()
    path.unlink()


def start(arguments: list[str], **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deepcontrast.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )  # type: ignore[call-overload,no-any-return]


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"'{word}' never came")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_killed_run_resumes_to_the_same_bytes(
    sent: signal.Signals, code: int, finished: Path, tmp_path: Path
) -> None:
    image, out = str(finished.parent / "tiny.tif"), tmp_path / "out"
    arguments = ["enhance", image, "--out", str(out), *SET, "--json"]
    # SIGKILL while training, the others between the passes: each finds other unfinished work.
    process = start(arguments)
    wait_for(process, '"train"' if sent == signal.SIGKILL else '"predict 1/2"')
    if sent == signal.SIGKILL:
        time.sleep(0.05)
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not out.exists()
    assert run([*arguments, "--resume"]) == 0
    for name in ("model.safetensors", "enhanced.tif", "metrics.json", "report.html"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    assert not list(tmp_path.glob("*.partial"))


WATCH = """
import os, sys, tempfile
allowed = [os.path.realpath(p) for p in (sys.argv[1], tempfile.gettempdir(), "/tmp", os.devnull)]
seen = []
def watch(event, args):
    if event.startswith("socket.") and event not in ("socket.gethostname",):
        seen.append((event, str(args)))
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        path = os.path.realpath(args[0])
        if not any(path == a or path.startswith(a + os.sep) for a in allowed) and "__pycache__" not in path:
            seen.append((event, path))
    # Names relative to an open folder (shutil.rmtree) say nothing of where they are.
    if event in ("os.mkdir", "os.rename", "os.remove") and isinstance(args[0], str) and os.path.isabs(args[0]):
        path = os.path.realpath(os.fspath(args[0]))
        if not any(path == a or path.startswith(a) for a in allowed) and "__pycache__" not in path:
            seen.append((event, path))
sys.addaudithook(watch)
from deepcontrast.cli import run
code = run(sys.argv[2:])
print(code, seen)
"""


def test_no_socket_is_opened_and_nothing_is_written_elsewhere(tiny_file: Path, tmp_path: Path) -> None:
    # Neither may lie in the temporary folder, where everything is allowed.
    folder = Path(__file__).parent.parent / ".pytest_cache" / f"outside-{os.getpid()}"
    home, out = folder / "home", folder / "results"
    home.mkdir(parents=True)
    out.mkdir()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    arguments = ["enhance", str(tiny_file), "--out", str(out / "run"), *SET, "--quiet"]
    command = [sys.executable, "-c", WATCH, str(out), *arguments]
    try:
        found = subprocess.run(command, env=environment, text=True, capture_output=True, cwd=home, check=True)
        assert found.stdout.strip() == "0 []", found.stdout + found.stderr
        assert not list(home.iterdir())
    finally:
        shutil.rmtree(folder)


def test_help_and_import_do_not_load_torch() -> None:
    code = (
        "import sys, deepcontrast, deepcontrast.cli\n"
        "assert deepcontrast.cli.run(['--help']) == 0\n"
        "assert deepcontrast.Stack and deepcontrast.Config\n"
        "assert not {'torch', 'matplotlib', 'tifffile', 'zarr'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_evaluate_and_simulate_and_degrade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulated = tmp_path / "sim"
    assert run(["simulate", "tissue", "--out", str(simulated), "--shape", "10,48,64", "--light", "5,50"]) == 0
    assert sorted(p.name for p in simulated.iterdir()) == [
        "mask.tif", "raw_5.tif", "raw_50.tif", "run.json", "simulate.json", "truth.tif",
    ]  # fmt: skip
    out = tmp_path / "scores"
    truth, mask, raw = (str(simulated / f"{n}.tif") for n in ("truth", "mask", "raw_50"))
    assert run(["evaluate", raw, "--truth", truth, "--mask", mask, "--out", str(out)]) == 0
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {"iou", "ssim", "pearson", "ssim_clipped", "wci"} <= {row["metric"] for row in rows}
    degraded = tmp_path / "d.tif"
    assert run(["degrade", raw, "--out", str(degraded), *SET, "--quiet"]) == 0
    before, after = open_stack(raw).volume().astype(float), open_stack(degraded).volume().astype(float)
    assert after.std() < 0.8 * before.std()
    assert after.mean() == pytest.approx(before.mean(), rel=0.05)
    capsys.readouterr()
    assert run(["evaluate", raw, "--truth", str(degraded), "--mask", truth, "--out", str(tmp_path / "x")]) in (0, 2)


def test_float_input_and_unknown_voxel_size(tiny_stack: Stack, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", tiny_stack.volume().astype(np.float32))
    out = tmp_path / "out"
    assert run(["enhance", str(tmp_path / "a.npy"), "--out", str(out), *SET, "--quiet"]) == 0
    enhanced = open_stack(out / "enhanced.npy")
    assert enhanced.dtype == np.float32
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert all(row["depth_um"] is None for row in rows if row["z"] is not None)


def test_ome_zarr_in_ome_zarr_out(tiny_stack: Stack, tmp_path: Path) -> None:
    write_stack(tmp_path / "a.ome.zarr", Stack(tiny_stack.volume(), "ZYX", Optics(voxel_size=(0.5, 0.3, 0.3))))
    out = tmp_path / "out"
    assert run(["enhance", str(tmp_path / "a.ome.zarr"), "--out", str(out), *SET, "--quiet"]) == 0
    enhanced = open_stack(out / "enhanced.ome.zarr")
    assert (enhanced.shape, enhanced.dtype) == (tiny_stack.shape, tiny_stack.dtype)
    assert enhanced.optics.voxel_size == pytest.approx((0.5, 0.3, 0.3))

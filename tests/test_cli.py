"""The command line: what it writes, one line for whatever is wrong, and runs that survive being killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from deepcontrast.cli import run
from deepcontrast.cli.exit_codes import Interrupted
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.images import open_image, write_image
from deepcontrast.jobs.predict_in_memory import predict_stack
from deepcontrast.model import load_model
from deepcontrast.stack import Optics, Stack
from deepcontrast.training import threads

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
    assert set(load_model(finished / "model.safetensors").provenance) == {
        "version",
        "torch",
        "images",
        "precision",
        "compiled",
    }


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
    applied = ["--model", model, "--iterations", "2", "--set", "predict.orientations=1"]
    assert run(["enhance", one, "--out", str(again), *applied, "--quiet"]) == 0
    assert json.loads((again / "metrics.json").read_text())["chosen_iterations"] == 2
    target = str(tmp_path / "p.tif")
    assert run(["predict", model, one, "--out", target, "--iterations", "2", "--quiet"]) == 0
    # enhance brings each plane back to the raw's brightness, predict writes what the network gives.
    for ours, network in zip(open_stack(again / "enhanced.tif").volume(), open_stack(target).volume(), strict=True):
        assert np.corrcoef(ours.ravel(), network.ravel())[0, 1] > 0.999


def test_time_points_and_channels(tiny_stack: Stack, tmp_path: Path) -> None:
    volume = tiny_stack.volume()[:5]
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
        "even kernel": (["good.tif", "--set", "net.kernel=4"], "net.kernel"),
        "offset that is no number": (["good.tif", "--offset", "nan"], "task.offset"),
        "model and gain": (["good.tif", "--model", "m.safetensors", "--gain", "2"], "--gain has no effect"),
        "model and recipe": (["good.tif", "--model", "m.safetensors", "--recipe", "contrast-paper"], "--recipe"),
        "model and ensemble": (["good.tif", "--model", "m.safetensors", "--ensemble", "2"], "--ensemble 2"),
        "model and training": (["good.tif", "--model", "m.safetensors", "--set", "train.steps=5"], "train.steps=5"),
        "mask and iterations": (["good.tif", "--mask", "good.tif", "--iterations", "2"], "give one of them"),
    }


CASES = (
    "missing file", "not an image", "2D", "one plane", "NaN", "constant", "RGB", "axes of another length",
    "axes of another order", "unknown key", "value out of range", "not key=value", "unknown recipe",
    "unknown option", "bad iterations", "bad surface", "bad voxel size", "unknown channel", "no such device",
    "both flags", "missing model", "mask of another shape", "equal stems", "two values of one option",
    "even kernel", "offset that is no number", "model and gain", "model and recipe", "model and ensemble",
    "model and training", "mask and iterations",
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
    assert run(["enhance", *arguments, "--out", "new/folder/out", "--quiet"]) == 2
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


def test_no_write_permission(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root passes every test of the system.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    for verb in (["enhance", *SET], ["degrade", *SET], ["predict", "m.safetensors"]):
        arguments = [verb[0], *verb[1:], str(tiny_file), "--out", str(tmp_path / "o.tif"), "--quiet"]
        if verb[0] == "predict":
            model = SimpleNamespace(task="contrast")
            monkeypatch.setattr("deepcontrast.jobs.predict.load_model", lambda path, model=model: model)
        assert run(arguments) == 2
        assert f"no permission to write in '{tmp_path}'" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.tif"]


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

    monkeypatch.setattr("deepcontrast.jobs.info.describe", broken)
    assert run(["info", str(tiny_file)]) == 1
    err = capsys.readouterr().err
    path = Path(err.rsplit("traceback: ", 1)[1].strip())
    assert "ZeroDivisionError: oops" in path.read_text()
    path.unlink()
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    assert run(["info", str(tiny_file)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "oops" in err
    assert "test_cli.py" in err


def start(arguments: list[str], **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deepcontrast", *arguments]
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


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    sent: signal.Signals, code: int, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = str(finished.parent / "tiny.tif"), tmp_path / "out"
    arguments = ["enhance", image, "--out", str(out), *SET, "--json"]
    # SIGKILL while training, the others between the passes: each finds other unfinished work.
    process = start(arguments)
    if sent == signal.SIGKILL:
        checkpoint = tmp_path / "out.partial" / "checkpoint_channel0_member0.safetensors"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.002)
    else:
        wait_for(process, '"predict 1/2"')
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    if sent != signal.SIGKILL:
        assert err.strip().endswith("--resume goes on")
    assert not out.exists()
    assert run([*arguments, "--resume"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    trained = [event["done"] for event in events if event.get("stage") == "train"]
    assert not trained or (sent == signal.SIGKILL and trained[0] > 4)
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
    arguments = ["enhance", str(tiny_file), "--out", str(out / "run"), *SET, "--iterations", "1", "--quiet"]
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


def test_what_is_simulated_beside_truth_and_on_which_grid(tmp_path: Path) -> None:
    embryo, epithelium = tmp_path / "embryo", tmp_path / "epithelium"
    given = ["--shape", "4,32,40", "--undersampling", "4.3", "--quiet"]
    assert run(["simulate", "embryo", "--out", str(embryo), *given]) == 0
    assert run(["simulate", "epithelium", "--out", str(epithelium), "--shape", "12,32,40", "--quiet"]) == 0
    common = {"labels.tif", "mask.tif", "raw.tif", "run.json", "simulate.json", "truth.tif"}
    assert {p.name for p in embryo.iterdir()} == common
    assert {p.name for p in epithelium.iterdir()} == {*common, "height.tif"}
    assert open_stack(embryo / "raw.tif").optics.voxel_size == pytest.approx((1.72, 0.4, 0.4))
    for name in ("truth", "mask", "labels"):
        fine, flat = (open_stack(folder / f"{name}.tif") for folder in (embryo, epithelium))
        assert fine.shape == (17, 32, 40)
        assert fine.optics.voxel_size == pytest.approx((0.4, 0.4, 0.4))
        assert flat.volume().shape == (1, 32, 40)
        assert flat.optics.voxel_size[1:] == pytest.approx((0.2, 0.2))
    assert open_stack(embryo / "labels.tif").dtype == np.uint16
    height = open_stack(epithelium / "height.tif")
    assert (height.axes, height.dtype) == ("YX", np.float32)
    settings = json.loads((embryo / "simulate.json").read_text())["images"]["raw"]
    assert (settings["undersampling"], settings["stain"]) == (4.3, "nuclei")


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
    assert run(["evaluate", raw, "--truth", str(tmp_path / "d.tif"), "--mask", truth, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(["evaluate", raw, "--mask", str(simulated / "raw_5.tif"), "--out", str(tmp_path / "x")]) == 2
    assert "marks no voxel, or all of them" in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))
    assert set(json.loads((out / "run.json").read_text())["input"]) == {"result", "truth", "mask"}


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


def test_every_time_point_and_channel_is_evaluated(
    tiny_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = tiny_stack.volume()
    write_stack(tmp_path / "a.ome.tif", Stack(np.stack([[volume, volume + 9]] * 2), "TCZYX", tiny_stack.optics))
    write_stack(tmp_path / "truth.tif", tiny_stack)
    image, out = str(tmp_path / "a.ome.tif"), tmp_path / "out"
    assert run(["evaluate", image, "--truth", image, "--out", str(out)]) == 0
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {(row["t"], row["c"]) for row in rows} == {(t, c) for t in (0, 1) for c in (0, 1)}
    assert run(["evaluate", image, "--truth", str(tmp_path / "truth.tif"), "--out", str(tmp_path / "x")]) == 2
    assert "has shape (1, 1, 10, 64, 72)" in capsys.readouterr().err


def test_degrade_writes_invalid_voxels_back_and_checks_its_output_first(
    tiny_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tiny_stack.volume().copy()
    volume[:, :, :10] = 0
    write_stack(tmp_path / "holes.tif", Stack(volume, "ZYX", tiny_stack.optics))
    image, out = str(tmp_path / "holes.tif"), tmp_path / "a" / "b" / "d.tif"
    assert run(["degrade", image, "--out", str(out), *SET]) == 0
    degraded = open_stack(out).volume()
    np.testing.assert_array_equal(degraded[:, :, :10], 0)
    assert not np.array_equal(degraded, volume)
    monkeypatch.setattr("deepcontrast.jobs.images.open_image", lambda *_, **__: pytest.fail("worked before looking"))
    for target, expected in (("d.png", "accepted: .tif"), ("holes.tif", "would be destroyed"), ("a", "without a suf")):
        assert run(["degrade", image, "--out", str(tmp_path / target), *SET, "--overwrite"]) == 2
        assert expected in capsys.readouterr().err


def test_predict_refuses_before_it_starts(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, model = str(finished.parent / "tiny.tif"), str(finished / "model.safetensors")
    shutil.copy(image, tmp_path / "tiny.tiff")
    before = sorted(tmp_path.iterdir())
    for paths, target, expected in (
        ([image, str(tmp_path / "tiny.tiff")], "out", "would both be written"),
        ([image], "p.png", "accepted: .tif"),
        ([str(tmp_path / "tiny.tiff")], "tiny.tiff", "would be destroyed"),
    ):
        assert run(["predict", model, *paths, "--out", str(tmp_path / target), "--overwrite", "--quiet"]) == 2
        assert expected in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before


def test_every_model_of_an_ensemble_is_used_with_its_own_fit_and_settings(finished: Path, tiny_stack: Stack) -> None:
    model = load_model(finished / "model.safetensors")
    fit = dict(model.channels[0].fit)
    fit["norm"] = {"offset": fit["norm"]["offset"] - 50, "scale": fit["norm"]["scale"] * 3}
    net = model.config.net.model_copy(update={"residual": not model.config.net.residual})
    other = replace(
        model,
        config=model.config.model_copy(update={"net": net}),
        channels=(replace(model.channels[0], fit=fit),),
    )
    one, two = (predict_stack([m], tiny_stack).volume() for m in (model, other))
    assert not np.allclose(one, two)
    both = predict_stack([model, other], tiny_stack).volume()
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-5, atol=1e-3)


def test_a_shifted_result_is_read_in_its_true_grey_levels(tiny_stack: Stack, tmp_path: Path) -> None:
    image = np.linspace(-300, 70_000, tiny_stack.array.size, dtype=np.float32).reshape(tiny_stack.shape)
    for name in ("a.tif", "a.ome.tif", "a.ome.zarr"):
        assert "shifted" in write_image(tmp_path / name, replace(tiny_stack, array=image), np.dtype(np.uint16))
        stack = open_image(tmp_path / name)
        assert stack.dtype == np.float32
        np.testing.assert_allclose(stack.volume(), image, atol=1.1)
    # .npy has no place for the shift.
    assert "float32" in write_image(tmp_path / "a.npy", replace(tiny_stack, array=image), np.dtype(np.uint16))
    np.testing.assert_array_equal(open_image(tmp_path / "a.npy").volume(), image)


def test_train_resumes_and_stands_beside_a_folder_of_its_name(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm" / "notes.txt").write_text("keep")
    out = tmp_path / "mm.safetensors"
    arguments = ["train", "contrast", "--input", str(finished.parent / "tiny.tif"), "--out", str(out), *SET]

    with monkeypatch.context() as patched:
        patched.setattr("deepcontrast.jobs.train.save_model", lambda *_: (_ for _ in ()).throw(Interrupted))
        assert run(arguments) == 130
    assert capsys.readouterr().err.endswith("deepcontrast: interrupted; --resume goes on\n")
    assert (tmp_path / "mm.safetensors.partial" / "checkpoint_channel0_member0.safetensors").exists()
    assert run([*arguments, "--channel", "0", "--resume"]) == 2
    assert "options.channel" in capsys.readouterr().err
    assert run([*arguments, "--resume", "--json"]) == 0
    assert '"train"' not in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mm", "mm.safetensors"]
    ours, theirs = load_model(out), load_model(finished / "model.safetensors")
    for name, weights in theirs.channels[0].members[0].items():
        assert weights.equal(ours.channels[0].members[0][name])
    assert run([*arguments, "--resume"]) == 0
    assert "complete already" in capsys.readouterr().out
    assert run([*arguments, "--seed", "4", "--resume"]) == 2
    assert "config.train.seed: then 0, now 4" in capsys.readouterr().err


def test_a_resumed_run_uses_the_threads_it_began_with(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stopped(*_: object, folder: Path, **__: object) -> None:
        seen.append(torch.get_num_threads())
        (folder / "checkpoint").write_text("something")
        raise Interrupted

    monkeypatch.setattr("deepcontrast.jobs.enhance.enhance", stopped)
    arguments = ["enhance", str(tiny_file), "--out", str(tmp_path / "out"), *SET, "--quiet"]
    with threads(2):
        assert run(arguments) == 130
    assert run([*arguments, "--resume"]) == 130
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1
    monkeypatch.setattr("torch.__version__", "9.9")
    capsys.readouterr()
    assert run([*arguments, "--resume"]) == 2
    assert "machine.torch" in capsys.readouterr().err


def test_a_bad_image_is_left_out_of_a_batch(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stack(tmp_path / "flat.tif", Stack(np.full((4, 32, 32), 7, np.uint8), "ZYX"))
    (tmp_path / "broken.tif").write_bytes(b"II*\x00 not a tiff")
    out, names = tmp_path / "out", ("flat", "broken", "tiny")
    images = [str(tmp_path / f"{name}.tif") for name in names]
    assert run(["enhance", *images, "--out", str(out), *SET]) == 2
    said, err = capsys.readouterr()
    assert "flat.tif is left out" in said
    assert err.splitlines()[-1].startswith("deepcontrast: 2 of 3 images failed: flat.tif: ")
    assert sorted(p.name for p in out.iterdir()) == ["model.safetensors", "run.json", "tiny"]
    assert len(json.loads((out / "run.json").read_text())["failed"]) == 2
    # With none left nothing is written.
    assert run(["enhance", *images[:2], "--out", str(tmp_path / "none"), *SET]) == 2
    assert not list(tmp_path.glob("none*"))


def test_surface_and_invalid_voxels_are_said_before_training(
    tiny_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tiny_stack.volume().copy()
    volume[7] = 55
    write_stack(tmp_path / "a.tif", Stack(volume, "ZYX", tiny_stack.optics))
    monkeypatch.setattr("deepcontrast.jobs.enhance.enhance", lambda *_, **__: (_ for _ in ()).throw(Interrupted))
    assert run(["enhance", str(tmp_path / "a.tif"), "--out", str(tmp_path / "a" / "out"), *SET]) == 130
    out, err = capsys.readouterr()
    assert "the surface is the first plane (" in out
    assert "4608 voxels in 1 of 10 planes are empty" in out
    # Nothing was trained yet: nothing is left, and nothing promised.
    assert err.endswith("deepcontrast: interrupted\n")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_channel_names_are_not_file_names(tiny_stack: Stack, tmp_path: Path) -> None:
    array = np.stack([tiny_stack.volume(), tiny_stack.volume()[:, ::-1]])
    write_stack(tmp_path / "a.ome.tif", Stack(array, "CZYX", tiny_stack.optics, ("GFP", "DAPI/405")))
    out = tmp_path / "out"
    assert run(["enhance", str(tmp_path / "a.ome.tif"), "--out", str(out), *SET, "--quiet"]) == 0
    assert sorted(p.name for p in out.glob("*.html")) == ["report.html", "report_channel_1.html"]


def test_run_json_says_what_a_given_model_was_trained_with(finished: Path, tmp_path: Path) -> None:
    image, model = str(finished.parent / "tiny.tif"), str(finished / "model.safetensors")
    arguments = ["--model", model, "--out", str(tmp_path / "out"), "--set", "predict.iterations=1", "--quiet"]
    assert run(["enhance", image, *arguments]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["config"]["train"]["steps"], record["config"]["predict"]["iterations"]) == (12, 1)
    assert record["hardware"]["name"] not in ("", "x86_64")


REFERENCES = {
    "truth of another shape": (["--truth", "short.tif"], "the truth 'short.tif' has shape (1, 1, 9, 64, 72)"),
    "NaN in the truth": (["--truth", "nan.tif"], "'nan.tif' has 1 voxels that are NaN"),
    "constant truth": (["--truth", "flat.tif"], "constant"),
    "mask of another shape": (["--mask", "short.tif"], "the mask 'short.tif' has shape"),
    "empty mask": (["--mask", "zero.tif"], "marks no voxel"),
    "intensities as a mask": (["--mask", "good.tif"], "or all of them"),
    "NaN in the mask": (["--mask", "nan.tif"], "the mask 'nan.tif' has 1 voxels that are NaN"),
    "labels of another shape": (["--labels", "short.tif"], "the labels 'short.tif' has shape"),
    "intensities as labels": (["--labels", "good.tif"], "holds intensities, not labels"),
    "fractions as labels": (["--labels", "half.tif"], "has fractions"),
    "no labels": (["--labels", "zero.tif"], "no object"),
    "a mask as labels": (["--labels", "spots.tif"], "it is a mask, for --mask"),
    "NaN in the labels": (["--labels", "nan.tif"], "the labels 'nan.tif' has 1 voxels that are NaN"),
    "missing truth": (["--truth", "god.tif"], "good.tif"),
}


@pytest.fixture(scope="module")
def references(tiny_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    volume = tiny_stack.volume()
    nan = volume.astype(np.float32)
    nan[2, 3, 4] = np.nan
    spots = np.zeros(volume.shape, np.uint8)
    spots[:, 5:10, 5:10] = spots[:, 30:40, 30:40] = 255
    for name, array in (
        ("good", volume), ("short", volume[:9]), ("nan", nan), ("flat", np.full_like(volume, 7)),
        ("zero", np.zeros_like(volume)), ("half", volume.astype(np.float32) + 0.5), ("spots", spots),
    ):  # fmt: skip
        write_stack(folder / f"{name}.tif", Stack(array, "ZYX", tiny_stack.optics))
    return folder


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
@pytest.mark.parametrize("case", REFERENCES)
def test_what_a_result_is_held_against_is_checked(
    case: str, verb: str, references: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(references)
    before = sorted(references.rglob("*"))
    given, expected = REFERENCES[case]
    assert run([verb, "good.tif", *given, "--out", "new/out", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("deepcontrast: ")) == ("", 1, True)
    assert expected in err
    assert sorted(references.rglob("*")) == before


def test_labels_are_scored_where_the_raw_was_measured(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = open_stack(references / "spots.tif").volume()
    labels = (image > 0).astype(np.uint16)
    labels[:, 30:40, 30:40] *= 2
    raw = open_stack(references / "good.tif").volume().copy()
    raw[:, :, :10] = 0
    truth = np.where(raw == 0, 99, image)
    for name, array in (("labels", labels), ("raw", raw), ("truth", truth)):
        write_stack(tmp_path / f"{name}.tif", Stack(array, "ZYX"))
    given = [part for name in ("labels", "truth") for part in (f"--{name}", str(tmp_path / f"{name}.tif"))]
    found = {}
    for name, more in (("all", []), ("measured", ["--raw", str(tmp_path / "raw.tif")])):
        out = tmp_path / name
        assert run(["evaluate", str(references / "spots.tif"), *given, *more, "--out", str(out)]) == 0
        rows = json.loads((out / "metrics.json").read_text())["rows"]
        found[name] = {row["metric"]: row["value"] for row in rows if row["method"] == "result"}
    assert "seg 1.000" in capsys.readouterr().out
    assert (found["all"]["seg"], found["all"]["error"]) == (1, 0)
    assert found["measured"]["pearson"] == pytest.approx(1)
    assert found["all"]["pearson"] < 0.9


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["good.tif", "--methods", "medan"], "no method 'medan'; accepted: "),
        (["good.tif", "--methods", "medan"], "did you mean 'median'"),
        (["nan.tif"], "1 voxels that are NaN"),
        (["good.tif", "--budget", "0"], "--budget 0"),
        (["good.tif", "--na", "-1"], "--na -1"),
        (["good.tif", "--wavelength", "nan"], "--wavelength nan"),
        (["good.tif", "--model", "m.safetensors", "--gain", "2"], "--gain has no effect"),
        (["good.tif", "--surface", "top"], "first, last, auto"),
        (["channels.ome.tif"], "has 2 channels; --channel selects one"),
    ],
)
def test_wrong_options_of_compare_write_nothing(
    arguments: list[str], expected: str, references: Path, tiny_stack: Stack, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(references)
    if arguments[0] == "channels.ome.tif":
        write_stack(references / arguments[0], Stack(np.stack([tiny_stack.volume()] * 2), "CZYX", tiny_stack.optics))
    assert run(["compare", *arguments, "--out", "new/out", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["simulate", "tissue", "--shape", "inf,10,10"], "3 numbers"),
        (["simulate", "tissue", "--shape", "10.7,64,64"], "whole numbers"),
        (["simulate", "tissue", "--light", "nan"], "--light 'nan'"),
        (["simulate", "tissue", "--seed", "-1"], "--seed"),
        (["simulate", "tissue", "--undersampling", "4"], "--undersampling 4 for tissue; accepted: only for embryo"),
        (["simulate", "embryo", "--shape", "4,16,16", "--undersampling", "0.5"], "accepted: 1 or more"),
        (["demo", "--seeds", "nan"], "--seeds 'nan'"),
        (["demo", "--set", "train.stps=1"], "did you mean 'train.steps'"),
        (["enhance", "tiny.tif", "--out", "x" * 300], "File name too long"),
        (["enhance", "tiny.tif", "--out", "tiny.tif/out"], "a file, not a folder"),
    ],
)
def test_wrong_options_of_other_verbs_write_nothing(
    arguments: list[str], expected: str, tiny_file: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tiny_file.parent)
    given = arguments if "--out" in arguments else [*arguments, "--out", "out"]
    assert run(given) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert [p.name for p in Path().iterdir()] == ["tiny.tif"]


def test_bare_command_prints_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["deepcontrast"])
    assert run() == 0
    assert capsys.readouterr().out.count("\n") > 10


def test_a_short_run_promises_no_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepcontrast.demo.write_stack", lambda *_, **__: (_ for _ in ()).throw(Interrupted))
    assert run(["simulate", "tissue", "--out", str(tmp_path / "a" / "sim"), "--shape", "6,32,32"]) == 130
    assert capsys.readouterr().err == "deepcontrast: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_stacks_in_another_order_are_another_run(
    tiny_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for i, name in enumerate(("a.tif", "b.tif")):
        write_stack(tmp_path / name, Stack(tiny_stack.volume()[:6] + i, "ZYX", tiny_stack.optics))
        paths.append(str(tmp_path / name))
    out = str(tmp_path / "out")
    assert run(["enhance", *paths, "--out", out, *SET, "--quiet"]) == 0
    assert run(["enhance", *reversed(paths), "--out", out, *SET, "--quiet", "--resume"]) == 2
    assert "options.order" in capsys.readouterr().err


@pytest.mark.parametrize("message", ["DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."])
def test_running_out_of_memory_is_one_line_of_advice(
    message: str, tiny_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr("deepcontrast.jobs.info.describe", full)
    assert run(["info", str(tiny_file)]) == 2
    assert "out of memory" in capsys.readouterr().err


def test_types_that_tiff_readers_do_not_know_are_written_as_float(tiny_stack: Stack, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "wide.tif", tiny_stack.volume().astype(np.int64), metadata={"axes": "ZYX"})
    out = tmp_path / "out"
    assert run(["enhance", str(tmp_path / "wide.tif"), "--out", str(out), *SET, "--quiet"]) == 0
    assert open_stack(out / "enhanced.tif").dtype == np.float32


def test_a_gain_of_nothing_and_a_mount_point_are_refused(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enhance", str(tiny_file), "--out", str(tmp_path / "o"), "--gain", "0"]) == 2
    assert "above 0" in capsys.readouterr().err
    assert run(["enhance", str(tiny_file), "--out", "/"]) == 2
    assert "mount point" in capsys.readouterr().err

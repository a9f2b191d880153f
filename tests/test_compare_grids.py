"""Models of closer planes and of one plane beside what a user would do: run, tuned, scored and shown alike."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.cli import run
from deepcontrast.comparison.grid_scores import HIGHEST, GridScorer, cutoff_of
from deepcontrast.comparison.other_grids import check_grid_methods
from deepcontrast.comparison.scoring import Known
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, write_stack
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.model import save_model
from deepcontrast.report.grids_data import GridsData
from deepcontrast.report.grids_page import render, write_grids
from deepcontrast.stack import Optics, Stack

from .test_isotropic import texture, untrained
from .test_project import untrained as untrained_projection

CUBE = Optics(voxel_size=(0.2, 0.2, 0.2))
PICTURES = re.compile(r'src="data:image/png;base64,[^"]+" alt="([^"]*)"')


@dataclass(frozen=True)
class Run:
    folder: Path
    data: GridsData
    page: str
    said: list[str]
    rows: list[dict[str, Any]]

    def value(self, method: str, metric: str) -> Any:
        [found] = [row["value"] for row in self.rows if (row["method"], row["metric"]) == (method, metric)]
        return found


def compared(folder: Path, *arguments: str) -> Run:
    """Return what the command line makes of ``raw.tif`` and ``m.safetensors`` of a folder."""
    shown: list[GridsData] = []
    said: list[str] = []

    def page(path: Path, data: GridsData, **more: Any) -> None:
        shown.append(data)
        write_grids(path, data, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepcontrast.jobs.compare_grids.write_grids", page)
        patch.setattr("deepcontrast.cli.listener.Listener.say", lambda _, line: said.append(line))
        files = [str(folder / "raw.tif"), "--model", str(folder / "m.safetensors"), "--out", str(folder / "out")]
        assert run(["compare", *files, *arguments]) == 0
    rows = json.loads((folder / "out" / "metrics.json").read_text())["rows"]
    return Run(folder, shown[0], (folder / "out" / "report.html").read_text(), said, rows)


@pytest.fixture(scope="module")
def closer(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An untrained model of closer planes, with truth and labels."""
    folder = tmp_path_factory.mktemp("closer")
    truth = texture((24, 48, 56))
    labels, _ = ndimage.label(truth > 260)
    blurred = ndimage.gaussian_filter1d(truth, 2.0, axis=0)
    raw = Stack((blurred[1::4] + blurred[2::4]) / 2, "ZYX", Optics(voxel_size=(0.8, 0.2, 0.2)))
    write_stack(folder / "raw.tif", raw)
    write_stack(folder / "truth.tif", Stack(truth, "ZYX", CUBE))
    write_stack(folder / "labels.tif", Stack(labels.astype(np.uint16), "ZYX", CUBE))
    save_model(folder / "m.safetensors", untrained(raw))
    files = ["--truth", str(folder / "truth.tif"), "--labels", str(folder / "labels.tif"), "--save-images"]
    return compared(folder, *files)


def sheet(shape: tuple[int, int, int] = (12, 48, 56)) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy stack of bright lines on a tilted surface, and the plane it is of."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape[1:]), 4)
    plane = np.exp(-((noise / (0.25 * noise.std())) ** 2))
    height = 3 + 0.1 * np.arange(shape[2])
    z = np.arange(shape[0])[:, None, None]
    stack = plane * np.exp(-((z - height) ** 2) / 4) + 0.1 * np.random.default_rng(1).standard_normal(shape)
    return (100 + 50 * stack).astype(np.float32), plane.astype(np.float32)


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model of one plane, in whose stead a stand-in returns the truth and a flat surface, with truth and labels."""
    folder = tmp_path_factory.mktemp("projected")
    raw, truth = sheet()
    labels, _ = ndimage.label(truth < 0.3)
    stack = Stack(raw, "ZYX", Optics(voxel_size=(1.0, 0.5, 0.5)))
    write_stack(folder / "raw.tif", stack)
    write_stack(folder / "truth.tif", Stack(truth, "YX"))
    write_stack(folder / "labels.tif", Stack(labels.astype(np.uint16), "YX"))
    save_model(folder / "m.safetensors", untrained_projection())

    def maps(models: Any, stack: Stack, **_: Any) -> dict[str, Stack]:
        planes = {"mean": truth, "height": np.full_like(truth, 5), "height_spread": np.full_like(truth, 0.5)}
        return {name: replace(stack, array=plane, axes="YX") for name, plane in planes.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepcontrast.jobs.compare_grids.predict_maps", maps)
        files = ["--truth", str(folder / "truth.tif"), "--labels", str(folder / "labels.tif")]
        return compared(folder, *files, "--methods", "maximum,maximum + nlm,local_z_projector,local_z_projector + nlm")


# What is run and scored.


def test_every_upsampler_stands_beside_ours_and_the_truth(closer: Run) -> None:
    labels = [one.label for one in closer.data.methods]
    tuned = [f"{name} (tuned on the truth)" for name in registry.names("upsamplers") if name.startswith("richardson")]
    assert labels[:2] == ["linear", "deepcontrast"]
    assert labels[-1] == "truth"
    assert set(labels) == {"deepcontrast", "truth", *registry.names("upsamplers"), *tuned}
    assert len(labels) == len(set(labels))
    assert {one.volume.shape for one in closer.data.methods} == {(24, 48, 56)}
    assert not closer.data.skipped


def test_rows_hold_the_scores_of_whole_volumes(closer: Run) -> None:
    truth = open_stack(closer.folder / "truth.tif").volume()
    for one in closer.data.methods[:-1]:
        assert closer.value(one.label, "nrmse") == pytest.approx(nrmse(np.asarray(one.volume), truth)[0].value)
    names = {row["metric"] for row in closer.rows if row["method"] == "cubic"}
    assert names == {
        "isotropy", "nrmse", "ssim", "fourier_shell_mean", "fourier_shell_resolution", "fourier_shell_mean_axial",
        "fourier_shell_resolution_axial", "error", "error_threshold",
    }  # fmt: skip
    assert {row["metric"] for row in closer.rows if row["method"] == "truth"} == {"isotropy"}
    assert all((row["z"], row["t"], row["c"]) == (None, 0, 0) for row in closer.rows)
    assert all(row["value"] is not None or row["reason"] for row in closer.rows)


def test_tuned_on_the_truth_agrees_at_least_as_well(closer: Run) -> None:
    for name in ("richardson_lucy_planes", "richardson_lucy_fine"):
        assert closer.value(f"{name} (tuned on the truth)", "ssim") >= closer.value(name, "ssim")


def test_the_blur_of_the_model_is_told_to_the_methods(closer: Run) -> None:
    [sigma] = re.findall(r"sigma ([0-9.]+)", dict(closer.data.facts)["Told to the methods"])
    [settings] = [one.parameters for one in closer.data.methods if one.label == "richardson_lucy_fine"]
    assert f"sigma {sigma}" in settings
    assert "iterations 10" in settings


def test_images_are_written_on_the_grid_of_the_result(closer: Run) -> None:
    found = open_stack(closer.folder / "out" / "images" / "cubic.tif")
    assert found.shape == (24, 48, 56)
    assert found.optics.voxel_size == pytest.approx((0.2, 0.2, 0.2))
    assert len(list((closer.folder / "out" / "images").iterdir())) == len(closer.data.methods) - 1


def test_a_stack_without_structure_along_z_has_a_low_ratio_and_the_truth_one() -> None:
    truth = texture((48, 64, 64))
    scorer = GridScorer(Known(), cutoff_of(truth, Optics()))
    blurred = ndimage.gaussian_filter1d(truth, 4.0, axis=0)
    ratios = [scorer(volume)[0][0].value for volume in (truth, blurred)]
    assert ratios[0] == pytest.approx(1, abs=0.25)
    assert ratios[1] < 0.1


def test_the_cut_off_is_that_of_the_optics_or_where_noise_begins() -> None:
    optics = Optics(voxel_size=(0.1, 0.1, 0.1), numerical_aperture=1.0, wavelengths=(500.0,))
    noisy = texture((24, 64, 64)) + np.random.default_rng(0).normal(0, 5, (24, 64, 64)).astype(np.float32)
    known = cutoff_of(noisy, optics)
    # 2 NA / wavelength is 4 cycles per um.
    assert known.frequency == pytest.approx(0.4)
    assert known.band == pytest.approx((0.1, 0.36))
    found = cutoff_of(noisy, Optics())
    # Sections of noise of deviation 100, smoothed by s = 1.2 px, have the power 4 pi s^2 100^2 exp(-(2 pi q s)^2); the
    # noise has 25, and where both are equal, their sum is twice the floor.
    ratio = 4 * np.pi * 1.2**2 * 100**2 / 25
    assert found.frequency == pytest.approx(np.sqrt(np.log(ratio)) / (2 * np.pi * 1.2), rel=0.07)
    assert cutoff_of(np.random.default_rng(0).random((16, 32, 32)).astype(np.float32), Optics()).frequency <= HIGHEST


def test_projections_are_taken_as_they_are_and_with_nlm(projected: Run) -> None:
    labels = [one.label for one in projected.data.methods]
    both = [name + end for name in ("maximum", "local_z_projector") for end in ("", " + nlm")]
    tuned = [f"{name} (tuned on the truth)" for name in both if name != "maximum"]
    assert set(labels) == {"deepcontrast", "truth", *both, *tuned}
    assert {one.volume.shape for one in projected.data.methods} == {(1, 48, 56)}
    assert projected.value("deepcontrast", "nrmse") == pytest.approx(0, abs=1e-6)
    assert projected.value("deepcontrast", "membrane_seg") > projected.value("maximum", "membrane_seg") - 0.05
    assert projected.value("maximum + nlm", "nrmse") < projected.value("maximum", "nrmse")
    assert not any(row["metric"] == "isotropy" for row in projected.rows)


def test_a_projection_has_its_height_and_spread_and_is_written_as_a_plane(projected: Run, tmp_path: Path) -> None:
    for name in ("raw.tif", "m.safetensors"):
        (tmp_path / name).write_bytes((projected.folder / name).read_bytes())
    alone = compared(tmp_path, "--methods", "maximum", "--save-images")
    [ours, other] = alone.data.methods
    assert (ours.label, other.label) == ("deepcontrast", "maximum")
    assert ours.height is not None
    assert ours.spread is not None
    assert ours.height.shape == ours.spread.shape == (48, 56)
    assert 0 <= ours.height.min() <= ours.height.max() <= 11
    assert open_stack(tmp_path / "out" / "images" / "maximum.tif").shape == (48, 56)
    assert not alone.rows


def test_the_summary_holds_ours_against_the_best_of_the_others(closer: Run) -> None:
    others = [m.label for m in closer.data.methods if m.kind in ("raw", "user")]
    best = max(others, key=lambda label: closer.value(label, "ssim"))
    score = f"{closer.value('deepcontrast', 'ssim'):.3f}"
    [said] = [line for line in closer.data.summary if line.startswith("SSIM")]
    assert said.startswith(f"SSIM {score};")
    assert f"is {best} with {closer.value(best, 'ssim'):.3f}" in said
    assert closer.data.summary[0].startswith("Phi is")


def test_linear_interpolation_is_always_there_and_names_are_checked() -> None:
    assert check_grid_methods("isotropic", ["cubic", "cubic"]) == ("linear", "cubic")
    assert check_grid_methods("project", ["maximum + nlm"]) == ("maximum + nlm",)
    assert check_grid_methods("isotropic", None)[0] == "linear"
    with pytest.raises(InputError, match=r"no method 'cubik'; accepted: .*; did you mean 'cubic'\?$"):
        check_grid_methods("isotropic", ["cubik"])


# What is shown.


def test_the_page_of_closer_planes_has_its_figures(closer: Run) -> None:
    shown = PICTURES.findall(closer.page)
    for one in closer.data.methods:
        for place in ("xz section, y = 24: the middle", "yz section, x = 28: the middle"):
            assert f"{one.label}, {place}" in shown
    sections = [words for words in shown if "most structure" in words]
    assert len(sections) == 4 * len(closer.data.methods)
    for words in ("power spectra", "isotropy ratio", "Fourier shell", "ERROR against the threshold"):
        assert sum(words in alt for alt in shown) == 1
    assert "Gaussian, sigma" in closer.page
    assert "http://" not in closer.page.replace("http://www.w3.org", "")


def test_the_page_of_one_plane_has_its_figures(projected: Run) -> None:
    shown = PICTURES.findall(projected.page)
    for one in projected.data.methods:
        assert sum(alt.startswith(f"{one.label}, The whole plane") for alt in shown) == 1
    for words in ("height maps", "spread of the height", "with the heights", "Fourier shell"):
        assert sum(words in alt for alt in shown) == 1
    assert "power spectra" not in projected.page


def test_equal_data_give_an_equal_page(closer: Run) -> None:
    assert render(closer.data) == closer.page


def test_the_spectra_of_the_blur_are_shown_where_it_was_estimated(closer: Run) -> None:
    spectra = {name: np.linspace(1, 2, 5) for name in ("frequency", "lateral", "axial", "modelled")}
    page = render(replace(closer.data, blur=spectra))
    assert "spectra that the axial blur was estimated from" in page


def test_without_truth_there_is_isotropy_alone(closer: Run, tmp_path: Path) -> None:
    for name in ("raw.tif", "m.safetensors"):
        (tmp_path / name).write_bytes((closer.folder / name).read_bytes())
    alone = compared(tmp_path, "--methods", "cubic")
    assert [one.label for one in alone.data.methods] == ["linear", "deepcontrast", "cubic"]
    assert {row["metric"] for row in alone.rows} == {"isotropy"}
    assert "There is no truth here" in alone.page
    assert not (tmp_path / "out" / "images").exists()


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--truth", "raw.tif"), ("(1, 1, 6, 48, 56)", "(1, 1, 24, 48, 56)")),
        (("--mask", "truth.tif"), ("--mask", "isotropic")),
        (("--surface", "first"), ("--surface first", "isotropic")),
        (("--index", "1.5"), ("--index", "isotropic")),
        (("--set", "predict.orientations=1"), ("--set predict", "isotropic")),
        (("--methods", "maximum"), ("no method 'maximum'", "richardson_lucy_fine")),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(
    closer: Run, tmp_path: Path, capsys: Any, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    files = [str(closer.folder / name) if name.endswith(".tif") else name for name in arguments]
    command = ["compare", str(closer.folder / "raw.tif"), "--model", str(closer.folder / "m.safetensors")]
    assert run([*command, "--out", str(tmp_path / "out"), *files]) == 2
    said = capsys.readouterr().err.strip()
    assert all(word in said for word in words)
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stack: replace(stack, array=np.stack([stack.array] * 2), axes="TZYX"), "2 time points"),
        (lambda stack: replace(stack, array=np.stack([stack.array] * 2), axes="CZYX"), "2 channels"),
        (lambda stack: replace(stack, array=stack.array[:1]), "one plane"),
    ],
)
def test_a_stack_that_cannot_be_compared_is_refused(
    closer: Run, tmp_path: Path, capsys: Any, change: Callable[[Stack], Stack], words: str
) -> None:
    write_stack(tmp_path / "raw.tif", change(open_stack(closer.folder / "raw.tif")))
    model = str(closer.folder / "m.safetensors")
    assert run(["compare", str(tmp_path / "raw.tif"), "--model", model, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err

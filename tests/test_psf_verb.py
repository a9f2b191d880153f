"""The verb psf: what it writes and says, that training takes it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from deepcontrast.axial_blur import of_psf
from deepcontrast.cli import run
from deepcontrast.depth import depths
from deepcontrast.io import open_stack, write_stack
from deepcontrast.psf import aberrated, confocal, fwhm, light_sheet, two_photon, widefield
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Source
from deepcontrast.tasks._axial import axial_of
from deepcontrast.tasks.isotropic import Params

OPTICS = ["--na", "0.8", "--index", "1.33", "--voxel-size", "0.3,0.15,0.15", "--shape", "7,9,9"]
SHAPE = (7, 9, 9)
KNOWN = {"na": 0.8, "index": 1.33, "voxel_um": (0.3, 0.15, 0.15)}


def test_every_kind_is_the_function_of_its_name(tmp_path: Path) -> None:
    layers = {"sample_index": 1.45, "depth_um": 20.0}
    cases = {
        "--wavelength 520": widefield(SHAPE, wavelength_um=0.52, **KNOWN),
        "--wavelength 520 --sample-index 1.45 --depth 20": widefield(SHAPE, wavelength_um=0.52, **layers, **KNOWN),
        "--kind confocal --wavelength 520 --excitation 488 --pinhole 0.5": confocal(
            SHAPE, excitation_um=0.488, emission_um=0.52, pinhole=0.5, **KNOWN
        ),
        "--kind two-photon --excitation 920": two_photon(SHAPE, excitation_um=0.92, **KNOWN),
        "--kind light-sheet --wavelength 520 --sheet 1.5": light_sheet(
            SHAPE, wavelength_um=0.52, sheet_um=1.5, **KNOWN
        ),
        "--wavelength 520 --zernike 12=0.5,5=-0.3": aberrated(
            SHAPE, wavelength_um=0.52, aberrations={12: 0.5, 5: -0.3}, **KNOWN
        ),
    }
    for number, (words, expected) in enumerate(cases.items()):
        out = tmp_path / f"{number}.tif"
        assert run(["psf", *OPTICS, *words.split(), "--out", str(out), "--quiet"]) == 0
        with tifffile.TiffFile(out) as file:
            assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK
        written = open_stack(out)
        assert (written.axes, written.dtype, written.optics.voxel_size) == ("ZYX", np.float32, KNOWN["voxel_um"])
        np.testing.assert_array_equal(written.volume(), expected)


def test_it_says_widths_and_sum_and_warns_of_coarse_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--na", "0.8", "--index", "1.33", "--wavelength", "500", "--json", "--voxel-size"]
    assert run(["psf", *words, "0.2,0.05,0.05", "--out", str(tmp_path / "fine.tif")]) == 0
    said = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    z, _, x = fwhm(open_stack(tmp_path / "fine.tif").volume(), (0.2, 0.05, 0.05))
    assert "sum 1.0000" in said[0]
    assert said[1] == f"full width at half maximum: lateral {x:.3g} um, axial {z:.3g} um"
    # Theory: .514 wavelength / na, .886 wavelength / (index - sqrt(index^2 - na^2)), and the voxels' own width.
    assert x == pytest.approx(0.514 * 0.5 / 0.8, rel=0.05)
    assert z == pytest.approx(0.886 * 0.5 / (1.33 - np.sqrt(1.33**2 - 0.8**2)), rel=0.05)
    assert not any("warning" in line for line in said)
    assert run(["psf", *words, "2.0,0.3,0.3", "--out", str(tmp_path / "coarse.tif")]) == 0
    said = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    for name, limit in (
        ("lateral voxels of 0.3 um", 0.5 / (4 * 0.8)),
        ("axial voxels of 2 um", 0.5 / (2 * (1.33 - np.sqrt(1.33**2 - 0.8**2)))),
    ):
        assert any(name in line and f"limit, {limit:.3g} um" in line for line in said)


def test_training_takes_what_it_writes(tmp_path: Path) -> None:
    out = tmp_path / "psf.tif"
    words = [
        "psf",
        "--na",
        "0.8",
        "--index",
        "1.33",
        "--wavelength",
        "520",
        "--voxel-size",
        "0.2,0.2,0.2",
        "--quiet",
        "--out",
    ]
    assert run([*words, str(out)]) == 0
    image = Stack(np.zeros((5, 9, 9), np.float32), "ZYX", Optics(voxel_size=(1.0, 0.2, 0.2)))
    settings = Params(psf=str(out), noise=False)
    found = axial_of([Source(image, 0, 0, depths(image))], 5.0, settings, lambda *_: None)
    np.testing.assert_array_equal(
        np.array(found.kernel, np.float32), of_psf(open_stack(out).volume(), (0.2, 0.2, 0.2), 0.2)
    )


def test_beads_of_several_files_give_one_psf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = np.indices((31, 41, 41), dtype=float)
    for number, place in enumerate([(15, 20, 20), (16, 19, 21)]):
        distance = (axes - np.reshape(place, (3, 1, 1, 1))) / np.reshape([3.0, 1.5, 1.5], (3, 1, 1, 1))
        bead = 100 + 3000 * np.exp(-(distance**2).sum(axis=0) / 2)
        optics = Optics(voxel_size=(0.2, 0.1, 0.1))
        write_stack(tmp_path / f"bead{number}.tif", Stack(bead.astype(np.uint16), "ZYX", optics))
    out = tmp_path / "out" / "psf.tif"
    assert run(["psf", "--bead", str(tmp_path), "--out", str(out)]) == 0
    assert "bead1.tif: 1 bead" in capsys.readouterr().out
    written = open_stack(out)
    assert written.shape == (29, 39, 39)
    assert written.optics.voxel_size == (0.2, 0.1, 0.1)
    assert written.volume().sum(dtype=float) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(fwhm(written.volume(), (1, 1, 1)), 2.355 * np.array([3.0, 1.5, 1.5]), rtol=0.03)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--na 1.4 --wavelength 520", "below the index"),
        ("--wavelength 0", "--wavelength 0; accepted: nanometres"),
        ("--wavelength 0.52", "--wavelength 0.52; accepted: nanometres, from 100 to 20000, e.g. 520"),
        ("", "a widefield PSF needs --wavelength"),
        ("--kind twophoton", "accepted: widefield, confocal, two-photon, light-sheet"),
        ("--kind confocal --wavelength 520", "a confocal PSF needs --excitation"),
        ("--wavelength 520 --pinhole 1", "--pinhole has no effect on a widefield PSF"),
        ("--kind two-photon --excitation 920 --wavelength 520", "--wavelength has no effect"),
        ("--wavelength 520 --depth 5", "--sample-index and --depth"),
        ("--wavelength 520 --sample-index 1.4 --depth 5 --zernike 12=1", "--zernike does not go with --depth"),
        ("--kind confocal --wavelength 520 --excitation 488 --zernike 12=1", "does not go with a confocal PSF"),
        ("--wavelength 520 --zernike 12", "OSA index=radians"),
        ("--wavelength 520 --zernike 12=1,12=2", "OSA index=radians, each once"),
        ("--wavelength 520 --zernike 999=1", "Zernike index 999"),
        ("--wavelength 520 --shape 8,9,9", "three odd sizes"),
        ("--wavelength 520 --shape 9001,9001,9001", "voxels; accepted: up to"),
        ("--wavelength 520 --voxel-size 0.3,0,0.1", "above 0"),
        ("--kind light-sheet --wavelength 520 --sheet -1", "sheet -1.0 um thick"),
        ("--kind confocal --wavelength 520 --excitation 488 --pinhole inf", "accepted: 0 (a point) to 100"),
        ("--bead EMPTY", "no image in the folder"),
        ("--bead nan.tif", "'nan.tif': 27 of 27 values of the PSF are NaN"),
        ("--bead nowhere.tif", "no such file: nowhere.tif"),
        ("--bead nan.tif --pinhole 1", "--pinhole has no effect with --bead"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    tifffile.imwrite("nan.tif", np.full((3, 3, 3), np.nan, np.float32), photometric="minisblack")
    # Of options given twice the last one counts.
    optics = ["--voxel-size", "0.3,0.1,0.1"] if "--bead" in words else OPTICS
    assert run(["psf", *optics, *words.split(), "--out", "psf.tif"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "psf.tif").exists()


def test_an_existing_file_is_replaced_on_demand_only(tmp_path: Path) -> None:
    command = ["psf", *OPTICS, "--wavelength", "520", "--quiet", "--out", str(tmp_path / "psf.tif")]
    assert [run(command), run(command), run([*command, "--overwrite"])] == [0, 2, 0]

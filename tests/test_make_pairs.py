"""``deepcontrast pairs``: folders, table, contact sheet, and pairs that can be made again alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import data

from deepcontrast.cli import run
from deepcontrast.distortion import distort, steps_of
from deepcontrast.io import open_stack, write_stack
from deepcontrast.jobs.make_pairs import read_parameters
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Optics, Stack


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    cell = data.cell()[200:296, 200:304]
    for n, name in enumerate(("one", "two")):
        write_stack(folder / f"{name}.tif", Stack(np.roll(cell, 9 * n, 0), "YX", Optics((None, 0.1, 0.1))))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.tif"))}


def test_three_pairs_of_every_image_a_table_and_a_sheet(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    assert run(["pairs", str(images), "--out", str(out), "--quiet"]) == 0
    names = [f"{image}_set{k}" for image in ("one", "two") for k in range(3)]
    for kind in ("input", "target"):
        assert sorted(f.stem for f in (out / kind).iterdir()) == names
        stack = open_stack(out / kind / "one_set0.tif")
        assert (stack.axes, stack.shape, stack.dtype) == ("YX", (96, 104), np.float32)
        assert stack.optics.voxel_size[1:] == pytest.approx((0.1, 0.1))
    table = read_parameters(out / "parameters.csv")
    assert list(table) == names
    sigmas = [table[f"one_set{k}"]["gaussian.sigma"] for k in range(3)]
    assert 0 <= sigmas[0] <= 0.1 / 3 <= sigmas[1] <= 0.2 / 3 <= sigmas[2] <= 0.1
    assert (out / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_pair_can_be_made_again_alone(images: Path, tmp_path: Path) -> None:
    all_, one, named = tmp_path / "all", tmp_path / "one", tmp_path / "named"
    assert run(["pairs", str(images), "--out", str(all_), "--quiet", "--seed", "4"]) == 0
    assert run(["pairs", str(images / "two.tif"), "--out", str(one), "--quiet", "--seed", "4"]) == 0
    assert run(["pairs", str(images), "--out", str(named), "--only", "two_set1", "--quiet", "--seed", "4"]) == 0
    whole = files(all_)
    assert len(whole) == 12
    assert files(one) == {name: found for name, found in whole.items() if "two" in name}
    assert files(named) == {name: found for name, found in whole.items() if "two_set1" in name}
    steps = steps_of(load_recipe("semi-synthetic").task["chain"])
    row = read_parameters(all_ / "parameters.csv")["two_set1"]
    stack = open_stack(images / "two.tif")
    pair = distort(stack.volume(), Optics((0.1, 0.1, 0.1)), steps, row)
    np.testing.assert_array_equal(pair.image[0], tifffile.imread(all_ / "input" / "two_set1.tif"))
    np.testing.assert_array_equal(pair.target[0], tifffile.imread(all_ / "target" / "two_set1.tif"))


def test_stacks_channels_and_times_are_all_made_into_pairs(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).gamma(1, 50, (2, 2, 3, 32, 40)).astype(np.uint16)
    write_stack(tmp_path / "movie.ome.tif", Stack(volume, "TCZYX"))
    assert run(["pairs", str(tmp_path / "movie.ome.tif"), "--out", str(tmp_path / "out"), "--set", "task.sets=1",
                "--quiet"]) == 0  # fmt: skip
    assert sorted(f.stem for f in (tmp_path / "out" / "input").iterdir()) == [
        "movie_t0_c0_set0", "movie_t0_c1_set0", "movie_t1_c0_set0", "movie_t1_c1_set0",
    ]  # fmt: skip
    assert open_stack(tmp_path / "out" / "target" / "movie_t1_c0_set0.tif").shape == (3, 32, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "care"], "which makes no pairs"),
        (["--set", "task.chain.poisson.ligth=3"], "did you mean 'light'"),
        (["--set", "task.chain.poison.light=3"], "did you mean 'poisson'"),
        (["--set", "task.chain.convolve.na=1.6"], "aperture 1.6"),
        (["--set", "task.chain.convolve.wavelength=0"], "wavelength"),
        (["--count", "3"], "task.sets pairs"),
        (["--only", "three"], "no pair has this name"),
        (["--set", "task.shifted=['poisson.photons']"], "no 'poisson.photons' to shift"),
        (["--set", "task.chain.background_3.level=0"], "did you mean 'background_2'"),
        (["--set", "task.chain.convolve.wavelength=0.52"], "accepted: nanometres"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(
    images: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pairs", str(images), "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_one_step_of_two_of_a_name_is_set(images: Path, tmp_path: Path) -> None:
    options = ["--set", "task.chain.background_2.level=0.4", "--set", "task.chain.background.glow=0.3"]
    assert run(["pairs", str(images), "--out", str(tmp_path / "out"), "--only", "one_set0", "--quiet", *options]) == 0
    row = read_parameters(tmp_path / "out" / "parameters.csv")["one_set0"]
    assert (row["background.glow"], row["background_2.glow"], row["background_2.level"]) == (0.3, 0, 0.4)


def test_an_empty_folder_and_no_image_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["pairs", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "no image in the folder" in capsys.readouterr().err
    assert run(["pairs", "--out", str(tmp_path / "out")]) == 2
    assert "learns from images" in capsys.readouterr().err


def test_pixels_too_coarse_for_the_objective_are_said(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--only", "one_set0", "--set", "task.chain.convolve.wavelength=500"]
    assert run(["pairs", str(images), "--out", str(tmp_path / "coarse"), *options]) == 0
    assert "pixels of 0.1 um are coarser than wavelength / (4 NA), 0.08929 um" in capsys.readouterr().out
    options += ["--set", "task.chain.convolve.na=1.2"]
    assert run(["pairs", str(images), "--out", str(tmp_path / "fine"), *options]) == 0
    assert "coarser" not in capsys.readouterr().out

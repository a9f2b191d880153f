"""Structures equally bright at all depths: flat where they faded, bounded where there are none, and undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import deepcontrast as dc
from deepcontrast.cli import run
from deepcontrast.equalise import MOST, Equalisation, equalise, to_record, undone
from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, read_attributes, write_stack
from deepcontrast.jobs.images import write_image
from deepcontrast.report import ReportData
from deepcontrast.scale import shard_sizes
from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue

from .conftest import TINY

GAIN, OFFSET, LIGHT = 2.0, 100.0, 100.0
PLANES = 24
DEPTH = 2.0 * np.arange(PLANES)
FADE = np.exp(-DEPTH / 24)
"""To a seventh."""
Volume = NDArray[np.float32]


def balls(counts: NDArray[np.int64], seed: int = 0) -> Volume:
    """Return so many balls in every plane and its next ones, of brightness 0.7 to 1.3 (Z, Y, X)."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.mgrid[-3:4, -3:4, -3:4])
    ball = (place**2).sum(axis=0) <= 9
    out = np.zeros((PLANES + 6, 102, 102), np.float32)
    for z, count in enumerate(counts):
        for y, x in rng.integers(0, 96, (count, 2)):
            out[z : z + 7, y : y + 7, x : x + 7][ball] = rng.uniform(0.7, 1.3)
    return np.asarray(ndimage.gaussian_filter(out, 0.7)[3:-3, 3:-3, 3:-3])


def scene(structure: Volume, seed: int = 1) -> tuple[Volume, Volume]:
    """Return a result, structures with a remainder of the noise, and its raw, where they stand in haze."""
    rng = np.random.default_rng(seed)
    photons = LIGHT * (structure + 0.5 * ndimage.gaussian_filter(structure, (0, 15, 15)) + 0.02)
    noise = ndimage.gaussian_filter(rng.normal(size=structure.shape), (0, 1.5, 1.5))
    result = GAIN * (LIGHT * structure + 0.3 * np.sqrt(photons) * noise / noise.std()) + OFFSET
    return result.astype(np.float32), (GAIN * rng.poisson(photons) + OFFSET).astype(np.float32)


def found(structure: Volume, **options: Any) -> Equalisation:
    result, raw = scene(structure)
    return equalise(result, raw, DEPTH, gain=GAIN, intercept=OFFSET, offset=OFFSET, **options)


def even(count: int = 25) -> NDArray[np.int64]:
    return np.full(PLANES, count)


def faded(structure: Volume, fade: NDArray[np.float64] = FADE) -> Volume:
    return np.asarray(structure * fade[:, None, None], np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_exponential_fade_becomes_flat_within_a_fifth(seed: int) -> None:
    structure = balls(even(), seed)
    result, raw = scene(faded(structure), seed)
    one = equalise(result, raw, DEPTH, gain=GAIN, intercept=OFFSET, offset=OFFSET)
    flat = one.apply(result, DEPTH, None)
    # Independent of how the brightness was estimated: slope on the structures that are known.
    slopes = np.array([np.polyfit(s.ravel(), p.ravel(), 1)[0] for s, p in zip(structure, flat, strict=True)])
    assert slopes.max() / slopes.min() < 1.2 / 0.8
    np.testing.assert_allclose(slopes / np.median(slopes), 1, atol=0.2)
    assert (np.diff(one.at(DEPTH)) >= 0).all()
    assert one.at(DEPTH)[0] == 1


def test_the_surface_may_be_the_last_plane() -> None:
    result, raw = scene(faded(balls(even())))
    camera = {"gain": GAIN, "intercept": OFFSET, "offset": OFFSET}
    first = equalise(result, raw, DEPTH, **camera)
    last = equalise(result[::-1], raw[::-1], DEPTH[::-1], **camera)
    np.testing.assert_allclose(last.at(DEPTH[::-1]), first.at(DEPTH)[::-1])


@pytest.mark.parametrize("counts", [(5, 40), (40, 5)])
def test_a_density_that_changes_with_depth_is_not_taken_for_fading(counts: tuple[int, int]) -> None:
    structure = balls(np.linspace(*counts, PLANES).astype(int))
    assert found(structure).at(DEPTH).max() < 1.25


def test_structures_that_brighten_with_depth_are_left_alone() -> None:
    factor = found(faded(balls(even()), np.exp(DEPTH / 48))).at(DEPTH)
    np.testing.assert_array_equal(factor, 1)


def test_beyond_the_last_structures_the_factor_stays() -> None:
    empty = np.where(np.arange(PLANES) < PLANES // 2, FADE, 0.0)
    half, whole = (found(faded(balls(even()), fade)) for fade in (empty, FADE))
    factor = half.at(DEPTH)
    assert half.measured[0].max() <= DEPTH[PLANES // 2 + 1]
    np.testing.assert_array_equal(factor[PLANES // 2 + 1 :], factor[-1])
    assert factor[-1] == pytest.approx(whole.at(DEPTH)[PLANES // 2], rel=0.25)


def test_noise_and_emptiness_are_not_equalised() -> None:
    nothing = np.zeros((PLANES, 96, 96), np.float32)
    one = found(nothing)
    np.testing.assert_array_equal(one.at(DEPTH), 1)
    assert "no plane is scaled" in one.describe()
    assert found(faded(nothing + 1)).measured.size == 0


def test_no_factor_is_larger_than_the_limit() -> None:
    one = found(faded(balls(even()), np.exp(-DEPTH / 10)))
    assert 3 < one.at(DEPTH).max() <= MOST


def test_voxels_without_a_measurement_neither_count_nor_change() -> None:
    structure = faded(balls(even()))
    result, raw = scene(structure)
    valid = np.ones(result.shape, bool)
    valid[:, :, :30] = False
    result[~valid] = raw[~valid] = 0
    valid[5] = False
    camera = {"gain": GAIN, "intercept": OFFSET, "offset": OFFSET}
    one = equalise(result, raw, DEPTH, valid=valid, **camera)
    np.testing.assert_allclose(one.at(DEPTH), found(structure).at(DEPTH), rtol=0.25)
    np.testing.assert_array_equal(one.apply(result, DEPTH, valid)[~valid], result[~valid])


def curve(*factor: float) -> Equalisation:
    return Equalisation(OFFSET, np.linspace(0, 10, len(factor)), np.array(factor), np.zeros((2, 9)), 9)


def test_undo_gives_channels_and_time_points_back(rng: np.random.Generator) -> None:
    depth = np.linspace(0, 10, 5)
    before = rng.uniform(0, 5000, (3, 2, 5, 6, 7)).astype(np.float32)
    channels = curve(1, 2, 8), curve(1, 1.5)
    after = np.stack([[channels[c].apply(frame[c], depth, None) for c in (0, 1)] for frame in before])
    record = json.loads(json.dumps(to_record(channels, depth)))
    back = undone(Stack(after, "TCZYX"), record)
    np.testing.assert_allclose(back.array[:], before, rtol=1e-5)
    np.testing.assert_array_equal(back.array[1, 1, 2:4, :, 3], back.array[:][1, 1, 2:4, :, 3])
    with pytest.raises(InputError, match="has 2 channels of 4 planes, but was equalised with 2 of 5"):
        undone(Stack(after[:, :, 1:], "TCZYX"), record)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 250), ("uint8", 700), ("uint16", 90000), ("float32", 90000)])
def test_undo_of_integers_is_within_half_a_step_where_nothing_was_clipped(
    dtype: str, top: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    depth, one = np.linspace(0, 10, 5), curve(1, 3)
    before = rng.uniform(100, 100 + (top - 100) / 3, (5, 32, 32)).astype(np.float32)
    before[4, 0, 0] = top * 3
    attributes = {"equalised": json.dumps(to_record([one], depth))}
    stack = Stack(one.apply(before, depth, None), "ZYX", Optics(voxel_size=(2.5, 1.0, 1.0)))
    write_image(tmp_path / "a.tif", stack, np.dtype(dtype), attributes)
    back = dc.undo_equalise(tmp_path / "a.tif").volume()
    assert any("undo_equalise" in note for note in dc.open(tmp_path / "a.tif").notes)
    error = np.abs(back - before)
    # The one voxel that is brighter than the type holds is clipped; it never gets brighter.
    error[4, 0, 0] = 0
    assert back[4, 0, 0] <= before[4, 0, 0] * (1 + 1e-5)
    step = 0.0 if dtype == "float32" else float(read_attributes(tmp_path / "a.tif").get("intensity_scale", 1.0))
    assert error.max() <= step / 2 + 0.01


def test_an_image_that_was_not_equalised_is_refused(tiny_file: Path) -> None:
    with pytest.raises(InputError, match="does not say how it was equalised; accepted"):
        dc.undo_equalise(tiny_file)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two time points of a stack that fades; a border that holds nothing."""
    folder = tmp_path_factory.mktemp("movie")
    made = tissue(shape=(10, 48, 56), seed=5, attenuation_um=2.0, light=400.0)
    volume = made.raw.copy()
    volume[:, :, :8] = 0
    optics = Optics(voxel_size=(0.3, 0.3, 0.3), surface="first")
    write_stack(folder / "movie.ome.zarr", Stack(np.stack([volume, volume - volume // 4]), "TZYX", optics))
    return folder / "movie.ome.zarr"


def enhanced(movie: Path, out: Path, *options: str) -> ReportData:
    """Enhance into a folder, and return what the report shows, which is drawn in other tests."""
    pages: list[ReportData] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepcontrast.jobs.results.write_report", lambda path, data: pages.append(data))
        settings = [part for setting in TINY for part in ("--set", setting)]
        arguments = [str(movie), "--out", str(out), *settings, "--surface", "first", "--quiet", *options]
        assert run(["enhance", *arguments]) == 0
    return pages[0]


@pytest.fixture(scope="module")
def outs(movie: Path) -> tuple[Path, Path]:
    """The results without and with equalising."""
    plain, flat = movie.parent / "plain", movie.parent / "flat"
    before, after = enhanced(movie, plain), enhanced(movie, flat, "--equalise-depth")
    assert before.equalised is None
    assert after.equalised is not None
    assert not any("equalised" in sentence for sentence in before.summary)
    assert "intensities of different depths are not comparable" in after.summary[-1]
    np.testing.assert_array_equal(after.enhanced, before.enhanced)
    return plain, flat


def test_only_image_report_and_record_know_of_it(outs: tuple[Path, Path]) -> None:
    plain, flat = outs
    for name in ("metrics.json", "model.safetensors"):
        assert (plain / name).read_bytes() == (flat / name).read_bytes()
    assert json.loads((plain / "run.json").read_text())["equalised"] == {}
    with pytest.raises(InputError, match="does not say"):
        dc.undo_equalise(plain / "enhanced.ome.zarr")


def test_a_run_is_undone_to_what_it_would_have_been(outs: tuple[Path, Path], movie: Path) -> None:
    plain, flat = (open_stack(folder / "enhanced.ome.zarr") for folder in outs)
    record = json.loads((outs[1] / "run.json").read_text())["equalised"]["movie.ome.zarr"]
    [factor], [offset] = np.array(record["factor"]), record["offset"]
    assert factor[0] == 1
    assert factor[-1] > 1.3
    measured = np.asarray(open_stack(movie).array) > 0
    back = dc.undo_equalise(outs[1] / "enhanced.ome.zarr").array[:]
    assert flat.dtype == plain.dtype
    # Half a grey level of rounding in each.
    clipped = np.asarray(flat.array) == 0
    assert clipped[measured].mean() < 0.001
    assert np.abs(back - plain.array)[measured & ~clipped].max() <= 1.001
    # The same numbers, by the formula: one curve for both time points.
    by_hand = offset + (np.asarray(flat.array) - offset) / factor[:, None, None]
    np.testing.assert_allclose(back, by_hand, atol=1e-2)
    assert (np.asarray(flat.array)[~measured] == 0).all()


def test_what_is_equalised_in_shards_is_what_is_equalised_in_memory(
    outs: tuple[Path, Path], movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_sizes, "SHARD", 2**13)
    monkeypatch.setattr(shard_sizes, "FINEST", (4, 16, 16))
    # An excerpt that is all of the first time point tells what the stack tells.
    monkeypatch.setattr("deepcontrast.enhancing.whole_fits", lambda stack, memory: False)
    enhanced(movie, tmp_path / "shards", "--equalise-depth")
    one, other = (open_stack(folder / "enhanced.ome.zarr") for folder in (outs[1], tmp_path / "shards"))
    difference = np.abs(np.asarray(one.array, int) - np.asarray(other.array, int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    records = [json.loads((folder / "run.json").read_text())["equalised"] for folder in (outs[1], tmp_path / "shards")]
    np.testing.assert_allclose(*(record["movie.ome.zarr"]["factor"] for record in records), rtol=1e-4)
    back = dc.undo_equalise(tmp_path / "shards" / "enhanced.ome.zarr")
    np.testing.assert_allclose(back.array[:], dc.undo_equalise(outs[1] / "enhanced.ome.zarr").array[:], atol=1.01)

"""Arrays that are read where they are sliced: as NumPy would, a little at a time, from any thread."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from deepcontrast.errors import InputError
from deepcontrast.io import open_stack, planes, segments, write_stack
from deepcontrast.io.segments import Kept, Segments
from deepcontrast.io.view import Computed, Lazy
from deepcontrast.jobs.images import open_image, write_image
from deepcontrast.stack import Optics, Stack

# How a TIFF can hold its voxels other than in one piece.
LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "a strip": {"compression": "zlib"},
    "big endian": {"compression": "lzw", "byteorder": ">", "predictor": True},
    "tiles": {"compression": "zstd", "tile": (16, 32)},
    "plain tiles": {"tile": (16, 32)},
    "jpeg": {"compression": "jpeg2000", "tile": (32, 32)},
    "blocks": {"compression": "zlib", "tile": (16, 16, 16), "volumetric": True},
    "slices": {"compression": "zlib", "volumetric": True},
    "samples apart": {"compression": "zlib", "planarconfig": "separate", "rowsperstrip": 9},
    "samples together": {"compression": "zlib", "planarconfig": "contig", "rowsperstrip": 9},
}
SHAPES = {"samples apart": (3, 2, 41, 50), "samples together": (3, 41, 50, 2)}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, np.ndarray]]:
    found = {}
    for name, how in LAYOUTS.items():
        array = np.random.default_rng(2).integers(0, 4000, SHAPES.get(name, (5, 41, 50)), dtype=np.uint16)
        path = tmp_path_factory.mktemp("layouts") / "a.tif"
        tifffile.imwrite(path, array, photometric="minisblack", **how)
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            assert series.dataoffset is None
            found[name] = (Segments(tuple(series), series.shape), array)
    return found


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_pages_are_indexed_as_the_array(name: str, data: st.DataObject, layouts: dict[str, Any]) -> None:
    lazy, array = layouts[name]
    assert (lazy.shape, lazy.dtype, lazy.ndim) == (array.shape, array.dtype, array.ndim)
    key = tuple(data.draw(st.one_of(st.integers(-n, n - 1), st.slices(n))) for n in array.shape)
    key = key[: data.draw(st.integers(0, len(key)))]
    np.testing.assert_array_equal(lazy[key], array[key])


@pytest.mark.parametrize("shape", [(5, 20, 1), (20, 30, 1), (5, 1, 30), (1, 1, 20, 30), (1, 1)])
def test_axes_of_length_one_may_stand_anywhere(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(3).integers(0, 255, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        lazy = Segments(tuple(tif.series[0]), tif.series[0].shape)
    np.testing.assert_array_equal(lazy, array)


def test_an_image_in_several_files_is_read_from_all(tmp_path: Path) -> None:
    array = np.random.default_rng(4).integers(0, 255, (2, 20, 30), dtype=np.uint8)
    where = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(2)
    )
    for z in range(2):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="30" SizeY="20" SizeZ="2" SizeC="1" '
            f'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{where}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / f"{z}.ome.tif", array[z], compression="zlib", metadata=None, description=xml)
    np.testing.assert_array_equal(open_stack(tmp_path / "0.ome.tif").array, array)


def test_only_the_strips_that_are_needed_are_decoded_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(5).integers(0, 255, (6, 40, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib", rowsperstrip=10)
    decoded, real = [], Segments._segment
    monkeypatch.setattr(
        Segments, "_segment", lambda self, *which: decoded.append(which) or real(self, *which)
    )  # fmt: skip
    stack = open_stack(tmp_path / "a.tif")
    assert decoded == []
    for _ in range(2):
        np.testing.assert_array_equal(stack.array[2:4, 12:31:3], array[2:4, 12:31:3])
    assert decoded == [(z, strip) for z in (2, 3) for strip in (1, 2, 3)]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept, made = Kept(100), []

    def make(name: str, size: int) -> np.ndarray:
        made.append(name)
        return np.full(size, ord(name), np.uint8)

    for name, size in [("a", 60), ("b", 30), ("a", 60), ("c", 40), ("a", 60), ("b", 30), ("d", 101), ("d", 101)]:
        assert (kept.get(name, lambda name=name, size=size: make(name, size)) == ord(name)).all()
    # c takes the place of b, which was not used for longest; b that of c; d has no place at all.
    assert made == ["a", "b", "c", "b", "d", "d"]


@pytest.mark.parametrize("how", ["strips", "raw", "zarr"])
def test_threads_may_slice_at_once(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_kept", Kept(3000))  # so little that the threads take it from each other
    array = np.random.default_rng(6).integers(0, 60_000, (12, 64, 48), dtype=np.uint16)
    path = tmp_path / ("a.ome.zarr" if how == "zarr" else "a.tif")
    if how == "strips":
        tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", rowsperstrip=8)
    else:
        write_stack(path, Stack(array, "ZYX"))
    stack = open_stack(path, axes="ZYX")

    def read(seed: int) -> None:
        for a, b, c in np.random.default_rng(seed).integers(0, 30, (20, 3)):
            key = (slice(a // 4, a // 4 + 3), slice(b, b + 20), slice(c, c + 9))
            np.testing.assert_array_equal(stack.array[key], array[key])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell")
def test_reading_a_large_file_takes_the_memory_of_a_slab(tmp_path: Path) -> None:
    # 128 MB, of which the disk holds nothing.
    np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint16, shape=(64, 1024, 1024)).flush()
    # getrusage would tell the peak of the process that started this one, if that was higher.
    code = (
        "import sys; from pathlib import Path; from deepcontrast.io import open_stack\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024\n"
        "array = open_stack(sys.argv[1]).array; before = peak()\n"
        "for z in range(0, 64, 8): array[z : z + 8]\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.npy"], capture_output=True, check=True, text=True)
    assert 16 <= float(done.stdout) < 64  # slabs of 16 MB


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    for name, compression in (("a.tif", None), ("b.tif", "zlib")):
        path = tmp_path / name
        tifffile.imwrite(path, np.ones((4, 20, 30), np.uint8), photometric="minisblack", compression=compression)
        array = open_stack(path, axes="ZYX").array
        path.write_bytes(path.read_bytes() + b"x")
        with pytest.raises(InputError, match=rf"{name} was changed while it was being read"):
            array[0]
        path.unlink()
        with pytest.raises(InputError, match=rf"cannot read .*{name}: No such file"):
            array[0]


def test_damage_is_one_line_where_it_is_met(tmp_path: Path) -> None:
    array = np.random.default_rng(8).integers(0, 255, (3, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        at = tif.series[0][1].dataoffsets[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[at : at + 40] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(data)
    lazy = open_stack(tmp_path / "a.tif").array
    np.testing.assert_array_equal(lazy[0], array[0])
    with pytest.raises(InputError, match="is damaged") as caught:
        lazy[1]
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(1, 300))
def test_slabs_are_all_of_an_array_once_and_small(shape: list[int], room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "SLAB_BYTES", room)
        parts = list(planes.slabs(tuple(shape), 2))
    seen = np.zeros(shape, int)
    for part in parts:
        seen[part] += 1
        assert seen[part].size * 2 <= max(room, shape[-1] * shape[-2] * 2)
    assert (seen == 1).all()


# ---------------------------------------------------------------- images of a job


class Watched:
    """An array that remembers the largest part it was asked for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.ndim, self.largest = array, array.shape, array.dtype, array.ndim, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self.array[key]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("axes", ["YX", "CYX", "CZYX", "TCZYX"])
def test_one_channel_is_chosen_unread(tmp_path: Path, axes: str) -> None:
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 6, "X": 7}
    array = np.random.default_rng(9).integers(0, 999, [sizes[a] for a in axes], dtype=np.uint16)
    names = ("a", "b", "c") if "C" in axes else ("b",)
    write_stack(tmp_path / "a.ome.zarr", Stack(array, axes, channels=names))
    stack = open_image(tmp_path / "a.ome.zarr", channel="b")
    assert not isinstance(stack.array, np.ndarray)
    assert (stack.axes, stack.channels) == (axes.replace("C", ""), ("b",))
    expected = array.take(1, axis=axes.index("C")) if "C" in axes else array
    np.testing.assert_array_equal(np.asarray(stack.array), expected)
    assert stack.shape == expected.shape


@pytest.mark.parametrize(
    ("low", "high", "dtype", "what"),
    [(0, 200, "uint8", "written as uint8"), (0, 900, "uint8", "uint16"), (-300, 70_000, "uint16", "shifted")],
)
@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr", ".npy"])
def test_results_are_converted_in_slabs(
    tmp_path: Path, suffix: str, low: float, high: float, dtype: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(10).uniform(low, high, (2, 64, 30, 40)).astype(np.float32)
    like = Stack(image, "TZYX", Optics(voxel_size=(1.0, 0.5, 0.5)))
    note = write_image(tmp_path / f"whole{suffix}", like, np.dtype(dtype))
    monkeypatch.setattr(planes, "SLAB_BYTES", 16 * 30 * 40 * 4)
    watched = Watched(image)
    assert write_image(tmp_path / f"slabs{suffix}", replace(like, array=watched), np.dtype(dtype)) == note
    assert (what if suffix != ".npy" or what != "shifted" else "float32") in note
    one, other = (open_image(tmp_path / f"{name}{suffix}", axes="TZYX") for name in ("whole", "slabs"))
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(np.asarray(one.array), np.asarray(other.array))
    np.testing.assert_allclose(np.asarray(other.array), image, atol=0.6 + (high - low) / 65_000)
    # A shard of an OME-Zarr is read at one stroke.
    assert watched.largest <= (image[0].size if suffix == ".ome.zarr" else image[0, :32].size)


def test_shifted_levels_come_back_where_they_are_sliced(tmp_path: Path) -> None:
    image = np.linspace(-300, 70_000, 3 * 20 * 30, dtype=np.float32).reshape(3, 20, 30)
    write_image(tmp_path / "a.tif", Stack(image, "ZYX"), np.dtype(np.uint16))
    stack = open_image(tmp_path / "a.tif")
    assert isinstance(stack.array, Lazy)
    assert stack.dtype == np.float32
    np.testing.assert_allclose(stack.array[1, ::-2, 4], image[1, ::-2, 4], atol=1.1)


def test_what_is_computed_is_computed_of_what_is_sliced() -> None:
    watched = Watched(np.arange(24.0).reshape(2, 3, 4))
    lazy = Computed(watched, lambda part: part + 1, np.dtype(float))
    np.testing.assert_array_equal(lazy[1, :2], watched.array[1, :2] + 1)
    assert watched.largest == 8

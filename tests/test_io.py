"""Containers keep what they are given, and say in one line what they cannot read."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepcontrast.errors import (
    DeepContrastError,
    InputError,
    InputNotFoundError,
    OutputError,
    OutputExistsError,
)
from deepcontrast.io import (
    container_suffix,
    find_images,
    fingerprint,
    open_stack,
    planes,
    read_attributes,
    stem,
    tiff,
    write_stack,
)
from deepcontrast.io.units import micrometres
from deepcontrast.io.view import Lazy, View, arrange
from deepcontrast.stack import AXES, Optics, Stack

DATA = Path(__file__).parents[2] / "shared" / "data"
TIFFS = (".tif", ".ome.tif")
CONTAINERS = (*TIFFS, ".ome.zarr", ".npy")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
ALL_AXES = ("YX", "ZYX", "CYX", "TYX", "CZYX", "TZYX", "TCYX", "TCZYX")
SIZES = {"T": 2, "C": 3, "Z": 5, "Y": 7, "X": 9}
VOXEL = (0.84, 0.92, 1 / 3)


def stack_of(axes: str, dtype: str = "uint16", sizes: dict[str, int] = SIZES, channels: tuple[str, ...] = ()) -> Stack:
    shape = tuple(sizes[axis] for axis in axes)
    values = np.random.default_rng(7).uniform(0, 120, shape)
    return Stack(values.astype(dtype), axes, Optics(voxel_size=VOXEL), channels)


def same_size(a: tuple[float | None, ...], b: tuple[float | None, ...]) -> bool:
    return all(x == y if x is None or y is None else abs(x / y - 1) < 1e-6 for x, y in zip(a, b, strict=True))


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of every file of a folder."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return {f.relative_to(path.parent).as_posix(): f.read_bytes() for f in files}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: writes fail half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    assert message
    return message


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_axes_and_values_survive(tmp_path: Path, suffix: str, axes: str) -> None:
    stack, path = stack_of(axes), tmp_path / f"a{suffix}"
    write_stack(path, stack)
    again = open_stack(path, axes=axes if suffix == ".npy" else None)
    assert again.axes == axes
    assert again.dtype == stack.dtype
    np.testing.assert_array_equal(np.asarray(again.array), stack.array)
    assert again.source == str(path)
    assert again.notes == ()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_types_survive_from_either_byte_order(tmp_path: Path, suffix: str, dtype: str) -> None:
    stack = stack_of("ZYX", np.dtype(dtype).newbyteorder(">").str)
    write_stack(tmp_path / f"a{suffix}", stack)
    again = open_stack(tmp_path / f"a{suffix}")
    assert again.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(again.array), stack.array)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".npy"])
@pytest.mark.parametrize("dtype", ["float16", "int64", "uint64"])
def test_types_that_tiff_lacks_are_kept_elsewhere(tmp_path: Path, suffix: str, dtype: str) -> None:
    stack = stack_of("ZYX", dtype)
    write_stack(tmp_path / f"a{suffix}", stack)
    np.testing.assert_array_equal(np.asarray(open_stack(tmp_path / f"a{suffix}").array), stack.array)
    with pytest.raises(InputError, match="accepted: int8"):
        write_stack(tmp_path / "a.tif", stack)
    assert not (tmp_path / "a.tif").exists()


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("axes", ["ZYX", "TCZYX", "CYX"])
def test_axes_of_length_one_survive(tmp_path: Path, suffix: str, axes: str) -> None:
    stack = stack_of(axes, sizes=dict.fromkeys("TCZ", 1) | {"Y": 4, "X": 6})
    write_stack(tmp_path / f"a{suffix}", stack)
    again = open_stack(tmp_path / f"a{suffix}")
    assert (again.axes, again.shape) == (axes, stack.shape)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_metadata_survive(tmp_path: Path, suffix: str, dtype: str) -> None:
    stack = stack_of("CZYX", dtype, channels=("DAPI", "α-tubulin <&>", "far red"))
    attributes: dict[str, float | str] = {
        "offset": -12.5,
        "scale": np.float32(0.25),
        "why": 'promoted "so"\n',
    }
    write_stack(tmp_path / f"a{suffix}", stack, attributes=attributes)
    again = open_stack(tmp_path / f"a{suffix}")
    assert again.channels == stack.channels
    assert same_size(again.optics.voxel_size, VOXEL)
    assert read_attributes(tmp_path / f"a{suffix}") == attributes


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("voxel", [(None, None, None), (2.0, None, None), (None, 0.5, 0.5), (None, 0.5, None)])
def test_what_is_unknown_stays_unknown(tmp_path: Path, suffix: str, voxel: tuple[Any, Any, Any]) -> None:
    write_stack(tmp_path / f"a{suffix}", stack_of("ZYX").with_optics(voxel_size=voxel))
    again = open_stack(tmp_path / f"a{suffix}")
    assert again.optics.voxel_size == voxel
    assert again.channels == ()
    assert again.notes == ()


@given(st.tuples(*[st.floats(1e-4, 1e4)] * 3))
@settings(max_examples=300)
def test_voxel_sizes_fit_into_the_numbers_of_a_tiff(voxel: tuple[float, float, float]) -> None:
    for size in voxel:
        pixels, length = tiff._per_micrometre(size)
        assert 0 < pixels < 2**32
        assert 0 < length < 2**32
        assert abs(length / pixels / size - 1) < 1e-6


def test_voxel_size_is_what_tifffile_reads_too(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.tif", stack_of("ZYX"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.imagej_metadata["spacing"] == pytest.approx(0.84)
        pixels, length = tif.pages.first.tags["YResolution"].value
        assert (pixels, length) == (25, 23)
        assert tif.series[0].axes == "ZYX"


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy"])
def test_files_are_read_where_they_are_sliced(tmp_path: Path, suffix: str) -> None:
    write_stack(tmp_path / f"a{suffix}", stack_of("ZYX"))
    assert isinstance(open_stack(tmp_path / f"a{suffix}").array, Lazy)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_stacks_are_written_slab_by_slab(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "SLAB_BYTES", 300)
    stack = stack_of("TCZYX")
    source = tmp_path / "source.ome.zarr"
    write_stack(source, stack)
    write_stack(tmp_path / f"a{suffix}", open_stack(source))
    again = open_stack(tmp_path / f"a{suffix}", axes="TCZYX")
    np.testing.assert_array_equal(np.asarray(again.array), stack.array)


@pytest.mark.parametrize("suffix", TIFFS)
def test_above_4_gb_a_tiff_is_big_and_ome(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", 100)
    stack, path = stack_of("CZYX", channels=("a", "b", "c")), tmp_path / f"a{suffix}"
    write_stack(path, stack)
    assert path.read_bytes()[:4] == b"II\x2b\x00"
    again = open_stack(path)
    assert again.channels == ("a", "b", "c")
    np.testing.assert_array_equal(again.array, stack.array)


# ---------------------------------------------------------------- the same stack, the same bytes


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_same_stack_same_bytes(tmp_path: Path, suffix: str) -> None:
    stack = stack_of("CZYX", sizes=SIZES | {"Y": 150, "X": 130}, channels=("a", "b", "c"))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_stack(tmp_path / folder / f"a{suffix}", stack, attributes={"scale": 2.0, "offset": 1.0})
    assert content(tmp_path / "one" / f"a{suffix}") == content(tmp_path / "two" / f"a{suffix}")


def test_the_uuid_depends_on_values_and_metadata(tmp_path: Path) -> None:
    stack = stack_of("ZYX")
    other = Stack(stack.array + np.uint16(1), "ZYX", stack.optics)
    uuids = set()
    for one in (stack, other, stack.with_optics(voxel_size=(1.0, 1.0, 1.0))):
        write_stack(tmp_path / "a.ome.tif", one)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
            xml = tif.ome_metadata
        uuids.add(xml.split('UUID="')[1].split('"')[0])
    assert len(uuids) == 3
    assert all(uuid.startswith("urn:uuid:") and set(uuid.removeprefix("urn:uuid:")) != {"-", "0"} for uuid in uuids)


# ---------------------------------------------------------------- the pyramid


def test_pyramid_is_valid_ome_zarr_of_means(tmp_path: Path) -> None:
    import yaozarrs

    array = np.random.default_rng(0).integers(0, 60000, (2, 9, 261, 130), dtype=np.uint16)
    path = tmp_path / "a.zarr"
    write_stack(path, Stack(array, "CZYX", Optics(voxel_size=(1.0, 0.5, 0.5)), ("x", "y")))
    yaozarrs.validate_zarr_store(str(path))
    group = zarr.open_group(str(path), mode="r")
    levels = [np.asarray(group[str(n)]) for n in range(3)]
    assert sorted(group.keys()) == ["0", "1", "2"]
    # y and x are halved until the voxel is a cube; from there z too.
    assert [level.shape for level in levels] == [(2, 9, 261, 130), (2, 9, 131, 65), (2, 5, 66, 33)]
    mean = array[..., :260, :].reshape(2, 9, 130, 2, 65, 2).mean(axis=(3, 5))
    np.testing.assert_array_equal(levels[1][..., :130, :], np.rint(mean).astype(np.uint16))
    edge = array[..., 260, :].reshape(2, 9, 65, 2).mean(axis=3)
    np.testing.assert_array_equal(levels[1][..., 130, :], np.rint(edge).astype(np.uint16))
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert datasets[2]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.0, 0.5, 0.75, 0.75]},
    ]
    # A shard is a whole number of chunks and one file.
    assert group["0"].shards == (1, 9, 384, 256) or group["0"].shards == (1, 9, 384, 260)
    assert len([f for f in (path / "0" / "c").rglob("*") if f.is_file()]) == 2


def test_ome_zarr_stays_a_zarr_array(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.ome.zarr", stack_of("ZYX"))
    assert isinstance(open_stack(tmp_path / "a.ome.zarr").array, zarr.Array)


def write_zarr_04(path: Path, array: np.ndarray, axes: list[dict[str, str]], scale: list[float]) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    level = group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=array.shape)
    level[...] = array
    transformations = [{"type": "scale", "scale": scale}]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": axes,
            "datasets": [{"path": "s0", "coordinateTransformations": transformations}],
        }
    ]
    window = {"start": 0, "end": 1, "min": 0, "max": 1}
    group.attrs["omero"] = {"channels": [{"label": "GFP", "color": "FFFFFF", "window": window}]}


def test_ome_zarr_04_is_read_and_put_in_order(tmp_path: Path) -> None:
    array = np.arange(1 * 3 * 4 * 5, dtype=">u2").reshape(1, 3, 4, 5)
    axes = [{"name": "position"}, {"name": "x", "type": "space", "unit": "nanometer"}]
    axes += [{"name": "z", "type": "space", "unit": "millimeter"}, {"name": "y", "type": "space"}]
    write_zarr_04(tmp_path / "a.zarr", array, axes, [1.0, 500.0, 0.002, 3.0])
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.axes == "ZYX"
    assert stack.optics.voxel_size == (2.0, None, 0.5)
    assert stack.channels == ("GFP",)
    assert "without a unit for Y" in stack.notes[0]
    assert stack.dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(stack.array), array[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(stack.array[1, 2:, 0], array[0, 0, 1, 2:])


def test_a_zarr_that_is_no_image_says_what_it_is(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "plate.zarr"), mode="w", attributes={"ome": {"plate": {}}})
    zarr.open_group(str(tmp_path / "plate.zarr" / "A"), mode="w")
    with pytest.raises(InputError, match=r"is a plate; give the folder of one image in it \(it holds: A\)"):
        open_stack(tmp_path / "plate.zarr")
    write_stack(tmp_path / "plate.zarr" / "field.zarr", stack_of("ZYX"))
    os.rename(tmp_path / "plate.zarr" / "field.zarr", tmp_path / "plate.zarr" / "field")
    assert open_stack(tmp_path / "plate.zarr" / "field").axes == "ZYX"


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("shape", "axes", "note"),
    [((4, 5), "YX", 0), ((3, 4, 5), "ZYX", 1), ((1, 4, 5), "ZYX", 1), ((1, 3, 4, 5), "ZYX", 1)],
)
def test_unnamed_axes_are_zyx_and_it_says_so(tmp_path: Path, shape: tuple[int, ...], axes: str, note: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    stack = open_stack(tmp_path / "a.npy")
    assert stack.axes == axes
    assert len(stack.notes) == note
    assert all("taken as ZYX" in text for text in stack.notes)


def test_four_unnamed_axes_are_refused_until_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5), np.uint8))
    with pytest.raises(InputError, match=r"2 x 3 x 4 x 5.*--axes CZYX") as caught:
        open_stack(tmp_path / "a.npy")
    one_line(caught.value)
    assert open_stack(tmp_path / "a.npy", axes="TZYX").axes == "TZYX"
    np.save(tmp_path / "b.npy", np.zeros((1, 1, 3, 4, 5), np.uint8))
    assert open_stack(tmp_path / "b.npy", axes="TCZYX").shape == (1, 1, 3, 4, 5)


@pytest.mark.parametrize("axes", ["ZXY", "YX", "CZYX", "QYX", "ZZX", ""])
def test_wrong_axes_are_refused(tmp_path: Path, axes: str) -> None:
    write_stack(tmp_path / "a.tif", stack_of("ZYX"))
    with pytest.raises(InputError, match="accepted: letters of TCZYX") as caught:
        open_stack(tmp_path / "a.tif", axes=axes)
    one_line(caught.value)


def test_given_axes_and_voxel_size_win(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.tif", stack_of("ZYX"))
    stack = open_stack(tmp_path / "a.tif", axes="CYX", voxel_size=(3, 2, 1))
    assert stack.axes == "CYX"
    assert stack.optics.voxel_size == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("size", [(1, 2), (0, 1, 1), (1, 1, float("nan")), (-1, 1, 1)])
def test_a_voxel_size_is_three_positive_numbers(tmp_path: Path, size: Any) -> None:
    write_stack(tmp_path / "a.tif", stack_of("ZYX"))
    with pytest.raises(InputError, match="three positive numbers z, y, x"):
        open_stack(tmp_path / "a.tif", voxel_size=size)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_imagej_file_of_another_program_is_put_in_order(
    tmp_path: Path, byteorder: Any, compression: str | None
) -> None:
    array = np.random.default_rng(1).integers(0, 9999, (2, 3, 4, 5, 6), dtype=np.uint16)  # TZCYX
    metadata = {"axes": "TZCYX", "unit": "\\u00B5m", "spacing": 2.5, "Labels": list("abcd") * 6}
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        imagej=True,
        byteorder=byteorder,
        compression=compression,
        resolution=(4.0, 2.0),
        metadata=metadata,
    )
    stack = open_stack(tmp_path / "a.tif")
    assert stack.axes == "TCZYX"
    assert stack.dtype.isnative
    assert stack.optics.voxel_size == (2.5, 0.5, 0.25)
    assert stack.channels == ("a", "b", "c", "d")
    np.testing.assert_array_equal(np.asarray(stack.array), array.transpose(0, 2, 1, 3, 4))
    np.testing.assert_array_equal(stack.volume(1, 2), array[1, :, 2])


@pytest.mark.parametrize("axes", ["TZCYX", "CZYX", "ZYX", "YX"])
def test_an_ome_tiff_of_another_program_is_put_in_order(tmp_path: Path, axes: str) -> None:
    shape = tuple(SIZES[axis] for axis in axes)
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    metadata: dict[str, Any] = {"axes": axes, "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeZ": 0.001, "PhysicalSizeZUnit": "mm"}
    if "C" in axes:
        metadata["Channel"] = {"Name": ["r", "g", "b"]}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, photometric="minisblack", metadata=metadata)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert stack.axes == "".join(sorted(axes, key=AXES.index))
    assert stack.optics.voxel_size == (1.0, None, 0.25)
    assert stack.channels == (("r", "g", "b") if "C" in axes else ())
    order = [axes.index(axis) for axis in stack.axes]
    np.testing.assert_array_equal(np.asarray(stack.array), array.transpose(order))


@pytest.mark.parametrize(
    ("length", "unit", "expected"),
    [
        (2, "micron", 2.0),
        (2, "um", 2.0),
        (2, "µm", 2.0),
        (2, "μm", 2.0),
        (2, "\\u00B5m", 2.0),
        ("2", "micrometer", 2.0),
        (500, "nm", 0.5),
        (0.002, "mm", 2.0),
        (1, "cm", 1e4),
        (2, "inch", None),
        (2, "pixel", None),
        (2, "", None),
        (2, None, None),
        (0, "um", None),
        (-1, "um", None),
        (float("nan"), "um", None),
        (float("inf"), "um", None),
        ("two", "um", None),
        (None, "um", None),
    ],
)
def test_lengths_in_every_spelling(length: Any, unit: str | None, expected: float | None) -> None:
    assert micrometres(length, unit) == (None if expected is None else pytest.approx(expected))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_view_indexes_as_the_array_it_stands_for(data: st.DataObject) -> None:
    source = np.arange(2 * 1 * 3 * 4, dtype=">u2").reshape(2, 1, 3, 4)
    order = tuple(data.draw(st.permutations((0, 2, 3))))
    view, array = View(source, order), source[:, 0].transpose([(0, 2, 3).index(axis) for axis in order])
    one = st.one_of(st.just(Ellipsis), st.integers(-2, 1), st.slices(4).filter(bool), st.just([0, 1]), st.booleans())
    key = tuple(data.draw(st.lists(one, max_size=3).filter(lambda k: k.count(Ellipsis) < 2)))
    try:
        expected = array[key]
    except IndexError:
        assume(False)
    np.testing.assert_array_equal(view[key], expected)
    assert view[key].dtype == np.uint16
    assert (view.shape, view.ndim, view.size, len(view)) == (array.shape, 3, 24, len(array))


def test_arranging_nothing_is_the_array_itself() -> None:
    array = np.zeros((2, 3, 4))
    assert np.shares_memory(arrange(array, (0, 1, 2)), array)
    assert np.shares_memory(arrange(array, (2, 0, 1)), array)


# ---------------------------------------------------------------- refusals


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_stack(tmp_path / "liver_01.tif", stack_of("ZYX"))
    with pytest.raises(InputNotFoundError, match=r"no such file: .*; did you mean 'liver_01.tif'\?") as caught:
        open_stack(tmp_path / "livr_01.tif")
    one_line(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(InputNotFoundError, match="there is no folder"):
        open_stack(tmp_path / "none" / "a.tif")


@pytest.mark.parametrize("name", ["a.czi", "a.nd2", "a.lif", "a.png", "a", "a.tif.gz", ".tif"])
def test_other_suffixes_list_the_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"not supported.*accepted: \.tif, .*\.npy") as caught:
        open_stack(tmp_path / name)
    one_line(caught.value)
    if name[-3:] in ("czi", "nd2", "lif"):
        assert "not supported yet" in str(caught.value)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy"])
@pytest.mark.parametrize(
    "data", [b"", b"x", b"II*\x00", b"MM\x00*\x00\x00\x00\x08\x00\x01", b"\x93NUMPY\x01\x00", b"\x00" * 5000]
)
def test_garbage_is_not_an_image(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(data)
    with pytest.raises(InputError, match="not an image") as caught:
        open_stack(tmp_path / f"a{suffix}")
    one_line(caught.value)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"zarr_format": 3, "node_type": "group"}', "\x00\xff"])
def test_a_broken_zarr_is_not_an_image(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text(text)
    with pytest.raises(InputError) as caught:
        open_stack(tmp_path / "a.zarr")
    one_line(caught.value)


def test_a_zarr_without_its_first_level_is_not_an_image(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.zarr", stack_of("ZYX"))
    shutil.rmtree(tmp_path / "a.zarr" / "0")
    with pytest.raises(InputError, match="not an image") as caught:
        open_stack(tmp_path / "a.zarr")
    one_line(caught.value)


def test_folders_are_not_images(tmp_path: Path) -> None:
    (tmp_path / "a.tif").mkdir()
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "b.zarr").write_bytes(b"x")
    for name in ("a.tif", "a.zarr", "b.zarr", ""):
        with pytest.raises(InputError, match="not an image") as caught:
            open_stack(tmp_path / name)
        one_line(caught.value)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "complex128", "U3", "datetime64[s]", "O"])
def test_types_that_are_no_intensities_are_refused(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5)).astype("i8").astype(dtype), allow_pickle=True)
    with pytest.raises(InputError) as caught:
        open_stack(tmp_path / "a.npy")
    one_line(caught.value)


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_types_that_are_no_intensities_are_not_written(tmp_path: Path, suffix: str, dtype: str) -> None:
    with pytest.raises(InputError, match="accepted: integers and floats"):
        write_stack(tmp_path / f"a{suffix}", stack_of("ZYX", dtype))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(), (5,), (0, 4, 5)])
def test_less_than_a_plane_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(InputError):
        open_stack(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 9, 4), (5, 8, 9, 3), (3, 8, 9)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_is_refused(tmp_path: Path, shape: tuple[int, ...], compression: str | None) -> None:
    array = np.zeros(shape, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", compression=compression)
    with pytest.raises(InputError, match=r"colour picture \(RGB, [34] samples") as caught:
        open_stack(tmp_path / "a.tif")
    one_line(caught.value)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_channels_that_tifffile_takes_for_colours_are_channels(
    tmp_path: Path, compression: str | None, channels: int
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (channels, 18, 19), dtype=np.uint8)
    # As it does unasked with 8 bits.
    tifffile.imwrite(
        tmp_path / "a.tif", array, metadata={"axes": "CYX"}, compression=compression,
        photometric="rgb", planarconfig="separate",
    )  # fmt: skip
    stack = open_stack(tmp_path / "a.tif")
    assert stack.axes == "CYX"
    np.testing.assert_array_equal(stack.array[:], array)
    np.testing.assert_array_equal(stack.frame(0, 2)[0, 3:9], array[2, 3:9])


def write_variant(path: Path, variant: str) -> None:
    array = np.random.default_rng(3).integers(0, 4000, (6, 16, 17), dtype=np.uint16)
    if variant == "imagej":
        write_stack(path, Stack(array, "ZYX", Optics(voxel_size=VOXEL)))
    elif variant == "ome":
        write_stack(path.with_suffix(".ome.tif"), Stack(array, "ZYX"))
        os.rename(path.with_suffix(".ome.tif"), path)
    elif variant == "plain":
        tifffile.imwrite(path, array, photometric="minisblack", metadata=None)
    elif variant == "shaped":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        imagej = "imagej" in variant
        tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", imagej=imagej)


@pytest.mark.parametrize("variant", ["imagej", "ome", "plain", "shaped", "zlib", "zlib imagej"])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path, variant: str) -> None:
    write_variant(tmp_path / "whole.tif", variant)
    whole = (tmp_path / "whole.tif").read_bytes()
    values = np.asarray(open_stack(tmp_path / "whole.tif").array)
    refused = []
    for keep in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        path = tmp_path / "cut.tif"
        path.write_bytes(whole[:keep])
        try:
            stack = open_stack(path)
        except InputError as error:
            refused.append(one_line(error))
        else:  # what was lost came after the last voxel
            np.testing.assert_array_equal(np.asarray(stack.array), values)
    assert len(refused) > 30
    assert all("not an image" in message for message in refused)


def test_a_cut_npy_is_refused(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.npy", stack_of("ZYX"))
    whole = (tmp_path / "a.npy").read_bytes()
    for keep in range(0, len(whole), 29):
        (tmp_path / "a.npy").write_bytes(whole[:keep])
        with pytest.raises(InputError, match="not an image") as caught:
            open_stack(tmp_path / "a.npy")
        one_line(caught.value)


@given(st.integers(0, 10**9), st.integers(0, 255))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_damaged_byte_never_escapes_as_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        folder.mkdir()
        write_variant(folder / "whole.tif", "zlib")
    data = bytearray((folder / "whole.tif").read_bytes())
    # Half of the hits in the header and the first page's tags, where they hurt.
    data[place % (400 if place % 2 else len(data))] = byte
    (folder / "hit.tif").write_bytes(data)
    try:
        np.asarray(open_stack(folder / "hit.tif").array)
    except DeepContrastError as error:
        one_line(error)


def test_reading_a_broken_file_prints_nothing(tmp_path: Path) -> None:
    write_variant(tmp_path / "a.tif", "zlib imagej")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) * 2 // 3])
    code = "import sys, deepcontrast.io as d\ntry: d.open_stack(sys.argv[1])\nexcept ValueError: print('refused')"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.tif"], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"refused\n", b"")


# ---------------------------------------------------------------- writing whole or not at all


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_stack(path, stack_of("ZYX"))
    before = content(path)
    with room_for(40_000), pytest.raises(OutputError, match=r"cannot write .*a\..*: \w+") as caught:
        write_stack(path, stack_of("ZYX", sizes=SIZES | {"Y": 300, "X": 300}))
    one_line(caught.value)
    assert content(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    class Failing:
        shape, dtype, ndim = (5, 7, 9), np.dtype("uint16"), 3

        def __getitem__(self, key: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stack(tmp_path / f"a{suffix}", Stack(Failing(), "ZYX"))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_no_folder_to_write_into(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OutputError, match="there is no folder") as caught:
        write_stack(tmp_path / "none" / f"a{suffix}", stack_of("ZYX"))
    one_line(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_no_permission(tmp_path: Path, suffix: str) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_stack(tmp_path / f"a{suffix}", stack_of("ZYX"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_the_mode_comes_from_the_umask(tmp_path: Path, suffix: str, umask: int, mode: int) -> None:
    old = os.umask(umask)
    try:
        write_stack(tmp_path / f"a{suffix}", stack_of("YX"))
    finally:
        os.umask(old)
    files = [f for f in [tmp_path / f"a{suffix}", *tmp_path.rglob("*")] if f.is_file()]
    assert {f.stat().st_mode & 0o777 for f in files} == {mode}


def test_replacing_a_zarr_replaces_all_of_it_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_stack(path, stack_of("ZYX", sizes=SIZES | {"Y": 300}))
    write_stack(path, stack_of("ZYX"))
    assert sorted(zarr.open_group(str(path), mode="r").keys()) == ["0"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="other files"):
        write_stack(tmp_path / "mine.zarr", stack_of("ZYX"))
    assert (tmp_path / "mine.zarr" / "thesis.txt").exists()


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_stack_can_be_written_over_its_own_file(tmp_path: Path, suffix: str) -> None:
    path, stack = tmp_path / f"a{suffix}", stack_of("ZYX")
    write_stack(path, stack)
    write_stack(path, open_stack(path))
    np.testing.assert_array_equal(np.asarray(open_stack(path).array), stack.array)


def test_names_that_do_not_fit_the_channels_are_left_out_and_it_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for suffix in (".tif", ".ome.tif", ".ome.zarr"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            write_stack(tmp_path / f"a{suffix}", stack_of("CZYX", channels=("one",)))
        assert "1 names for 3 channels" in caplog.text
        assert open_stack(tmp_path / f"a{suffix}").channels == ()


# ---------------------------------------------------------------- names and fingerprints


@pytest.mark.parametrize(
    ("name", "suffix", "short"),
    [
        ("a.tif", ".tif", "a"),
        ("a.b.TIFF", ".tif", "a.b"),
        ("a.ome.tif", ".ome.tif", "a"),
        ("A.OME.tiff", ".ome.tif", "A"),
        ("x/a.ome.zarr/", ".ome.zarr", "a"),
        ("a.zarr", ".ome.zarr", "a"),
        ("a.npy", ".npy", "a"),
    ],
)
def test_suffix_and_stem(name: str, suffix: str, short: str) -> None:
    assert container_suffix(name) == suffix
    assert stem(name) == short


def test_images_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("b.tif", "a.ome.zarr", "c.npy"):
        write_stack(tmp_path / name, stack_of("ZYX"))
    for name in (".hidden.tif", "notes.txt", ".x.tif.1-2.tmp", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.tif").mkdir()
    assert [p.name for p in find_images(tmp_path)] == ["a.ome.zarr", "b.tif", "c.npy"]
    assert find_images(tmp_path / "a.ome.zarr") == [tmp_path / "a.ome.zarr"]
    assert find_images(tmp_path / "b.tif") == [tmp_path / "b.tif"]
    with pytest.raises(InputError, match="no image in the folder"):
        find_images(tmp_path / "empty")
    with pytest.raises(InputError, match="not supported"):
        find_images(tmp_path / "notes.txt")
    with pytest.raises(InputNotFoundError, match="did you mean 'empty'"):
        find_images(tmp_path / "emty")


def test_fingerprint_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a.tif") == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    with pytest.raises(InputNotFoundError):
        fingerprint(tmp_path / "b.tif")


def test_fingerprint_of_a_large_file_samples_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["deepcontrast.io.fingerprint"]
    monkeypatch.setattr(module, "WHOLE", 1000)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2)
    data = bytearray(10_000)
    seen = set()
    for change in (None, 0, 9_999):
        if change is not None:
            data[change] = 1
        (tmp_path / "a.tif").write_bytes(data)
        seen.add(fingerprint(tmp_path / "a.tif"))
    assert len(seen) == 3
    assert all(f.startswith("sha256-sampled:") for f in seen)


def test_fingerprint_of_a_zarr_is_of_its_content(tmp_path: Path) -> None:
    stack = stack_of("ZYX")
    write_stack(tmp_path / "a.zarr", stack)
    write_stack(tmp_path / "b.zarr", stack)
    write_stack(tmp_path / "c.zarr", Stack(stack.array + np.uint16(1), "ZYX", stack.optics))
    write_stack(tmp_path / "d.zarr", stack.with_optics(voxel_size=(1.0, 1.0, 1.0)))
    a, b, c, d = (fingerprint(tmp_path / f"{name}.zarr") for name in "abcd")
    assert a.startswith("sha256-sampled:")
    assert a == b
    assert len({a, c, d}) == 3


def test_importing_io_imports_no_format() -> None:
    heavy = "torch", "zarr", "tifffile", "yaozarrs"
    code = f"import sys, deepcontrast.io; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- files as found in the wild


def real(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"real data is not there: {name}")
    return DATA / name


@pytest.mark.parametrize(
    ("name", "axes", "shape", "dtype", "voxel"),
    [
        ("deep/brain_faint_at_low_z.tif", "ZYX", (264, 256, 384), "uint16", (0.84, 0.92, 0.92)),
        ("deep/epithelium_membrane.tif", "ZYX", (19, 421, 407), "uint8", (0.277996, 0.1802, 0.1802)),
        ("formats/mitosis_tczyx.tif", "TCZYX", (3, 2, 5, 196, 171), "uint16", (1.0, 0.0885, 0.0885)),
        ("formats/FOV7.ome.tiff", "YX", (512, 512), "uint8", (None, None, None)),
        ("anisotropic/nuclei_4.8x.tif", "ZYX", (37, 118, 132), "uint8", (4.0, 0.82864, 0.82864)),
        ("anisotropic/spots_4.3x_2channel.tif", "CZYX", (2, 17, 88, 89), "uint16", (0.4, 0.094135, 0.094135)),
        ("surface/wing_disc_stack.tif", "ZYX", (30, 199, 206), "uint8", (None, 1.0, 1.0)),
        ("widefield/psf_bead.tif", "ZYX", (61, 128, 128), "uint16", (None, None, None)),
    ],
)
def test_real_files(name: str, axes: str, shape: tuple[int, ...], dtype: str, voxel: Any) -> None:
    stack = open_stack(real(name))
    assert (stack.axes, stack.shape, stack.dtype) == (axes, shape, np.dtype(dtype))
    for found, expected in zip(stack.optics.voxel_size, voxel, strict=True):
        assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))
    assert np.asarray(stack.volume()).dtype.isnative


def test_real_big_endian_hyperstack_keeps_its_values(tmp_path: Path) -> None:
    path = real("formats/mitosis_tczyx.tif")
    stack = open_stack(path)
    assert path.read_bytes()[:2] == b"MM"
    np.testing.assert_array_equal(np.asarray(stack.array), tifffile.imread(path).transpose(0, 2, 1, 3, 4))
    write_stack(tmp_path / "a.tif", stack)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), tifffile.imread(path))


def test_real_rgb_is_refused() -> None:
    with pytest.raises(InputError, match=r"colour picture \(RGB, 3 samples per pixel\)") as caught:
        open_stack(real("formats/Fluorescence_RGB.tif"))
    one_line(caught.value)


@pytest.mark.parametrize("suffix", ["czi", "nd2", "lif"])
def test_real_vendor_files_are_refused(suffix: str) -> None:
    files = sorted(DATA.glob(f"formats/*.{suffix}"))
    if not files:
        pytest.skip(f"real data is not there: formats/*.{suffix}")
    with pytest.raises(InputError, match="not supported yet"):
        open_stack(files[0])

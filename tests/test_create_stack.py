"""Stacks written shard by shard: the same values give the same files, whoever writes them, when, and how often."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deepcontrast.errors import InputError
from deepcontrast.io import create_stack, open_stack, open_writer, read_attributes, shard_file, shards, write_stack
from deepcontrast.stack import Optics, Stack

SHARD = (16, 128, 32)


@pytest.fixture
def stack() -> Stack:
    # Odd sizes, two shards along z, y and x, z as fine as y and x.
    values = np.random.default_rng(5).integers(0, 60_000, (2, 19, 139, 40), dtype=np.uint16)
    return Stack(values, "CZYX", Optics(voxel_size=(0.5, 0.5, 0.5)), ("a", "b"))


def write_part(path: Path, stack: Stack, indices: list[int]) -> None:
    writer = open_writer(path)
    for index in indices:
        writer.write(index, stack.array[writer.shards[index]])


def digest(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def written_at_once(path: Path, stack: Stack) -> dict[str, str]:
    writer = create_stack(path, stack, dtype=stack.dtype, shard=SHARD)
    write_part(path, stack, list(range(len(writer.shards))))
    writer.finish()
    return digest(path)


def test_two_processes_write_the_bytes_of_one(tmp_path: Path, stack: Stack) -> None:
    alone = written_at_once(tmp_path / "alone.zarr", stack)
    writer = create_stack(tmp_path / "both.zarr", stack, dtype=stack.dtype, shard=SHARD)
    count = len(writer.shards)
    # This one and another, which meet in the middle.
    part = (tmp_path / "both.zarr", stack, list(range(count - 1 - count % 2, 0, -2)))
    other = multiprocessing.get_context("spawn").Process(target=write_part, args=part)
    other.start()
    write_part(tmp_path / "both.zarr", stack, list(range(0, count, 2)))
    other.join()
    assert other.exitcode == 0
    writer.finish()
    assert digest(tmp_path / "both.zarr") == alone
    np.testing.assert_array_equal(open_stack(tmp_path / "both.zarr").array[...], stack.array)


def test_a_shard_written_again_after_a_crash_is_the_same(tmp_path: Path, stack: Stack) -> None:
    alone = written_at_once(tmp_path / "alone.zarr", stack)
    writer = create_stack(tmp_path / "again.zarr", stack, dtype=stack.dtype, shard=SHARD)
    for index, box in enumerate(writer.shards):
        writer.write(index, stack.array[box] // 2)
    files = [file for file in (tmp_path / "again.zarr").rglob("c/**/*") if file.is_file()]
    for n, file in enumerate(files):
        if n % 3:  # torn, empty
            os.truncate(file, 0 if n % 3 == 1 else file.stat().st_size // 2)
    # What a killed writer leaves beside a file.
    files[0].with_name(f".{files[0].name}.12-ab.tmp").write_bytes(b"half")
    write_part(tmp_path / "again.zarr", stack, list(range(len(writer.shards))))
    open_writer(tmp_path / "again.zarr").finish()
    assert digest(tmp_path / "again.zarr") == alone


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 300), st.integers(1, 300)),
    shard=st.tuples(*[st.sampled_from([1, 2, 8, 64])] * 3),
    z=st.sampled_from([0.25, 1.0, 4.0, None]),
)
def test_every_voxel_and_every_file_has_one_writer(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], shard: tuple[int, int, int], z: float | None
) -> None:
    shard = tuple(max(s, 8 * (n > 16 * s) * s) for s, n in zip(shard, shape, strict=True))  # not thousands of files
    like = Stack(np.empty(shape, np.uint8), "ZYX", Optics(voxel_size=(z, 1.0, 1.0)))
    path = tmp_path_factory.mktemp("one") / "a.zarr"
    writer = create_stack(path, like, dtype=np.dtype(np.uint8), shard=shard)
    covered = np.zeros(shape, int)
    for box in writer.shards:
        covered[box] += 1
    assert (covered == 1).all()
    for array, factors in zip(writer.levels, writer.factors, strict=True):
        assert array.shape == tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
        steps = array.shards or array.chunks
        assert all(s % c == 0 for s, c in zip(steps, array.chunks, strict=True))
        files = {
            tuple(part.start // f // s for part, f, s in zip(b, factors, steps, strict=True)) for b in writer.shards
        }
        assert len(files) == len(writer.shards)
        assert files == set(np.ndindex(*(-(-n // s) for n, s in zip(array.shape, steps, strict=True))))


def test_shards_do_not_change_the_pyramid(tmp_path: Path, stack: Stack) -> None:
    written_at_once(tmp_path / "shards.zarr", stack)
    write_stack(tmp_path / "whole.zarr", stack)
    one, other = (zarr.open_group(str(tmp_path / name), mode="r") for name in ("shards.zarr", "whole.zarr"))
    assert one.attrs == other.attrs
    assert sorted(one.keys()) == sorted(other.keys()) == ["0", "1"]
    for level in other.keys():  # noqa: SIM118 - a zarr group is no dict
        np.testing.assert_array_equal(np.asarray(one[level]), np.asarray(other[level]))
    yaozarrs.validate_zarr_store(str(tmp_path / "shards.zarr"))


def test_the_display_range_is_that_of_the_coarsest_level(tmp_path: Path, stack: Stack) -> None:
    written_at_once(tmp_path / "a.zarr", stack)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    windows = [channel["window"] for channel in group.attrs["ome"]["omero"]["channels"]]
    coarse = np.asarray(group["1"])
    assert [(w["start"], w["end"]) for w in windows] == [(c.min(), c.max()) for c in coarse]


def test_levels_end_where_a_shard_is_one_voxel(tmp_path: Path) -> None:
    flat = Stack(np.zeros((4, 300, 300), np.uint8), "ZYX", Optics(voxel_size=(1.0, 1.0, 1.0)))
    writer = create_stack(tmp_path / "a.zarr", flat, dtype=flat.dtype, shard=(2, 64, 64))
    assert writer.factors == ((1, 1, 1), (2, 2, 2), (2, 4, 4))
    writer = create_stack(tmp_path / "a.zarr", flat, dtype=flat.dtype, shard=(2, 64, 2))
    assert writer.factors == ((1, 1, 1), (2, 2, 2))


def test_a_large_stack_gets_large_shards() -> None:
    class Huge:
        shape, dtype, ndim = (2000, 20_000, 20_000), np.dtype("uint16"), 3

    assert shards._good_shard(Stack(Huge(), "ZYX")) == (64, 1024, 1024)
    Huge.shape = (1000, 2048, 2048)
    assert shards._good_shard(Stack(Huge(), "ZYX")) == (64, 512, 512)


def test_bare_values_have_one_level_and_can_be_read_while_they_are_written(tmp_path: Path, stack: Stack) -> None:
    like = replace(stack, array=stack.array.astype(np.float32))
    writer = create_stack(tmp_path / "a.zarr", like, dtype=np.dtype(np.float32), compressed=False)
    assert len(writer.levels) == 1
    writer.write(0, like.array[writer.shards[0]])
    again = open_writer(tmp_path / "a.zarr")
    assert again.shards == writer.shards
    np.testing.assert_array_equal(again.array[0], like.array[0])


@pytest.mark.parametrize("dtype", [">i2", "float32"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(20, 150, 300), (16, 128, 128), (17, 129, 1)])
def test_zarr_reads_every_chunk_and_checksum(
    tmp_path: Path, shape: tuple[int, ...], compressed: bool, dtype: str
) -> None:
    values = np.random.default_rng(7).integers(0, 100, shape).astype(dtype)
    writer = create_stack(tmp_path / "a.zarr", Stack(values, "ZYX"), dtype=values.dtype, compressed=compressed)
    write_part(tmp_path / "a.zarr", Stack(values, "ZYX"), list(range(len(writer.shards))))
    np.testing.assert_array_equal(writer.array[...], values)
    np.testing.assert_array_equal(writer.array[-2:, 3:17, ::2], values[-2:, 3:17, ::2])


def test_the_checksum_is_that_of_the_standard() -> None:
    # RFC 3720, appendix B.4.
    assert shard_file._crc32c(bytes(32)) == 0x8A9136AA
    assert shard_file._crc32c(bytes(range(32))) == 0x46DD794E


def test_an_unfinished_stack_is_no_image(tmp_path: Path, stack: Stack) -> None:
    writer = create_stack(tmp_path / "a.zarr", stack, dtype=stack.dtype, attributes={"k": 2.0})
    with pytest.raises(InputError, match="is unfinished"):
        open_stack(tmp_path / "a.zarr")
    for index, box in enumerate(writer.shards):
        writer.write(index, stack.array[box])
    writer.finish()
    assert open_stack(tmp_path / "a.zarr").channels == ("a", "b")
    assert read_attributes(tmp_path / "a.zarr") == {"k": 2.0}
    for path in (tmp_path / "a.zarr", tmp_path / "none.zarr"):
        with pytest.raises(InputError, match="is not an unfinished OME-Zarr"):
            open_writer(path)


def test_creating_replaces_what_a_killed_run_left(tmp_path: Path, stack: Stack) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "half").write_bytes(b"x")
    create_stack(tmp_path / "a.zarr", stack, dtype=stack.dtype)
    assert not (tmp_path / "a.zarr" / "half").exists()


@pytest.mark.parametrize("shard", [(16, 64), (16, 64, 48), (0, 64, 64)])
def test_a_shard_is_three_powers_of_two(tmp_path: Path, stack: Stack, shard: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="accepted: three powers of two z, y, x"):
        create_stack(tmp_path / "a.zarr", stack, dtype=stack.dtype, shard=shard)
    assert not any(tmp_path.iterdir())


def test_a_block_is_of_the_shards_shape_and_type(tmp_path: Path, stack: Stack) -> None:
    writer = create_stack(tmp_path / "a.zarr", stack, dtype=stack.dtype, shard=SHARD)
    block = stack.array[writer.shards[0]]
    for wrong in (block[:, 1:], block.astype(np.float32)):
        with pytest.raises(InputError, match="shard 0 of"):
            writer.write(0, wrong)

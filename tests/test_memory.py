"""Memory asked for, left, and taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepcontrast.compute.memory import available, describe_bytes, footprint, parse_memory, resident, spare
from deepcontrast.errors import InputError
from deepcontrast.nets.unet import unet
from deepcontrast.training import initialise


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("1tb", 10**12), ("64kib", 2**16), ("7B", 7)],
)
def test_memory_is_read_with_its_unit(text: str, count: int) -> None:
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "2", "GB", "-1GB", "0GB", "2 G B", "2GBit", "1e9B", "nanGB"])
def test_what_is_no_memory_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"accepted: a number and .*GB") as caught:
        parse_memory(text)
    assert "\n" not in str(caught.value)


def test_bytes_are_said_in_their_largest_unit() -> None:
    assert [describe_bytes(n) for n in (12, 4_200, 3_500_000, 1_250_000_000)] == ["12 B", "4.2 kB", "3.5 MB", "1.25 GB"]


def machine(root: Path, free_kb: int, groups: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {free_kb} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(folder: Path, names: tuple[str, str, str], limit: str, usage: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_the_tightest_control_group_decides(tmp_path: Path) -> None:
    root = machine(tmp_path, 8_000_000, "0::/job/step\n")
    top = root / "sys/fs/cgroup"
    group(top / "job/step", V2, "max", 10**9, 0)
    group(top / "job", V2, "3000000000", 10**9, 4 * 10**8)
    assert available(root) == 3 * 10**9 - 10**9 + 4 * 10**8
    group(top / "job", V2, "max", 10**9, 0)
    assert available(root) == 8_000_000 * 1024


def test_control_groups_of_version_1_are_understood(tmp_path: Path) -> None:
    root = machine(tmp_path, 8_000_000, "9:cpu:/x\n4:memory:/slurm/job7\n")
    group(root / "sys/fs/cgroup/memory/slurm/job7", V1, "2000000000", 5 * 10**8, 0)
    assert available(root) == 15 * 10**8


def test_a_limit_is_of_the_whole_process() -> None:
    held = resident()
    assert held > 10**7
    assert abs(spare(limit=10**10) - (10**10 - held)) < 10**8


def test_footprint_tells_the_peak_of_tiles_that_were_not_tried() -> None:
    def work(size: int) -> tuple[int, object]:
        n = 100 * size
        x = torch.zeros(n)  # 4 bytes a voxel, alive to the end
        weights = torch.zeros(500) + 1  # 2000 bytes, and as many once more while the sum is made
        y = x.view(10, -1) * 2  # views take nothing
        del weights
        return n, y.relu_() + x.view(10, -1)

    found = footprint(work, "cpu")
    assert [found.peak(n) for n in (0, 100, 1_000, 10_000)] == [4000, 4400, 12_000, 120_000]
    assert found.voxels(12_000) == 1_000
    assert found.voxels(3_999) == 0


def test_footprint_of_a_network_is_what_a_large_tile_takes() -> None:
    net = unet(depth=1, features=4)
    initialise(net, torch.Generator().manual_seed(0))

    def work(side: int) -> tuple[int, object]:
        x = torch.zeros(1, 1, side, 64)
        return x.numel(), net(x)

    with torch.inference_mode():
        small = footprint(lambda size: work(32 * size), "cpu")
        large = footprint(lambda size: work(128 * size), "cpu")
    # The network may compute small maps in other steps.
    assert small.peak(256 * 64) == pytest.approx(large.peak(256 * 64), rel=0.05)

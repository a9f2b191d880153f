"""Memory asked for, left, and taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepcontrast.compute.memory import available, describe_bytes, parse_memory, peak_bytes, resident, spare
from deepcontrast.errors import InputError


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


def test_peak_counts_what_is_alive_at_once() -> None:
    x = torch.zeros(1000)

    def work() -> torch.Tensor:
        a = x + 1  # one alive
        b = a * a  # two
        del a
        c = b.view(10, 100) - b.view(10, 100)  # b and c: views take nothing
        return c.relu_()

    assert peak_bytes(work, "cpu") == 2 * 4000

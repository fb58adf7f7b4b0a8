"""What a container grants counts, not what the machine has."""

import os
from pathlib import Path

import psutil
import pytest

from engine import device

GIB = 2**30


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 GiB and 16 processors with its own /proc and control groups."""
    monkeypatch.setattr(device, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    class Memory:
        available = 64 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_without_control_groups_it_is_the_machine(kernel: Path) -> None:
    assert not (kernel / "cgroup").exists()
    assert device.free_memory() == 64 * GIB
    assert device.cores() == 16


def test_version_2_with_the_tightest_group_around_the_process(kernel: Path) -> None:
    write(
        kernel,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "cgroup/pod/box/memory.max": "max\n",
            "cgroup/pod/box/memory.current": "1\n",
            "cgroup/pod/box/cpu.max": "max 100000\n",
            "cgroup/pod/memory.max": f"{8 * GIB}\n",
            "cgroup/pod/memory.current": f"{5 * GIB}\n",
            "cgroup/pod/memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
            "cgroup/pod/cpu.max": "350000 100000\n",
        },
    )
    assert device.free_memory() == 5 * GIB
    assert device.cores() == 3


def test_version_1_inside_a_container_that_is_its_own_root(kernel: Path) -> None:
    write(
        kernel,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
            "cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert device.free_memory() == 3 * GIB
    assert device.cores() == 1


def test_version_1_without_limits(kernel: Path) -> None:
    write(
        kernel,
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cgroup/memory/memory.usage_in_bytes": "5\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert device.free_memory() == 64 * GIB
    assert device.cores() == 16

"""What computes: the device, its arithmetic and its memory, found out without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]

#: Where the kernel tells of processes and of control groups.
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

#: Resident bytes of a worker process before it reads a pixel: interpreter, torch, Dask and Zarr.
PROCESS_BYTES = 750 * 2**20


@dataclass(frozen=True, slots=True)
class Launch:
    """How a network is run; fixed when a run starts, since it decides the last bits.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where the network runs.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions; sums over tiles are float32 always.
    tiles : int
        Tiles that go through the network at once; does not change any bit on a CPU.
    """

    device: Device
    precision: Precision
    tiles: int


def choose_device(asked: str, *, elsewhere: bool = False) -> Device:
    """Device for "auto", "cpu" or "cuda".

    Parameters
    ----------
    asked : str
        One of these.
    elsewhere : bool
        Whether the workers are on other machines, which this one does not see.

    Raises
    ------
    ResourceError
        If CUDA is asked for and this machine has no NVIDIA driver.
    """
    present = _has_cuda()
    if asked == "cuda" and elsewhere:
        return "cuda"
    if asked == "cuda" and not present:
        raise ResourceError(
            where="--device cuda",
            expected="a machine with an NVIDIA GPU and its driver",
            found="none",
            remedy="Use --device cpu, or run where there is one.",
        )
    return "cuda" if asked != "cpu" and present else "cpu"


def choose_precision(asked: str, device: Device) -> Precision:
    """Precision for "auto": bfloat16 where the hardware multiplies it natively."""
    if asked == "float32":
        return "float32"
    if asked == "bfloat16" or device == "cuda" or _cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return "bfloat16"
    return "float32"


def cores() -> int:
    """Processors this process may use: those it may run on, or fewer that its container grants.

    Notes
    -----
    ``cpu.max`` of cgroup v2, ``cpu.cfs_quota_us`` of v1 (Linux kernel, admin-guide/cgroup-v2 and
    cgroup-v1); a part of a processor counts as one.
    """
    count = len(os.sched_getaffinity(0))
    for folder in _control_groups("cpu"):
        granted = _words(folder, "cpu.max", 2) or (
            _words(folder, "cpu.cfs_quota_us", 1) + _words(folder, "cpu.cfs_period_us", 1)
        )
        # "max" and -1 stand for no limit.
        if len(granted) == 2 and all(word.isdigit() and int(word) for word in granted):
            count = min(count, max(1, int(granted[0]) // int(granted[1])))
    return count


def visible_gpus() -> tuple[str, ...]:
    """GPUs that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(word.strip() for word in named.split(",") if word.strip())
    folder = PROC / "driver" / "nvidia" / "gpus"
    return tuple(str(k) for k, _ in enumerate(folder.iterdir())) if folder.is_dir() else ()


def free_memory() -> int:
    """Bytes of memory that can be taken without swapping, and within the limit of a container.

    Notes
    -----
    ``memory.max`` less ``memory.current`` of cgroup v2, ``memory.limit_in_bytes`` less
    ``memory.usage_in_bytes`` of v1, of each group around this process; cached files are counted
    as free, since they give way.
    """
    free = int(psutil.virtual_memory().available)
    for folder in _control_groups("memory"):
        limit = _words(folder, "memory.max", 1) or _words(folder, "memory.limit_in_bytes", 1)
        used = _words(folder, "memory.current", 1) or _words(folder, "memory.usage_in_bytes", 1)
        if limit and used and limit[0].isdigit():
            taken = int(used[0]) - _cached(folder)
            free = min(free, max(0, int(limit[0]) - taken))
    return free


def resident_peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(row for row in status.splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups around this process, innermost first; v2, then v1."""
    listing = PROC / "self" / "cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        number, names, place = line.split(":", 2)
        if number == "0":
            root = CGROUPS
        elif controller in names.split(","):
            root = CGROUPS / controller
        else:
            continue
        # A container often sees its own group as the root, whatever the path says.
        inner = root / place.strip("/")
        for folder in (inner, *inner.parents):
            yield folder
            if folder == root:
                break


def _words(folder: Path, name: str, count: int) -> tuple[str, ...]:
    """Words of a file of a control group; none where it is missing or has another number."""
    try:
        words = tuple((folder / name).read_text().split())
    except OSError:
        return ()
    return words if len(words) == count else ()


def _cached(folder: Path) -> int:
    """Bytes of a group that hold files not in use."""
    try:
        rows = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stats = dict(row.split() for row in rows if len(row.split()) == 2)
    return int(stats.get("total_inactive_file", stats.get("inactive_file", 0)))


@cache
def _has_cuda() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


@cache
def _cpu_flags() -> frozenset[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((row for row in lines if row.startswith("flags")), ":")
    return frozenset(flags.split(":", 1)[1].split())


_NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error says that the device, or the machine, had no memory for an array.

    Parameters
    ----------
    err : BaseException
        What a launch raised.

    Notes
    -----
    Other errors of a launch are `RuntimeError` too: they are not taken for it. torch has a type of
    its own for what its allocator for the device refuses; what the driver, cuBLAS, cuDNN or the
    allocator of the CPU refuse, it tells by these words alone.
    """
    from torch import OutOfMemoryError  # raised by torch alone

    told = isinstance(err, RuntimeError) and any(words in str(err) for words in _NO_MEMORY)
    return told or isinstance(err, OutOfMemoryError | MemoryError)


def release_memory(device: Device) -> None:
    """Give back to a device the memory that torch keeps for later."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()

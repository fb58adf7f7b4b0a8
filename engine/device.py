"""What computes: the device, its arithmetic and its memory, found out without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from engine.errors import ResourceError

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]

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


def choose_device(asked: str) -> Device:
    """Device for "auto", "cpu" or "cuda".

    Raises
    ------
    ResourceError
        If CUDA is asked for and this machine has no NVIDIA driver.
    """
    present = _has_cuda()
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
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def free_memory() -> int:
    """Bytes of memory that can be taken without swapping."""
    return int(psutil.virtual_memory().available)


def resident_peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(row for row in status.splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@cache
def _has_cuda() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


@cache
def _cpu_flags() -> frozenset[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((row for row in lines if row.startswith("flags")), ":")
    return frozenset(flags.split(":", 1)[1].split())

"""Which cluster to use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterSpec:
    """Which cluster to use.

    Parameters
    ----------
    address : str
        "local", or the address of a scheduler such as ``tcp://10.0.0.1:8786``.
    workers : int
        Worker processes of a local cluster.
    threads : int
        Tasks that a worker of a local cluster works on at once.
    """

    address: str
    workers: int
    threads: int

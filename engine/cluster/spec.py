"""Which cluster to use."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.cluster.configuration import WAIT_S
from engine.recipe import ClusterSettings, check_complete


@dataclass(frozen=True)
class ClusterSpec:
    """Which cluster to use.

    Parameters
    ----------
    address : str
        "local", "gateway", "kubernetes" or "slurm"; or the address of a scheduler such as
        ``tcp://10.0.0.1:8786``.
    workers : int
        Worker processes of a local cluster, or of one that is started where its settings do not
        say how many.
    threads : int
        Tasks that a worker works on at once, where it is started for this run.
    settings : ClusterSettings
        What else the cluster is told.
    gpus : tuple of str
        GPUs of a local cluster, by the names that ``CUDA_VISIBLE_DEVICES`` takes; each worker
        sees one. None where workers compute on the CPU.

    Raises
    ------
    RecipeError
        If the address is none, or its settings lack what it cannot be started without.
    """

    address: str
    workers: int
    threads: int
    settings: ClusterSettings = field(default_factory=ClusterSettings)
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_complete(self.address, self.settings)

    @property
    def wanted_workers(self) -> int:
        """Workers to ask for, of a cluster that does not adapt."""
        return self.settings.workers or self.workers

    @property
    def wait_s(self) -> float:
        """How long the first worker of a cluster that is started may take to come."""
        return self.settings.wait_s or WAIT_S

"""What is refused before a plan runs: networks, workers and clusters that cannot serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.device import Launch
from engine.errors import RecipeError, ResourceError
from engine.recipe import backend_of

if TYPE_CHECKING:
    from engine.planning import Job, Plan
    from engine.recipe import ClusterSettings, Resources


def check_workers(resources: Resources, cluster: str) -> None:
    """Refuse a number of workers for a cluster that has its own.

    Raises
    ------
    RecipeError
        If one is asked for at the address of a scheduler.
    """
    if backend_of(cluster) == "address" and resources.workers is not None:
        raise RecipeError(
            where="--workers",
            expected="none with --cluster tcp://, whose workers are there already",
            found=str(resources.workers),
            remedy="Start as many workers as wanted, or use --cluster local.",
        )


def check_networks(prepared: Plan, cluster: str) -> None:
    """Refuse networks that cannot run, before every region finds out.

    Raises
    ------
    ModelError
        If weights do not fit their configuration.
    ResourceError
        If the workers are here and torch cannot use the device.
    """
    if prepared.job.launch is not None and prepared.pending:
        _check_weights(prepared.job)
        if cluster == "local":
            _check_device(prepared)


def check_reachable(prepared: Plan, address: str, settings: ClusterSettings | None) -> None:
    """Refuse a cluster that cannot be reached or is out of limits, before a run leaves a trace."""
    from engine.cluster import check_cluster  # planning needs no scheduler
    from engine.running.execution import cluster_spec

    check_cluster(cluster_spec(prepared, address, settings), prepared.job)


def _check_weights(job: Job) -> None:
    """Refuse weights that do not fit their configuration here, before every region finds out."""
    # Planning needs no torch.
    from engine.networks.ensemble_runtime import open_member
    from engine.networks.mae_weights import load_mae
    from engine.networks.stardist import load_network

    if job.model is not None:
        load_network(job.model)
    for member in job.ensemble.members if job.ensemble else ():
        open_member(member, Launch("cpu", "float32", 1))
    if job.mae is not None:
        load_mae(job.mae)


def _check_device(prepared: Plan) -> None:
    """Refuse a run on a GPU that the installed torch cannot use.

    Raises
    ------
    ResourceError
        If it cannot.
    """
    import torch

    launch = prepared.job.launch
    if launch is not None and launch.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            where="--device",
            expected="a torch that can use the GPU of this machine",
            found=f"torch {torch.__version__}, which cannot",
            remedy="Install a CUDA build of torch, or use --device cpu.",
        )

"""Runs: of a recipe, of an ingest, of a plan that was already made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.api.admission import check_networks, check_reachable, check_workers
from engine.api.planning import Check, plan, plan_ingest
from engine.api.silent import Silent
from engine.recipe import Resources, load_cluster_settings, with_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.planning import Plan
    from engine.recipe import ClusterSettings, Settings, Storage
    from engine.running import Listener, Outcome
    from tiling import Box


def run(
    image: str | Path,
    out: str | Path,
    recipe: str | Path | Settings = "nuclei",
    *,
    overrides: Sequence[str] = (),
    within: Box | None = None,
    restart: bool = False,
    recompute: str | None = None,
    check: Check = "records",
    cluster: str = "local",
    cluster_set: Sequence[str] = (),
    listener: Listener | None = None,
) -> Outcome:
    """Run a recipe on an image, or continue where it stopped.

    Parameters
    ----------
    image, out, recipe, overrides, within, restart, recompute, check
        As in `plan`.
    cluster : str
        "local" starts worker processes here; "gateway", "kubernetes" and "slurm" have a server
        start them; else the address of a Dask scheduler.
    cluster_set : sequence of str
        Settings of the cluster such as ``"workers=8"``; see `engine.recipe.ClusterSettings`.
    listener : Listener or None
        Is told of progress.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If it cannot be done; nothing is written then.
    InterruptedRunError
        If it is stopped; what is done stays done.

    Notes
    -----
    Starts processes: in a script, call it below ``if __name__ == "__main__":``.
    """
    prepared = plan(
        image,
        out,
        recipe,
        overrides=overrides,
        within=within,
        restart=restart,
        recompute=recompute,
        check=check,
        cluster=cluster,
        cluster_set=cluster_set,
    )
    known = load_cluster_settings(cluster, cluster_set, prepared.resources.workers)
    return run_plan(prepared, cluster, listener, known)


def ingest(
    source: str | Path,
    dest: str | Path,
    *,
    pixel_size_um: float | None = None,
    axes: str | None = None,
    storage: Storage | None = None,
    resources: Resources | None = None,
    overwrite: bool = False,
    cluster: str = "local",
    cluster_set: Sequence[str] = (),
    listener: Listener | None = None,
) -> Outcome:
    """Copy a foreign image into OME-Zarr 0.5, or continue a copy that stopped.

    Parameters
    ----------
    source : str or Path
        TIFF, OME-TIFF, ImageJ stack, slide, PNG, JPEG, or a folder or glob of equal frames.
    dest : str or Path
        Where the image goes; its name ends in ``.ome.zarr``.
    pixel_size_um : float or None
        Side of a pixel in micrometres, in place of what the source says.
    axes : str or None
        Letters of t, c, z, y and x, one for each axis of the array in the file that is longer than
        one, in its order, such as ``"yxc"``; where the file itself names no axes. Of a folder of
        frames, those of each frame.
    storage : Storage or None
        Chunk and shard.
    resources : Resources or None
        Workers, threads and memory.
    overwrite : bool
        Make the image anew beside one that an ingest made there before, and replace that when
        the new one is complete.
    cluster, cluster_set, listener
        As in `run`.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If the source cannot be taken; nothing is written then.
    """
    given = resources or Resources()
    known = load_cluster_settings(cluster, cluster_set, given.workers)
    given = with_cluster(given, cluster, known)
    prepared = plan_ingest(source, dest, pixel_size_um, axes, storage, given, overwrite=overwrite)
    return run_plan(prepared, cluster, listener, known)


def run_plan(
    prepared: Plan,
    cluster: str,
    listener: Listener | None = None,
    cluster_settings: ClusterSettings | None = None,
) -> Outcome:
    """Run a plan that was already made; see `run`."""
    from engine.running import execute  # planning needs no scheduler

    check_networks(prepared, cluster)
    check_workers(prepared.resources, cluster)
    if cluster != "local":
        check_reachable(prepared, cluster, cluster_settings)
    return execute(prepared, cluster, listener or Silent(), cluster_settings)

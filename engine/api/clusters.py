"""Settings of a run for the workers of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.recipe import load_cluster_settings, with_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.recipe import ClusterSettings, Settings


def on_cluster(
    settings: Settings, cluster: str, cluster_set: Sequence[str]
) -> tuple[Settings, ClusterSettings]:
    """Fit settings to the workers of a cluster.

    Parameters
    ----------
    settings : Settings
        As the recipe and options say.
    cluster, cluster_set
        As in `run`.

    Returns
    -------
    settings : Settings
        With the workers and the memory that the cluster gives.
    known : ClusterSettings
        What the cluster is told.

    Raises
    ------
    RecipeError
        If a setting of the cluster is unknown or cannot be.
    """
    known = load_cluster_settings(cluster, cluster_set, settings.resources.workers)
    resources = with_cluster(settings.resources, cluster, known)
    return settings.model_copy(update={"resources": resources}), known

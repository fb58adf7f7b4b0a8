"""What holds for every image of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.cluster import ClusterSpec
from engine.device import choose_device, visible_gpus
from engine.recipe import IdentityRecipe

if TYPE_CHECKING:
    from engine.recipe import ClusterSettings, Settings


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every image of a batch.

    Parameters
    ----------
    settings : Settings
        Recipe, storage and resources.
    cluster : str
        "local", "gateway", "kubernetes", "slurm" or the address of a scheduler.
    cluster_settings : ClusterSettings
        What the cluster is told.
    at_once : int or None
        Images in work at a time; twice the workers where None, within bounds.
    keep_ingested : bool
        Whether what was ingested stays beside the results.
    pixel_size_um : float or None
        Side of a pixel of every file that is ingested, in place of what it says.
    """

    settings: Settings
    cluster: str
    cluster_settings: ClusterSettings
    at_once: int | None = None
    keep_ingested: bool = True
    pixel_size_um: float | None = None


def cluster_spec(options: Options) -> ClusterSpec:
    """Cluster that options ask for."""
    settings = options.settings
    resources, network = settings.resources, not isinstance(settings.recipe, IdentityRecipe)
    here = options.cluster == "local" and network and choose_device(resources.device) == "cuda"
    return ClusterSpec(
        options.cluster,
        resources.workers or 1,
        resources.threads,
        options.cluster_settings,
        visible_gpus() if here else (),
    )

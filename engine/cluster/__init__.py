"""Dask clusters: started here or reached by address, with the settings that workers need."""

from engine.cluster.configuration import WORKER_ENVIRONMENT
from engine.cluster.inspection import Expected, complaints, inspect_cluster
from engine.cluster.opening import check_cluster, open_cluster
from engine.cluster.spec import ClusterSpec
from engine.recipe import ClusterSettings

__all__ = [
    "WORKER_ENVIRONMENT",
    "ClusterSettings",
    "ClusterSpec",
    "Expected",
    "check_cluster",
    "complaints",
    "inspect_cluster",
    "open_cluster",
]

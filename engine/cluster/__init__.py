"""Dask clusters: started here or reached by address, with the settings that workers need."""

from engine.cluster.configuration import WORKER_ENVIRONMENT
from engine.cluster.opening import open_cluster
from engine.cluster.spec import ClusterSpec

__all__ = ["WORKER_ENVIRONMENT", "ClusterSpec", "open_cluster"]

"""Runs: passes in order, a bounded window of tasks, records on the way. Touches no pixel."""

from engine.running.execution import SharedCluster, execute
from engine.running.listening import Listener, Outcome
from engine.running.sharing import ClusterHost

__all__ = ["ClusterHost", "Listener", "Outcome", "SharedCluster", "execute"]

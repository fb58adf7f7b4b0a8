"""Runs: passes in order, a bounded window of tasks, records on the way. Touches no pixel."""

from engine.running.execution import SharedCluster, execute
from engine.running.listening import Listener, Outcome

__all__ = ["Listener", "Outcome", "SharedCluster", "execute"]

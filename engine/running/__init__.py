"""Runs: passes in order, a bounded window of tasks, records on the way. Touches no pixel."""

from engine.running.driver import Listener, Outcome, execute

__all__ = ["Listener", "Outcome", "execute"]

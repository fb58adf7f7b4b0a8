"""Progress that nobody wants to hear of."""

from __future__ import annotations


class Silent:
    """A listener that tells nobody."""

    def waiting(self, reason: str) -> None:
        """Do nothing."""

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Do nothing."""

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Do nothing."""

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Do nothing."""

    def region_failed(self, failure: object) -> None:
        """Do nothing."""

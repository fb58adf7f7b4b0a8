"""Who is told how a batch goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from engine.batch.document import Row


class BatchListener(Protocol):
    """Who is told of progress; from several threads."""

    def waiting(self, reason: str) -> None:
        """Note that something waits before it can start."""

    def images_found(self, images: int, done: int) -> None:
        """Note how many images there are, and how many of them an earlier call has done."""

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Note that workers are there; told by each run that uses them."""

    def image_started(self, name: str) -> None:
        """Note that an image is looked at."""

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Note that some regions of an image are done."""

    def image_ended(self, row: Row) -> None:
        """Note what became of an image."""

"""The ledger of one OUT: what was started there, and what is done of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.ledger import effects
from engine.ledger.counting import count_all
from engine.ledger.damage import find_damage
from engine.ledger.names import FOLDER
from engine.ledger.reading import Reader
from engine.ledger.runs import read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from engine.ledger.records import Count, Failure, Record
    from engine.store.location import Location
    from tiling import Grid


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that a run keeps beside its pixels; reading needs no lease.

    Parameters
    ----------
    out : Location
        Folder of the result.

    Examples
    --------
    >>> from engine.store.location import Location
    >>> str(Ledger(Location("/data/out.ome.zarr")).path("logs"))
    '/data/out.ome.zarr/.tilewright/logs'
    """

    out: Location

    @property
    def folder(self) -> Location:
        """Where it lies."""
        return self.out / FOLDER

    def path(self, *parts: str) -> Location:
        """Place of an object of the ledger."""
        return self.folder / "/".join(parts)

    @property
    def exists(self) -> bool:
        """Whether a run was started here.

        Raises
        ------
        OutputError
            If the store does not say.
        """
        return effects.is_there(self.path("run.json"))

    def read_run(self) -> dict[str, Any]:
        """Read what the run was started with.

        Raises
        ------
        OutputError
            If the document is missing, damaged, edited or of another version.
        """
        return read_document(self.path("run.json"))

    def write_run(self, document: Mapping[str, Any]) -> None:
        """Write what the run is started with; in one step.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        write_document(self.path("run.json"), document)

    def read_next(self) -> dict[str, Any] | None:
        """Read what a run is started with that is to replace the present one; None for none.

        Raises
        ------
        OutputError
            If the document is damaged, edited or of another version.
        """
        place = self.path("next.json")
        return read_document(place) if effects.is_there(place) else None

    def write_next(self, document: Mapping[str, Any]) -> None:
        """Write what a run is started with that is to replace the present one.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        write_document(self.path("next.json"), document)

    def clear_next(self) -> None:
        """Remove the document of a replacing run; none is no error.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        effects.delete([self.path("next.json")])

    def states(self, pass_name: str, digest: str, grid: Grid) -> np.ndarray:
        """State of every cell of a pass.

        Parameters
        ----------
        pass_name : str
            The pass.
        digest : str
            Its digest; records of another one do not count.
        grid : Grid
            Its grid.

        Returns
        -------
        ndarray of the grid's shape, uint8
            Codes of `State`.

        Raises
        ------
        OutputError
            If a record is damaged.
        """
        return Reader(self.folder, pass_name, digest, grid).states()

    def records(self, pass_name: str, digest: str, grid: Grid) -> Iterator[Record]:
        """Go through the records of a pass that count, each region once, in no order.

        Raises
        ------
        OutputError
            If a record is damaged.
        """
        return Reader(self.folder, pass_name, digest, grid).records()

    def failures(self, pass_name: str, digest: str, grid: Grid) -> Iterator[Failure]:
        """Go through the regions of a pass that are given up and not done since.

        Raises
        ------
        OutputError
            If a record is damaged.
        """
        return Reader(self.folder, pass_name, digest, grid).failures()

    def counts(self) -> dict[tuple[str, str], Count]:
        """Count what is done, by pass and digest; needs no plan, and 24 bytes for each record.

        Raises
        ------
        OutputError
            If a record is damaged.
        """
        return count_all(self.folder)

    def damaged(self) -> Iterator[tuple[str, str]]:
        """Read all records and marks; yield the place of each damaged object, and what was found.

        Raises
        ------
        OutputError
            If the store does not answer.
        """
        return find_damage(self.folder)

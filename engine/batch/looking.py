"""How far a batch is, seen from outside: its document, and the records of images in work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.batch.naming import INGESTED
from engine.batch.summary import cells
from engine.checking import kept_passes
from engine.ledger import Ledger, State, holder

if TYPE_CHECKING:
    from engine.batch.document import Row
    from engine.store import Location


def seen_cells(folder: Location, row: Row) -> tuple[str, ...]:
    """Find the line of an image in the table, with what its records say where it is not done.

    Parameters
    ----------
    folder : Location
        Folder of the batch.
    row : Row
        What the document says.

    Returns
    -------
    tuple of str
        For `HEADS`.
    """
    kept = cells(row)
    if row.state == "done":
        return kept
    name = f"{row.name}.ome.zarr"
    for place, word in ((folder / name, "in work"), (folder / INGESTED / name, "in ingest")):
        ledger = Ledger(place)
        if not ledger.exists or (word == "in ingest" and holder(ledger) is None):
            continue
        state = row.state if holder(ledger) is None else word
        reason = row.reason if state == row.state else ""
        return (row.name, state, kept[2], _share(ledger), kept[4], reason)
    return kept


def _share(ledger: Ledger) -> str:
    """Say how much of a run is done, of the objects that it stores."""
    done = whole = 0
    for kept in kept_passes(ledger.read_run()):
        states = ledger.states(kept.name, kept.digest, kept.grid)
        done += int(np.count_nonzero(states == State.DONE))
        whole += states.size
    return f"{100 * done // max(whole, 1)} %"

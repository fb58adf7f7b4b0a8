"""Putting a finished run in the place of the one that stands: metadata, table, document, rubbish.

::

    next.json says "publishing"       from here on only this run may go on in OUT
    metadata of the groups            name the new arrays
    parts of the table                moved to where users look, those that stood removed
    run.json                          is that of the new run
    next.json                         removed: the new run stands
    old arrays, records, objects      removed last, when nothing names them any more

Each step can be repeated, so a crash between two of them is mended by the same command.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from engine.ledger import FOLDER
from engine.planning.elements import shown_table
from engine.running.outputs import write_metadata
from engine.store import delete_all, read_json, update_group

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from engine.ledger import Journal, Ledger
    from engine.planning import Job
    from engine.store import Location


#: Folders of what passes keep beside the arrays, by digest.
_KEPT = ("objects", "flags", "components", "borders", "statistics/parts")


def publish(
    job: Job, ledger: Ledger, coming: Mapping[str, Any], parts: Mapping[str, Collection[str]]
) -> Job:
    """Put a complete run in the place of the one that stands.

    Parameters
    ----------
    job : Job
        The complete run.
    ledger : Ledger
        Of its OUT; the caller holds the lease.
    coming : mapping
        Its document, ``next.json``.
    parts : mapping of str to collection of str
        Names of the parts of each table, by the records: an earlier call may have moved some.

    Returns
    -------
    Job
        The run as it stands now.
    """
    replaced = _named(ledger.read_run())
    ledger.write_next({**coming, "publishing": True})
    write_metadata(job)
    shown = replace(job, tables={name: shown_table(name) for name in job.tables})
    for name, folder in job.tables.items():
        if folder != shown.tables[name]:
            _move_parts(job.out, folder, shown.tables[name], parts[name])
    ledger.write_run(
        {
            **coming,
            "tables_at": shown.tables,
            "publishing": False,
            "wish": "",
            "replaced": sorted(replaced),
        }
    )
    ledger.clear_next()
    return shown


def _named(document: Mapping[str, Any]) -> set[str]:
    """Name the groups and tables that a run made, and those that it replaced before."""
    arrays = {str(PurePosixPath(name).parent) for name in document["arrays"]}
    # Level 0 of edition 2 lies in GROUP/e2/0.
    groups = {re.sub(r"(^|/)e\d+$", "", group) for group in arrays} - {".", ""}
    tables = {shown_table(name) for name in document.get("tables_at", {})}
    return groups | tables | set(document.get("replaced", ()))


def _move_parts(out: Location, source: str, target: str, parts: Collection[str]) -> None:
    """Move the parts of a table, those that were not moved yet; then remove what stood there."""
    for name in (out / source).children()[1]:
        _move(out / source / name, out / target / name)
    place = out / target
    delete_all(place / name for name in place.children()[1] if name not in parts)


def _move(source: Location, target: Location) -> None:
    """Move an object; on a disk in one step, so that its time of change stays."""
    if source.is_local:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        source.path.replace(target.path)
    else:
        target.write_bytes(source.read_bytes())
        source.delete()


def remove_unused(job: Job, document: Mapping[str, Any], journal: Journal) -> None:
    """Remove arrays, tables, outlines, statistics and records that no document names.

    Only what a run of ours made here is looked at: its groups, and those that it replaced. What
    somebody else put into OUT stays.
    """
    out = job.out
    kept = {f"{layer.group}/{lv.path}".strip("/") for layer in job.layers for lv in layer.levels}
    groups = {layer.group for layer in job.layers}
    for group in sorted(groups):
        _remove_arrays(out, group, kept)
    gone = set(document.get("replaced", ())) - groups - set(job.tables.values())
    for place in sorted(gone):
        if place.startswith("labels/"):
            _unlist(out, place.removeprefix("labels/"))
        (out / place).remove()
    digests = {digest[:16] for digest in job.digests.values()}
    for folder in (f"{FOLDER}/{name}" for name in _KEPT):
        for name in (out / folder).children()[0]:
            if name not in digests:
                (out / folder / name).remove()
    for name in (out / FOLDER / "statistics").children()[1]:
        if name.removeprefix("levels-").removesuffix(".npz") not in digests:
            (out / FOLDER / "statistics" / name).delete()
    (out / FOLDER / "tables").remove()
    journal.forget(set(job.digests.values()))


def _unlist(out: Location, name: str) -> None:
    """Take a label image out of the list of label images."""
    document = read_json(out / "labels" / "zarr.json", OutputError)
    listed = document.get("attributes", {}).get("ome", {}).get("labels", [])
    update_group(out / "labels", {"labels": [n for n in listed if n != name]}, {})


def _remove_arrays(out: Location, group: str, kept: set[str]) -> None:
    """Remove the arrays of a group that belong to other editions."""
    place = out / group
    for name in place.children()[0]:
        if name.isdigit():
            if f"{group}/{name}".strip("/") not in kept:
                (place / name).remove()
        elif name[:1] == "e" and name[1:].isdigit():
            left = [n for n in (place / name).children()[0] if n.isdigit()]
            used = [n for n in left if f"{group}/{name}/{n}".strip("/") in kept]
            for level in set(left) - set(used):
                (place / name / level).remove()
            if not used:
                (place / name).remove()

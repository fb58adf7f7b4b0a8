"""What people and programs read of a batch: a page, totals, and the cells of a table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.batch.document import Row

#: Heads of the table.
HEADS = ("image", "state", "objects", "regions", "seconds", "reason")


def totals(rows: Iterable[Row]) -> dict[str, Any]:
    """Sum rows: images by state, objects, pixels, regions and seconds; what failed, and why.

    Examples
    --------
    >>> from engine.batch.document import Row
    >>> totals([Row("a", "/a", False, "done", objects=3), Row("b", "/b", False)])["images"]
    {'all': 2, 'done': 1, 'incomplete': 0, 'quarantined': 0, 'waiting': 1}
    """
    listed = list(rows)
    states = Counter(row.state for row in listed)
    counted = [row.objects for row in listed if row.objects is not None]
    return {
        "images": {
            "all": len(listed),
            **{name: states[name] for name in ("done", "incomplete", "quarantined", "waiting")},
        },
        "complete": states["done"] == len(listed),
        "objects": sum(counted) if counted else None,
        "pixels": sum(row.pixels for row in listed if row.state == "done"),
        "regions": sum(row.regions for row in listed),
        "regions_done": sum(row.regions_done for row in listed),
        "seconds_of_images": round(sum(row.seconds for row in listed), 3),
        "failed": [
            {"name": row.name, "source": row.source, "state": row.state, "reason": row.reason}
            for row in listed
            if row.reason
        ],
    }


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table, for `HEADS`."""
    regions = f"{row.regions_done}/{row.regions}" if row.regions else ""
    return (
        row.name,
        row.state,
        "" if row.objects is None else str(row.objects),
        regions,
        f"{row.seconds:.1f}" if row.tries else "",
        row.reason,
    )


def words(found: dict[str, Any]) -> str:
    """Say totals in one line."""
    images = found["images"]
    text = f"{images['done']} of {images['all']} images done"
    for state in ("incomplete", "quarantined", "waiting"):
        text += f", {images[state]} {state}" if images[state] else ""
    return text + (f"; {found['objects']} objects" if found["objects"] is not None else "")


def page(title: str, rows: Sequence[Row]) -> str:
    """Markdown: totals, what failed, and a table of all images."""
    found = totals(rows)
    lines = [f"# {title}", "", f"{words(found)}.", ""]
    regions = f"{found['regions_done']} of {found['regions']} regions"
    seconds = f"{found['seconds_of_images']:.1f} s summed over images"
    lines += [f"{found['pixels'] / 1e6:.2f} Mpx, {regions}, {seconds}.", ""]
    if found["failed"]:
        lines += ["## Not complete", ""]
        lines += [
            f"- **{_plain(one['name'])}** ({one['state']}): {_plain(one['reason'])}"
            for one in found["failed"]
        ]
        lines += ["", "Give the same command again to try just these.", ""]
    lines += ["## Images", "", _line(HEADS[:-1]), _line(["---"] * (len(HEADS) - 1))]
    lines += [_line(cells(row)[:-1]) for row in rows]
    return "\n".join(lines) + "\n"


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(value) for value in values)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for mark in "\\`*_|<":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())

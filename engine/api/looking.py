"""What stands is looked at: before a plan continues it, or to verify it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.api.silent import Silent
from engine.errors import OutputError, RecipeError
from engine.planning import with_marks
from engine.store import Location

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.checking import Depth
    from engine.planning import Plan
    from engine.running import Listener
    from engine.verifying import Verification


def checked(
    prepared: Plan, check: str, tell: Callable[[str, int], None] = lambda _name, _done: None
) -> Plan:
    """Plan that computes again what a check finds missing, damaged or changed.

    Parameters
    ----------
    prepared : Plan
        As made from the records.
    check : {'records', 'listing', 'bytes'}
        How closely to look.
    tell : callable
        Is told the pass and the regions that were looked at since it was last told.

    Raises
    ------
    RefusedError
        If the check is none of these, or a store does not answer.
    """
    if check not in ("records", "listing", "bytes"):
        raise RecipeError(
            where=f"--check {check}",
            expected="records, listing or bytes",
            found=check,
            remedy="records trusts the records, listing asks for every object, bytes decodes them.",
        )
    if check == "records" or not prepared.choice.started:
        return prepared
    from engine.checking import check_inputs, check_outputs, joined, kept_passes

    depth: Depth = "bytes" if check == "bytes" else "listing"
    document = prepared.document()
    passes = kept_passes(document)
    tables = document.get("tables_at", {})
    outputs = check_outputs(prepared.job.out, passes, depth, tables, tell)
    inputs = check_inputs(prepared.job, passes, depth, tell)
    return with_marks(prepared, joined(outputs, inputs).marks)


def verify(
    out: str | Path,
    *,
    repair: bool = False,
    check: str = "bytes",
    tell: Callable[[str, int], None] = lambda _name, _done: None,
    listener: Listener | None = None,
) -> Verification:
    """Compare every stored object of a result with its record.

    Parameters
    ----------
    out : str or Path
        A result of `run` or `ingest`, on a disk or in a bucket.
    repair : bool
        Mark what is missing or damaged: the run, given again, computes it again.
    check : {'listing', 'bytes'}
        Whether objects are only looked for, with size and tag, or decoded too.
    tell : callable
        Is told the pass and the regions that were looked at since it was last told.
    listener : Listener or None
        Is told why a repair waits.

    Returns
    -------
    Verification

    Raises
    ------
    RecipeError
        If the check is none of these.
    OutputError
        If there is no result, a record cannot be read, or another driver is at work there.
    """
    from engine.verifying import verify_result

    if check not in ("listing", "bytes"):
        raise RecipeError(
            where=f"--check {check}",
            expected="listing or bytes",
            found=check,
            remedy="listing asks for every object, bytes decodes them too.",
        )
    depth: Depth = "bytes" if check == "bytes" else "listing"
    place = Location.parse(out, OutputError)
    told = listener or Silent()
    return verify_result(place, depth, repair=repair, tell=tell, waiting=told.waiting)

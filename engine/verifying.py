"""Verification: every stored object of a result against its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.checking import Findings, check_documents, check_outputs, joined, kept_passes
from engine.errors import OutputError
from engine.ledger import Lease, Ledger, beating, take_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.checking import Depth
    from engine.store import Location


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Parameters
    ----------
    findings : Findings
        Regions whose objects are missing or damaged.
    documents : tuple of str
        Arrays without a readable document.
    repaired : bool
        Whether the regions were marked, so that they are computed again.
    """

    findings: Findings
    documents: tuple[str, ...]
    repaired: bool

    @property
    def clean(self) -> bool:
        """Whether everything stands as recorded."""
        return not self.findings.marks and not self.documents


def verify_result(
    out: Location,
    depth: Depth,
    *,
    repair: bool,
    tell: Callable[[str, int], None],
    waiting: Callable[[str], None],
) -> Verification:
    """Compare every stored object of a result with its record.

    Parameters
    ----------
    out : Location
        A result of a run or of an ingest.
    depth : {'listing', 'bytes'}
        Whether objects are only looked for, with size and tag, or decoded too.
    repair : bool
        Mark what is missing or damaged, so that the run, given again, computes it again; and drop
        records that cannot be read, whose regions are new then.
    tell : callable
        Is told the pass and the regions that were looked at since it was last told.
    waiting : callable
        Is told why a repair waits before it starts.

    Raises
    ------
    OutputError
        If there is no result, a record cannot be read, or, for a repair, another driver is at
        work there.
    """
    ledger = Ledger(out)
    if not ledger.exists:
        raise OutputError(
            where=f"'{out}'",
            expected="a result of `tilewright run` or `tilewright ingest`",
            found="none" if out.exists() else "nothing there",
            remedy="Check the path.",
        )
    if not repair:
        return _look(ledger, depth, tell)
    lease = Lease.acquire(ledger, tell=waiting)
    try:
        with beating(lease) as pulse:
            journal = take_over(ledger, lease, repair=True)
            found = _look(ledger, depth, tell)
            pulse.check()
            journal.revoke(found.findings.marks)
            journal.flush()
    finally:
        lease.release()
    return Verification(found.findings, found.documents, repaired=True)


def _look(ledger: Ledger, depth: Depth, tell: Callable[[str, int], None]) -> Verification:
    """Check what stands, and what is being made beside it."""
    documents: list[str] = []
    findings = []
    for document in (ledger.read_run(), ledger.read_next()):
        if document is not None:
            missing = check_documents(ledger.out, document)
            documents += missing
            if not missing:
                passes, tables = kept_passes(document), document.get("tables_at", {})
                findings.append(check_outputs(ledger.out, passes, depth, tables, tell))
    found = joined(*findings) if findings else Findings(0, 0, ())
    return Verification(found, tuple(documents), repaired=False)

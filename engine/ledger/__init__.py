"""Records of what is done, marks of what is not any more, and the lease of who may write them.

::

    records   what is kept of a region            lines     lines with checksums
    ledger    one OUT, for those who read         names     where everything lies
    reading   what counts of a pass               chain     what counts at all
    writing   what workers write                  journal   what the driver writes
    takeover  how a driver begins                 lease     who is the driver
"""

from engine.ledger.beating import Pulse, beating
from engine.ledger.holding import EXPIRY_S, Holder, Timer, holder
from engine.ledger.identity import Identity
from engine.ledger.journal import Journal
from engine.ledger.lease import Lease
from engine.ledger.ledger import Ledger
from engine.ledger.names import FOLDER
from engine.ledger.records import Bundle, Count, Failure, Mark, Record, State
from engine.ledger.runs import FORMAT
from engine.ledger.takeover import take_over
from engine.ledger.writing import RecordWriter

__all__ = [
    "EXPIRY_S",
    "FOLDER",
    "FORMAT",
    "Bundle",
    "Count",
    "Failure",
    "Holder",
    "Identity",
    "Journal",
    "Lease",
    "Ledger",
    "Mark",
    "Pulse",
    "Record",
    "RecordWriter",
    "State",
    "Timer",
    "beating",
    "holder",
    "take_over",
]

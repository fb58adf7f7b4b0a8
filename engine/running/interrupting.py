"""A request to stop, told in our words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def interruptible(where: str, kept: str = "What is done is kept") -> Iterator[None]:
    """Tell that a block was stopped by the user or the system, and can be continued.

    Parameters
    ----------
    where : str
        What was stopped.
    kept : str
        What stays of it.

    Raises
    ------
    InterruptedRunError
        If the block is interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as err:
        raise InterruptedRunError(
            where=where,
            expected="to finish",
            found="a request to stop",
            remedy=f"{kept}: give the same command again to continue.",
        ) from err

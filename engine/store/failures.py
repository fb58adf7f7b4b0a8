"""What a store refuses, as errors for people; and which of them more tries cannot mend."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from engine.errors import InputError, OutputError

if TYPE_CHECKING:
    from engine.errors import RefusedError

# Every region would meet them: ENODEV is what buckets that are not there are told as.
_FATAL = frozenset(
    [
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENODEV,
    ]
)

# How Rust ends the text of an error of the operating system; the codecs of zarrs pass it on.
_RUST = re.compile(r"\(os error (\d+)\)")

_REMEDIES = {
    errno.ENOSPC: "Free space there, then run again.",
    errno.EDQUOT: "Free space there or have the quota raised, then run again.",
    errno.EROFS: "Choose a place that can be written.",
    errno.ENODEV: "Make the bucket, or correct its name and AWS_ENDPOINT_URL.",
    errno.EACCES: "Correct the permissions or credentials there, or choose another place.",
    errno.EPERM: "Correct the permissions or credentials there, or choose another place.",
}


def is_fatal(err: BaseException) -> bool:
    """Whether a store refused in a way that every further region would meet.

    Parameters
    ----------
    err : BaseException
        What was raised. Ask in the process that raised it: what caused an error is lost when it
        is pickled.

    Returns
    -------
    bool
        True for a full disk or quota, a read-only or forbidden place and a missing bucket, where
        something was to be written. False for anything that an input caused, and for silence,
        broken connections and servers in trouble, which may pass.

    Examples
    --------
    >>> is_fatal(OSError(28, "No space left on device")), is_fatal(TimeoutError(110, "silence"))
    (True, False)
    """
    cause: BaseException | None = err
    fatal = False
    while cause is not None:
        if isinstance(cause, InputError):
            return False
        fatal = fatal or error_number(cause) in _FATAL
        cause = cause.__cause__
    return fatal


def is_damage(err: BaseException) -> bool:
    """Whether bytes of an input came and could not be understood: more tries read the same bytes.

    Parameters
    ----------
    err : BaseException
        What was raised; ask in the process that raised it.

    Returns
    -------
    bool
        False where the system, a store or a network had a part in it, which may pass.

    Examples
    --------
    >>> is_damage(OSError(5, "Input/output error"))
    False
    """
    cause: BaseException | None = err
    damaged = False
    while cause is not None:
        damaged = damaged or isinstance(cause, InputError)
        if isinstance(cause, OSError) or error_number(cause) is not None:
            return False
        cause = cause.__cause__
    return damaged


def error_number(err: BaseException) -> int | None:
    """Find the number of an error of the operating system, also in what Rust codecs pass on."""
    if isinstance(err, OSError):
        return err.errno
    found = _RUST.search(str(err)) if isinstance(err, RuntimeError) else None
    return int(found[1]) if found else None


def write_error(where: str, err: OSError | RuntimeError) -> OutputError:
    """Make the error for something that could not be written; raise it from `err`."""
    return OutputError(
        where=where,
        expected="a place that can be written",
        found=_reason(err),
        remedy=_remedy(err),
    )


def read_error(where: str, err: OSError, error: type[RefusedError] = InputError) -> RefusedError:
    """Make the error for something that could not be read; raise it from `err`."""
    return error(
        where=where, expected="something that can be read", found=_reason(err), remedy=_remedy(err)
    )


def _reason(err: OSError | RuntimeError) -> str:
    """Tell what the system or store said, without the place."""
    return err.strerror or str(err) if isinstance(err, OSError) else str(err)


def _remedy(err: OSError | RuntimeError) -> str:
    """Tell what the user can do about it."""
    number = error_number(err)
    if isinstance(err, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return "Check the path, or copy what is missing again from its source."
    if isinstance(err, (ConnectionError, TimeoutError)):
        return "Check the network and AWS_ENDPOINT_URL, then run again."
    return _REMEDIES.get(number or 0, "Check the disk or store, then run again.")

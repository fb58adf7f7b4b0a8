"""What buckets and web servers answer, as the `OSError` that a disk would raise."""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_FOUND = (FileNotFoundError, NotFoundError)
"""What obstore raises for an object, or a bucket, that is not there."""

# Codes of S3 and of servers that speak it: https://docs.aws.amazon.com/AmazonS3/latest/API/
# ErrorResponses.html, MinIO's cmd/api-errors.go (XMinioStorageFull), Ceph's rgw (QuotaExceeded).
_CODES = {
    "NoSuchBucket": (errno.ENODEV, "the bucket does not exist"),
    "QuotaExceeded": (errno.EDQUOT, "the quota is used up"),
    "XMinioStorageFull": (errno.ENOSPC, "the store is full"),
    "507 Insufficient Storage": (errno.ENOSPC, "the store is full"),
    "AccessDenied": (errno.EACCES, "access denied"),
    "InvalidAccessKeyId": (errno.EACCES, "the access key is not known"),
    "SignatureDoesNotMatch": (errno.EACCES, "the secret key is wrong"),
    "ExpiredToken": (errno.EACCES, "the credentials have expired"),
    "301 Moved Permanently": (errno.ENODEV, "the bucket lies in another region: set AWS_REGION"),
    "PermanentRedirect": (errno.ENODEV, "the bucket lies in another region: set AWS_REGION"),
    "kind: Timeout": (errno.ETIMEDOUT, "the store did not answer in time"),
    "kind: Connect": (errno.ECONNREFUSED, "no connection to the store"),
}

_XML_CODE = re.compile(r"<Code>([^<]*)</Code>(?:\s*<Message>([^<]*)</Message>)?")


@contextmanager
def as_os_error(name: str) -> Iterator[None]:
    """Raise what obstore says as the kind of `OSError` that a disk would raise.

    Parameters
    ----------
    name : str
        What the error names.
    """
    try:
        yield
    except ValueError as err:
        raise OSError(errno.EINVAL, _short(err), name) from err
    except (FileNotFoundError, BaseError) as err:
        raise _translate(err, name) from err


def bucket_is_missing(err: Exception) -> bool:
    """Whether an object is not found because its whole bucket is not there."""
    return "NoSuchBucket" in str(err)


def _translate(err: Exception, name: str) -> OSError:
    """Make the `OSError`; Python picks its kind by the number."""
    text = str(err)
    for code, (number, meaning) in _CODES.items():
        if code in text:
            return OSError(number, meaning, name)
    if isinstance(err, NOT_FOUND):
        return OSError(errno.ENOENT, "nothing there", name)
    if isinstance(err, (AlreadyExistsError, PreconditionError)):
        return OSError(errno.EEXIST, "it exists", name)
    if isinstance(err, (PermissionDeniedError, UnauthenticatedError)):
        return OSError(errno.EACCES, f"access denied: {_short(err)}", name)
    if isinstance(err, NotSupportedError):
        return OSError(errno.ENOTSUP, f"the store cannot do this: {_short(err)}", name)
    return OSError(errno.EIO, _short(err), name)


def _short(err: Exception) -> str:
    """Code and message of the store where it gave some, else the first line."""
    text = str(err)
    found = _XML_CODE.search(text)
    if found is not None:
        return ": ".join(part for part in found.groups() if part)
    line = text.strip().splitlines()[0] if text.strip() else type(err).__name__
    return line.rsplit(" - ", 1)[-1][:200]

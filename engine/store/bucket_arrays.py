"""Zarr's view of a bucket: what is not stored is told from what could not be read."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import obstore
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import ObjectStore

from engine.store.bucket_errors import NOT_FOUND, as_os_error, bucket_is_missing

if TYPE_CHECKING:
    from obstore.store import HTTPStore, S3Store
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class StrictStore(ObjectStore["S3Store | HTTPStore"]):
    """Chunks as zarr asks for them; only an object that is truly not there counts as not stored.

    Zarr takes "not found" for a chunk of fill value. So it must not be said of a bucket that is
    gone, of an object that vanished between its index and its chunks, or of one cut to nothing.

    Parameters
    ----------
    root : str
        As for `engine.store.buckets.open_bucket`; what pickles, so that no credential does.
    store : obstore store
        Opened client.
    read_only : bool
        Whether to refuse writing.
    """

    def __init__(self, root: str, store: S3Store | HTTPStore, *, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self._root = root

    def with_read_only(self, read_only: bool = False) -> StrictStore:
        """View of the same bucket."""
        return StrictStore(self._root, self.store, read_only=read_only)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self._root, self.read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object or a part of one; None where there is none."""
        with as_os_error(key):
            try:
                response = await obstore.get_async(self.store, key, options=_options(byte_range))
                data = await response.bytes_async()
            except NOT_FOUND as err:
                inside = isinstance(byte_range, RangeByteRequest) and byte_range.start > 0
                if inside or bucket_is_missing(err):
                    raise
                return None
        expected = _length(byte_range, response.meta["size"])
        if len(data) != expected:
            msg = f"{len(data)} bytes instead of {expected}"
            raise OSError(errno.EIO, msg, key)
        return prototype.buffer.from_bytes(data)  # type: ignore[arg-type]


def _reopen(root: str, read_only: bool) -> StrictStore:
    """Make the store again in another process, with the credentials that hold there."""
    from engine.store.buckets import open_bucket

    store = open_bucket(root).zarr_path(root, read_only=read_only).store
    if not isinstance(store, StrictStore):
        raise TypeError(type(store))
    return store


def _options(byte_range: ByteRequest | None) -> Any:  # noqa: ANN401 - a typed dict of obstore
    """Range as obstore takes it."""
    match byte_range:
        case RangeByteRequest(start, end):
            return {"range": (start, end)}
        case OffsetByteRequest(offset):
            return {"range": {"offset": offset}}
        case SuffixByteRequest(suffix):
            return {"range": {"suffix": suffix}}
        case _:
            return {}


def _length(byte_range: ByteRequest | None, size: int) -> int:
    """Bytes that an answer must have; at least one, since no encoder makes empty chunks."""
    match byte_range:
        case RangeByteRequest(start, end):
            return end - start
        case OffsetByteRequest(offset):
            return max(size - offset, 1)
        case SuffixByteRequest(suffix):
            return suffix
        case _:
            return max(size, 1)

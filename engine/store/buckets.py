"""Buckets that speak S3, and web servers: through obstore."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
from obstore.store import HTTPStore
from zarr.storage import StorePath

from engine.store.bucket_arrays import StrictStore
from engine.store.bucket_errors import NOT_FOUND, as_os_error
from engine.store.bucket_settings import LOOK, SETTINGS, WORK, Patience, open_client
from engine.store.location import Stat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from obstore.store import S3Store

#: Requests at once where many objects are removed.
_REQUESTS = 16

#: Objects above this are sent in parts.
_PART = 64 * 2**20

#: Names the maker of an object that was created exclusively.
_MAKER = "tilewright-maker"


class Bucket:
    """One bucket or web server, as `engine.store.location.Backend`.

    Parameters
    ----------
    root : str
        ``s3://bucket``, ``https://host`` or ``http://host:port``.
    store : obstore store
        Opened client; safe to use from several threads.
    """

    def __init__(self, root: str, store: S3Store | HTTPStore) -> None:
        self._root = root
        self._store = store
        self._web = isinstance(store, HTTPStore)

    def read(self, name: str) -> bytes:
        """Get an object."""
        with as_os_error(name):
            return bytes(obstore.get(self._store, self._key(name)).bytes())

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Get a range of an object."""
        with as_os_error(name):
            return bytes(
                obstore.get_range(self._store, self._key(name), start=start, length=length)
            )

    def write(self, name: str, data: bytes) -> Stat:
        """Put an object; a store shows it whole or not at all."""
        self._refuse_web(name)
        with as_os_error(name):
            try:
                made = obstore.put(
                    self._store, self._key(name), data, use_multipart=len(data) > _PART
                )
            except NOT_FOUND as err:
                raise OSError(errno.ENODEV, "the bucket does not exist", name) from err
        return Stat(len(data), made["e_tag"] or "")

    def create(self, name: str, data: bytes) -> None:
        """Put under the condition that nothing is there (If-None-Match: *).

        Where the answer to a put is lost, the next try finds what the first one made. So each
        object names its maker, who recognises it.
        """
        self._refuse_web(name)
        key, maker = self._key(name), uuid.uuid4().hex
        with as_os_error(name):
            try:
                obstore.put(
                    self._store,
                    key,
                    data,
                    mode="create",
                    attributes={_MAKER: maker},
                    use_multipart=False,
                )
            except obstore.exceptions.AlreadyExistsError:
                if obstore.get(self._store, key).attributes.get(_MAKER) != maker:
                    raise
            except NOT_FOUND as err:
                raise OSError(errno.ENODEV, "the bucket does not exist", name) from err

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects."""
        keys = [self._key(name) for name in names]
        if not keys:
            return
        self._refuse_web(f"{self._root}/{keys[0]}")
        with as_os_error(f"{self._root}/{keys[0]}"):
            try:
                obstore.delete(self._store, keys)
            except NOT_FOUND:
                self._delete_each(keys)

    def _delete_each(self, keys: list[str]) -> None:
        """Delete one by one: some stores take a missing object for an error."""

        def drop(key: str) -> None:
            try:
                obstore.delete(self._store, key)
            except NOT_FOUND:
                return

        with ThreadPoolExecutor(_REQUESTS) as pool:
            list(pool.map(drop, keys))

    def stat(self, name: str) -> Stat | None:
        """Ask for size and etag."""
        key = self._key(name)
        if not key:
            return None
        with as_os_error(name):
            try:
                found = obstore.head(self._store, key)
            except NOT_FOUND:
                return None
        return _stat(found)

    def knows_any(self, names: Iterable[str]) -> None:
        """Ask for objects until the store says of one whether it is there.

        Raises
        ------
        OSError
            What it said of the last one.
        """
        said: OSError | None = None
        for name in names:
            try:
                self.stat(name)
            except PermissionError as err:
                said = err
            else:
                return
        if said is not None:
            raise said

    def is_folder(self, name: str) -> bool:
        """Whether a listing of everything below has a first entry."""
        return next(self._pages(name, 1), None) is not None

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """List up to the next slash."""
        self._refuse_listing(name)
        with as_os_error(name):
            found = obstore.list_with_delimiter(self._store, self._prefix(name) or None)
        folders = [p.rstrip("/").rsplit("/", 1)[-1] for p in found["common_prefixes"]]
        return folders, [meta["path"].rsplit("/", 1)[-1] for meta in found["objects"]]

    def walk(self, name: str) -> Iterator[tuple[str, Stat]]:
        """List everything below."""
        prefix = self._prefix(name)
        for page in self._pages(name, 1000):
            for meta in page:
                yield meta["path"].removeprefix(prefix), _stat(meta)

    def _pages(self, name: str, size: int) -> Iterator[Any]:
        """Pages of a listing; none is empty."""
        self._refuse_listing(name)
        with as_os_error(name):
            listing = obstore.list(self._store, self._prefix(name) or None, chunk_size=size)
            yield from (page for page in listing if len(page))

    def remove(self, name: str) -> None:
        """Delete an object, and everything below its name."""
        names: list[str] = [name] if self._key(name) else []
        for path, _ in self.walk(name):
            names.append(f"{name}/{path}")
            if len(names) == 1000:
                self.delete(names)
                names = []
        self.delete(names)

    def zarr_path(self, name: str, *, read_only: bool) -> StorePath:
        """Zarr's view of a prefix."""
        if not read_only:
            self._refuse_web(name)
        return StorePath(StrictStore(self._root, self._store, read_only=read_only), self._key(name))

    def _key(self, name: str) -> str:
        key = name.removeprefix(self._root).strip("/")
        return unquote(key) if self._web else key

    def _prefix(self, name: str) -> str:
        key = self._key(name)
        return f"{key}/" if key else ""

    def _refuse_web(self, name: str) -> None:
        if self._web:
            raise OSError(errno.EROFS, "a web server takes no data", name)

    def _refuse_listing(self, name: str) -> None:
        if self._web:
            raise OSError(errno.ENOTSUP, "a web server has no listing", name)


_opening = threading.Lock()


def open_bucket(root: str) -> Bucket:
    """Client of a bucket or server: one per process, for the settings that hold now.

    Raises
    ------
    PermissionError
        If there are no credentials, or the profile or files that should hold them are wrong.
    """
    settings = tuple((name, os.environ.get(name)) for name in SETTINGS)
    with _opening:
        return _open_cached(root, WORK, settings)


def look_at_bucket(root: str) -> Bucket:
    """Client that gives up soon, for a first look at a bucket or server."""
    return Bucket(root, open_client(root, LOOK))


@lru_cache(maxsize=32)
def _open_cached(
    root: str, patience: Patience, _settings: tuple[tuple[str, str | None], ...]
) -> Bucket:
    return Bucket(root, open_client(root, patience))


def _stat(meta: Any) -> Stat:  # noqa: ANN401 - a typed dict that exists for type checkers only
    """Size and etag; a web server without etags gives a time in whole seconds, or none."""
    tag = meta["e_tag"] or f"{meta['size']}-{int(meta['last_modified'].timestamp())}"
    return Stat(meta["size"], tag)

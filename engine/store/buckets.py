"""Buckets that speak S3, and web servers: through obstore, with the settings of the usual places.

Credentials, region and endpoint are looked up as every AWS tool does, by botocore: environment
(``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``,
``AWS_ENDPOINT_URL_S3``), ``~/.aws/config``, ``~/.aws/credentials``, then the roles of a container
or machine. ``AWS_SKIP_SIGNATURE=true`` reads public buckets without any. Workers look them up
themselves: no credential travels with a task.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import HTTPStore, S3Store
from zarr.storage import ObjectStore

from engine.store.location import Stat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zarr.abc.store import Store

#: A request that fails with 5xx, a broken connection or too long a silence is tried again, each
#: time after a longer pause; beyond that the region is tried again as a whole.
_RETRY = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_CLIENT = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}

#: Requests at once where many objects are removed.
_REQUESTS = 16


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

    def read(self, name: str) -> bytes:
        """Get an object."""
        with _as_os_error(name):
            return bytes(obstore.get(self._store, self._key(name)).bytes())

    def write(self, name: str, data: bytes) -> None:
        """Put an object; a store shows it whole or not at all."""
        with _as_os_error(name):
            obstore.put(self._store, self._key(name), data, use_multipart=len(data) > _PART)

    def create(self, name: str, data: bytes) -> None:
        """Put under the condition that nothing is there (If-None-Match: *)."""
        with _as_os_error(name):
            obstore.put(self._store, self._key(name), data, mode="create", use_multipart=False)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects."""
        keys = [self._key(name) for name in names]
        if keys:
            with _as_os_error(f"{self._root}/{keys[0]}"):
                try:
                    obstore.delete(self._store, keys)
                except (NotFoundError, FileNotFoundError):
                    self._delete_each(keys)

    def _delete_each(self, keys: list[str]) -> None:
        """Delete one by one: some stores take a missing object for an error."""

        def drop(key: str) -> None:
            try:
                obstore.delete(self._store, key)
            except (NotFoundError, FileNotFoundError):
                return

        with ThreadPoolExecutor(_REQUESTS) as pool:
            list(pool.map(drop, keys))

    def stat(self, name: str) -> Stat | None:
        """Ask for size and etag."""
        key = self._key(name)
        if not key:
            return None
        with _as_os_error(name):
            try:
                found = obstore.head(self._store, key)
            except (NotFoundError, FileNotFoundError):
                return None
        return _stat(found)

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """List up to the next slash; a web server has no listing."""
        if isinstance(self._store, HTTPStore):
            return [], []
        prefix = self._prefix(name)
        with _as_os_error(name):
            found = obstore.list_with_delimiter(self._store, prefix or None)
        folders = [p.rstrip("/").rsplit("/", 1)[-1] for p in found["common_prefixes"]]
        return folders, [meta["path"].rsplit("/", 1)[-1] for meta in found["objects"]]

    def walk(self, name: str) -> Iterator[tuple[str, Stat]]:
        """List everything below."""
        prefix = self._prefix(name)
        with _as_os_error(name):
            if isinstance(self._store, HTTPStore):
                raise OSError(0, "a web server has no listing", name)
            for page in obstore.list(self._store, prefix or None):
                for meta in page:
                    yield meta["path"].removeprefix(prefix), _stat(meta)

    def remove(self, name: str) -> None:
        """Delete an object, and everything below its name."""
        names: list[str] = [name]
        for path, _ in self.walk(name):
            names.append(f"{name}/{path}")
            if len(names) == 1000:
                self.delete(names)
                names = []
        self.delete(names)

    def zarr_store(self, name: str, *, read_only: bool) -> Store:
        """Zarr's store of a prefix."""
        return ObjectStore(_open(self._root, self._key(name)), read_only=read_only)

    def _key(self, name: str) -> str:
        return name.removeprefix(self._root).strip("/")

    def _prefix(self, name: str) -> str:
        key = self._key(name)
        return f"{key}/" if key else ""


#: Objects above this are sent in parts.
_PART = 64 * 2**20

_opening = threading.Lock()


def open_bucket(root: str) -> Bucket:
    """Client of a bucket or server: one per process, for the settings that hold now."""
    settings = tuple((name, os.environ.get(name)) for name in _SETTINGS)
    with _opening:
        return _open_cached(root, settings)


# What a changed environment must open anew; tests and notebooks change it.
_SETTINGS = (
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_SKIP_SIGNATURE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)


@lru_cache(maxsize=32)
def _open_cached(root: str, _settings: tuple[tuple[str, str | None], ...]) -> Bucket:
    return Bucket(root, _open(root, ""))


def _open(root: str, prefix: str) -> S3Store | HTTPStore:
    """Client whose names begin below a prefix."""
    scheme, host = root.split("://", 1)
    client: Any = {**_CLIENT, "allow_http": True}
    if scheme != "s3":
        url = f"{root}/{prefix}" if prefix else root
        return HTTPStore.from_url(url, client_options=client, retry_config=_RETRY)  # type: ignore[arg-type]
    options = _s3_options()
    return S3Store(
        host,
        prefix=prefix or None,
        client_options=client,
        retry_config=_RETRY,  # type: ignore[arg-type]
        **options,
    )


def _s3_options() -> dict[str, Any]:
    """Endpoint, region and credentials, as botocore finds them."""
    import botocore.session  # 0.2 s, for buckets alone

    session = botocore.session.Session()
    options: dict[str, Any] = {"region": session.get_config_variable("region") or "us-east-1"}
    endpoint = _endpoint(session)
    if endpoint:
        options["endpoint"] = endpoint
        # A host of one's own rarely has a name for each bucket.
        options["virtual_hosted_style_request"] = False
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes"):
        options["skip_signature"] = True
        return options
    found = session.get_credentials()
    if found is None:
        msg = "no credentials: set AWS_PROFILE, or AWS_SKIP_SIGNATURE=true for a public bucket"
        raise PermissionError(msg)
    options["credential_provider"] = _Credentials(session)
    return options


def _endpoint(session: Any) -> str | None:  # noqa: ANN401 - botocore has no types
    """Endpoint of S3 by environment or profile; None for that of AWS."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name]
    profile: dict[str, Any] = session.get_scoped_config()
    found: str | None = profile.get("endpoint_url") or profile.get("s3", {}).get("endpoint_url")
    return found


class _Credentials:
    """Credentials for obstore, asked again before they expire."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401 - botocore has no types
        self._session = session

    def __call__(self) -> Any:  # noqa: ANN401 - a typed dict that exists for type checkers only
        from datetime import UTC, datetime

        found = self._session.get_credentials().get_frozen_credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=5),
        }


def _stat(meta: Any) -> Stat:  # noqa: ANN401 - a typed dict that exists for type checkers only
    return Stat(meta["size"], meta["e_tag"] or str(meta["last_modified"]))


@contextmanager
def _as_os_error(name: str) -> Iterator[None]:
    """Raise what a bucket says as the `OSError` that a disk would raise."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as err:
        raise FileNotFoundError(2, "nothing there", name) from err
    except (AlreadyExistsError, PreconditionError) as err:
        raise FileExistsError(17, "it exists", name) from err
    except (PermissionDeniedError, UnauthenticatedError) as err:
        raise PermissionError(13, f"access denied: {_first_line(err)}", name) from err
    except NotSupportedError as err:
        raise OSError(95, f"the store cannot do this: {_first_line(err)}", name) from err
    except BaseError as err:
        raise OSError(5, _first_line(err), name) from err


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0]

"""How buckets and web servers are reached, with the settings of the usual places.

Credentials, region and endpoint are looked up as every AWS tool does, by botocore: environment
(``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``,
``AWS_ENDPOINT_URL_S3``), ``~/.aws/config``, ``~/.aws/credentials``, then the roles of a container
or machine. ``AWS_SKIP_SIGNATURE=true`` reads public buckets without any. Workers look them up
themselves: no credential travels with a task.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from obstore.store import HTTPStore, S3Store

from engine.store.bucket_errors import as_os_error

SETTINGS = (
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
"""What a changed environment must open anew; tests and notebooks change it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may take, and how often it is tried.

    Parameters
    ----------
    connect_s : float
        Until a connection stands.
    silence_s : float
        Without a byte of the answer.
    retries : int
        More tries after 5xx, a broken connection or silence, each after a longer pause.
    """

    connect_s: float
    silence_s: float
    retries: int


#: Six pauses of 0.1 s and more, doubling, ride out what stores call "slow down"; beyond that the
#: region is tried again as a whole.
WORK = Patience(connect_s=5, silence_s=60, retries=6)

#: Someone waits for the answer: 10 s at most.
LOOK = Patience(connect_s=4, silence_s=4, retries=1)


def open_client(root: str, patience: Patience) -> S3Store | HTTPStore:
    """Client of a bucket or a web server.

    Parameters
    ----------
    root : str
        ``s3://bucket``, ``https://host`` or ``http://host:port``.
    patience : Patience
        For all of its requests.

    Raises
    ------
    PermissionError
        If there are no credentials, or the profile or files that should hold them are wrong.
    OSError
        If the settings do not fit together.
    """
    scheme, host = root.split("://", 1)
    client: Any = {
        "connect_timeout": timedelta(seconds=patience.connect_s),
        "read_timeout": timedelta(seconds=patience.silence_s),
        # For a whole answer; the silence is what tells a dead store from a slow line.
        "timeout": timedelta(seconds=10 * patience.silence_s),
        "allow_http": True,
    }
    retry: Any = {"max_retries": patience.retries, "retry_timeout": timedelta(seconds=60)}
    with as_os_error(root):
        if scheme != "s3":
            return HTTPStore.from_url(root, client_options=client, retry_config=retry)
        return S3Store(host, client_options=client, retry_config=retry, **_s3_options(root))


def _s3_options(root: str) -> dict[str, Any]:
    """Endpoint, region and credentials, as botocore finds them."""
    import botocore.session  # 0.2 s, for buckets alone
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.session.Session()
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        options: dict[str, Any] = {"region": region or "us-east-1"}
        endpoint = _endpoint(session)
        if endpoint:
            options["endpoint"] = endpoint
            # A host of one's own rarely has a name for each bucket.
            options["virtual_hosted_style_request"] = False
        if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes"):
            return options | {"skip_signature": True}
        found = session.get_credentials()
    except BotoCoreError as err:
        raise PermissionError(errno.EACCES, f"credentials: {err}", root) from err
    if found is None:
        msg = "no credentials: set AWS_PROFILE, or AWS_SKIP_SIGNATURE=true for a public bucket"
        raise PermissionError(errno.EACCES, msg, root)
    return options | {"credential_provider": _Credentials(found)}


def _endpoint(session: Any) -> str | None:  # noqa: ANN401 - botocore has no types
    """Endpoint of S3 by environment or profile; None for that of AWS."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name]
    profile: dict[str, Any] = session.get_scoped_config()
    own = profile.get("s3")
    found: str | None = own.get("endpoint_url") if isinstance(own, dict) else None
    return found or profile.get("endpoint_url")


class _Credentials:
    """Credentials for obstore, asked again before they expire."""

    def __init__(self, found: Any) -> None:  # noqa: ANN401 - botocore has no types
        self._found = found

    def __call__(self) -> Any:  # noqa: ANN401 - a typed dict that exists for type checkers only
        frozen = self._found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=5),
        }

"""A cluster of a Dask-Gateway server: asked for within its limits, and stopped in any case."""

from __future__ import annotations

import gc
import os
import time
import urllib.error
import urllib.request
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import dask

from engine.cluster import configuration
from engine.cluster.arriving import meet_workers
from engine.cluster.configuration import server_environment
from engine.cluster.extras import require
from engine.cluster.leaving import end, end_when_idle, ended
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from engine.cluster.spec import ClusterSpec
    from engine.recipe import ClusterSettings

# Of dask_gateway, which is an extra and says nothing of its types.
_Server: TypeAlias = Any
_Cluster: TypeAlias = Any
_Options: TypeAlias = Any

_T = TypeVar("_T")

WHERE = "--cluster gateway"

#: How often a pending cluster is looked at.
_LOOK_EACH_S = 0.3

#: What servers usually call our settings; their unit of memory is GiB.
_NAMES = {
    "worker_cores": "worker_cores",
    "worker_memory_gib": "worker_memory",
    "gpus": "gpus",
    "image": "image",
}


def check(spec: ClusterSpec) -> None:
    """Refuse a server that does not answer, a wrong password, options out of its limits."""
    with _server(spec.settings) as server:
        if spec.settings.name is None:
            _options(server, spec.settings)


@contextmanager
def start(spec: ClusterSpec) -> Iterator[Client]:
    """Ask for a cluster, wait for its first worker, and stop it when the block ends.

    Raises
    ------
    ResourceError
        If the server does not answer, refuses the password or an option, or gives no worker in
        time; or if versions differ.
    """
    settings = spec.settings
    deadline = time.monotonic() + spec.wait_s
    with _server(settings) as server, _named(server, settings) as name:
        _wait_for_scheduler(server, name, deadline)
        cluster = _told(lambda: server.connect(name, shutdown_on_close=False))
        try:
            _scale(cluster, spec)
            with cluster.get_client(set_as_default=False) as client:
                end_when_idle(client, settings.idle_timeout_s)
                left = max(0.1, deadline - time.monotonic())
                remedy = "See the server's log and its limits, or raise wait_s."
                meet_workers(client, WHERE, left, remedy)
                client.forward_logging("engine")
                yield client
        finally:
            cluster.close(shutdown=False)
            _close_once(cluster.gateway)


@contextmanager
def _server(settings: ClusterSettings) -> Iterator[_Server]:
    """Server that answers."""
    gateway = require("dask_gateway", "gateway")
    address = settings.address or _configured("gateway.address")
    if not address:
        raise ResourceError(
            where=WHERE,
            expected="the address of a server",
            found="none",
            remedy="Add --cluster-set address=http://HOST, or set gateway.address in Dask's "
            "configuration (DASK_GATEWAY__ADDRESS).",
        )
    _check_health(address)
    try:
        server = gateway.Gateway(address, settings.proxy_address, auth=settings.auth)
    except (ValueError, TypeError, ImportError) as err:
        raise _refused(err, "Correct gateway.auth in Dask's configuration.") from err
    try:
        yield server
    finally:
        server.close()
        _close_once(server)


@contextmanager
def _named(server: _Server, settings: ClusterSettings) -> Iterator[str]:
    """Name of a cluster that is stopped when the block ends, unless it is to be left."""
    name = _submit(server, settings) if settings.name is None else settings.name
    with ended(name, settings, lambda: server.stop_cluster(name)):
        yield name


def _submit(server: _Server, settings: ClusterSettings) -> str:
    """Ask for a cluster; its name, without which it could not be stopped."""
    options = _options(server, settings)
    # A name that a stop kept from arriving would be a cluster that nobody ends.
    with ThreadPoolExecutor(1) as pool:
        asked: Future[str] = pool.submit(_told, lambda: server.submit(options))
        try:
            return asked.result()
        except KeyboardInterrupt:
            name = asked.result(timeout=configuration.CONNECT_TIMEOUT_S)
            end(name, lambda: server.stop_cluster(name))
            raise


def _check_health(address: str) -> None:
    """Refuse a server that does not answer in seconds; its own client would wait for minutes."""
    url = f"{address.rstrip('/')}/api/health"
    try:
        # A scheme such as file: is no server of ours.
        request = urllib.request.Request(url)
        if request.type not in ("http", "https"):
            raise urllib.error.URLError(f"no http address: {address}")
        with urllib.request.urlopen(request, timeout=configuration.CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as err:
        raise ResourceError(
            where=f"{WHERE}, {address}",
            expected=f"a Dask-Gateway server that answers within {configuration.CONNECT_TIMEOUT_S}"
            " s",
            found=str(getattr(err, "reason", None) or err),
            remedy="Check address, port and network.",
        ) from err


def _options(server: _Server, settings: ClusterSettings) -> _Options:
    """Options of the server with our settings, each within its limits.

    The server would refuse them too, but after that its client can hang at the next cluster.
    """
    options = _told(server.cluster_options)
    wanted = {
        theirs: value
        for ours, theirs in _NAMES.items()
        if (value := getattr(settings, ours)) is not None
    } | settings.options
    asked = bool(settings.environment or settings.pass_environment)
    if "environment" in options or asked:
        offered = options.get("environment", {})
        wanted["environment"] = {**offered, **server_environment(settings)}
    for name, value in wanted.items():
        whole = isinstance(value, float) and value.is_integer()
        try:
            options[name] = int(value) if whole else value
        except (KeyError, ValueError, TypeError) as err:
            known = ", ".join(options) or "none"
            unknown = isinstance(err, KeyError)
            raise ResourceError(
                where=f"{WHERE}, option {name}",
                expected=f"one of the server's options: {known}"
                if unknown
                else "a value that the server allows",
                found=name if unknown else str(err),
                remedy="Leave it out, or ask who runs the server." if unknown else "Change it.",
            ) from err
    return options


def _wait_for_scheduler(server: _Server, name: str, deadline: float) -> None:
    """Wait until the server has started the scheduler of a cluster."""
    while (status := _told(lambda: server.get_cluster(name)).status.name) != "RUNNING":
        late = time.monotonic() > deadline
        if late or status != "PENDING":
            raise ResourceError(
                where=f"{WHERE}, cluster {name}",
                expected="a scheduler that starts within wait_s" if late else "one that starts",
                found=f"a cluster that is {status.lower()}",
                remedy="See the server's log: its image and limits, and whether its scheduler_cmd "
                "is `dask scheduler`: Dask has no `dask-scheduler` any more.",
            )
        time.sleep(_LOOK_EACH_S)


def _scale(cluster: _Cluster, spec: ClusterSpec) -> None:
    """Ask for workers; fewer than asked for are a refusal, not a warning."""
    from dask_gateway.client import GatewayWarning  # the extra is there by now

    settings = spec.settings
    with warnings.catch_warnings():
        warnings.simplefilter("error", GatewayWarning)
        try:
            if settings.adapt_min is not None:
                _told(lambda: cluster.adapt(settings.adapt_min, settings.adapt_max))
            elif settings.workers is not None or settings.name is None:
                _told(lambda: cluster.scale(spec.wanted_workers))
        except GatewayWarning as err:
            raise _refused(err, "Ask for fewer workers.") from err


def _told(call: Callable[[], _T]) -> _T:
    """Call the server; tell its refusals in our words."""
    aiohttp = require("aiohttp", "gateway")
    gateway = require("dask_gateway", "gateway")
    try:
        return call()
    except (gateway.GatewayClusterError, gateway.GatewayServerError, ValueError) as err:
        # Else collected later, on the thread that its end waits for: the next cluster would hang.
        gc.collect()
        raise _refused(err, "See the server's log.") from err
    except aiohttp.ClientResponseError as err:
        denied = err.status in (401, 403)
        raise _refused(
            err,
            "Check user and password: gateway.auth in Dask's configuration, such as "
            "DASK_GATEWAY__AUTH__KWARGS__PASSWORD."
            if denied
            else "See the server's log.",
            "a user and password that it takes" if denied else "an answer",
        ) from err
    except (aiohttp.ClientError, OSError) as err:
        raise _refused(err, "Check address, port and network.") from err


def _refused(
    err: BaseException, remedy: str, expected: str = "a cluster within its limits"
) -> ResourceError:
    found = f"{getattr(err, 'status', '')} {getattr(err, 'message', '') or err}".strip()
    return ResourceError(
        where=WHERE, expected=expected, found=found or type(err).__name__, remedy=remedy
    )


def _close_once(server: _Server) -> None:
    """Keep the end of a client that is closed from closing it again.

    It would ask a loop that has stopped, and say so on the terminal; or, where the last reference
    goes on the thread of a loop that runs, wait for itself for ever.
    """
    server.__dict__.pop("_loop_runner", None)


def _configured(key: str) -> str | None:
    """Address in Dask's configuration, which may name variables of the environment."""
    require("dask_gateway", "gateway")  # brings its defaults along
    value = dask.config.get(key, None)
    return str(value).format(**os.environ) if value else None

"""Settings of a cluster: where it is asked for, how many workers of what size, when it ends.

They are checked before any server is asked. Nothing here decides a pixel.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.recipe.models import Resources

Backend = Literal["local", "address", "gateway", "kubernetes", "slurm"]

_SIZE = {"workers", "adapt_min", "adapt_max", "worker_cores", "worker_memory_gib", "gpus"}
_STARTED = _SIZE | {"wait_s", "idle_timeout_s", "environment", "pass_environment"}
_KEPT = {"name", "leave"}

#: Settings that each way to reach workers takes.
KEYS: dict[Backend, frozenset[str]] = {
    "local": frozenset(),
    "address": frozenset({"wait_s"}),
    "gateway": frozenset(
        _STARTED | _KEPT | {"address", "proxy_address", "auth", "image", "options"}
    ),
    "kubernetes": frozenset(
        _STARTED | _KEPT | {"namespace", "image", "secret", "service_account", "spot"}
    ),
    "slurm": frozenset(
        _STARTED | {"partition", "account", "walltime", "interface", "host", "log_folder"}
    ),
}

#: Share of a worker's memory that a plan fills: beyond its limit a worker is killed.
_FILLED = 0.9

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ClusterSettings(BaseModel):
    """How a cluster is reached or started; see `KEYS` for what each kind takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    workers: int | None = Field(None, ge=1)
    """Workers that are started."""
    adapt_min: int | None = Field(None, ge=1)
    adapt_max: int | None = Field(None, ge=1)
    """Bounds between which their number follows the work; tasks go to workers that are there, so
    one stays."""
    worker_cores: float | None = Field(None, gt=0, strict=False)
    worker_memory_gib: float | None = Field(None, gt=0, strict=False)
    gpus: int | None = Field(None, ge=0, le=1)
    """GPUs of a worker; one worker for each GPU."""
    wait_s: float | None = Field(None, gt=0, strict=False)
    """How long the first worker may take to come."""
    idle_timeout_s: float = Field(1800, ge=10, strict=False)
    """After so long without work the cluster ends, whatever became of the run."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of scheduler and workers."""
    pass_environment: tuple[str, ...] = Field((), strict=False)
    """Names of variables of this process, such as AWS_ACCESS_KEY_ID or AWS_*, that they get."""
    name: str | None = Field(None, min_length=1)
    """A cluster that was left before, to be used again."""
    leave: bool = False
    """Leave the cluster running when the run ends; it ends by itself after `idle_timeout_s`."""
    image: str | None = None
    """Container image of scheduler and workers, with its tag."""
    address: str | None = None
    proxy_address: str | None = None
    """Dask-Gateway server and its scheduler proxy; else as the Dask configuration says."""
    auth: str | None = None
    """basic, jupyterhub or kerberos; its details are in the Dask configuration."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options that the gateway server offers."""
    namespace: str | None = Field(None, pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    secret: str | None = None
    """Kubernetes Secret whose entries become environment variables."""
    service_account: str | None = None
    spot: bool = False
    """Let workers run on nodes that are tainted as preemptible."""
    partition: str | None = None
    account: str | None = None
    walltime: str | None = Field(None, pattern=r"^(\d+-)?\d+(:\d+){0,2}$")
    interface: str | None = None
    host: str | None = None
    """Network interface, or address, at which workers of a batch system find the scheduler."""
    log_folder: str | None = None

    @field_validator("image")
    @classmethod
    def _tagged(cls, image: str | None) -> str | None:
        last = (image or ":").rpartition("/")[2]
        if "@sha256:" not in last and not last.partition(":")[1]:
            msg = f"an image with a tag, such as name:0.1.0, got {image}"
            raise ValueError(msg)
        return image

    @field_validator("environment", "pass_environment")
    @classmethod
    def _names(cls, names: Any) -> Any:  # noqa: ANN401 - a mapping or a tuple of names
        for name in names:
            if not _VARIABLE.fullmatch(name.removesuffix("*")):
                msg = f"names of variables, got {name}"
                raise ValueError(msg)
        return names

    @model_validator(mode="after")
    def _bounds(self) -> ClusterSettings:
        if (self.adapt_min is None) != (self.adapt_max is None):
            msg = f"adapt_min and adapt_max together, got {self.adapt_min} and {self.adapt_max}"
            raise ValueError(msg)
        if self.adapt_min is not None and self.adapt_max is not None:
            if self.workers is not None:
                msg = f"workers, or adapt_min and adapt_max, not both, got workers {self.workers}"
                raise ValueError(msg)
            if self.adapt_min > self.adapt_max:
                msg = f"adapt_min <= adapt_max, got {self.adapt_min} and {self.adapt_max}"
                raise ValueError(msg)
        return self

    @property
    def most_workers(self) -> int | None:
        """Workers at most; None where nothing says it."""
        return self.workers or self.adapt_max


def backend_of(cluster: str) -> Backend:
    """Kind of cluster that ``--cluster`` names.

    Raises
    ------
    RecipeError
        If it names none.

    Examples
    --------
    >>> backend_of("tcp://10.0.0.1:8786")
    'address'
    """
    if cluster.startswith(("tcp://", "tls://")):
        return "address"
    for known in KEYS:
        if cluster == known != "address":
            return known
    raise RecipeError(
        where=f"--cluster {cluster}",
        expected="local, gateway, kubernetes, slurm, or the address of a scheduler such as "
        "tcp://host:8786",
        found=cluster,
        remedy="Use --cluster local for workers on this machine.",
    )


def load_cluster_settings(
    cluster: str, assignments: Sequence[str] = (), workers: int | None = None
) -> ClusterSettings:
    """Parse ``key=value`` settings of a cluster.

    Parameters
    ----------
    cluster : str
        What ``--cluster`` names.
    assignments : sequence of str
        Such as ``"workers=8"`` or ``"environment.AWS_REGION=eu-west-1"``; values are YAML.
    workers : int or None
        Workers where the assignments say nothing of their number.

    Returns
    -------
    ClusterSettings

    Raises
    ------
    RecipeError
        If a setting is unknown, wrong, or of another kind of cluster.

    Examples
    --------
    >>> load_cluster_settings("gateway", ["workers=4"]).workers
    4
    """
    backend = backend_of(cluster)
    document: dict[str, Any] = {}
    for assignment in assignments:
        _assign(document, assignment, backend)
    started = "workers" in KEYS[backend]
    if started and not document.keys() & {"workers", "adapt_min", "adapt_max", "name"}:
        document["workers"] = workers
        if workers is None:
            raise RecipeError(
                where=f"--cluster {cluster}",
                expected="how many workers to start",
                found="nothing",
                remedy="Add --workers 4, or --cluster-set adapt_min=1 --cluster-set adapt_max=8.",
            )
    try:
        found = ClusterSettings.model_validate(document)
    except ValidationError as err:
        error = err.errors()[0]
        message = error["msg"].removeprefix("Value error, ").replace("Input should be ", "")
        rule, _, values = message.partition(", got ")
        raise RecipeError(
            where=f"--cluster-set {'.'.join(str(part) for part in error['loc'])}".rstrip(),
            expected=rule,
            found=values or repr(error["input"]),
            remedy="Correct it.",
        ) from err
    check_complete(cluster, found)
    return found


def check_complete(cluster: str, settings: ClusterSettings) -> None:
    """Refuse a cluster without what it cannot be started without.

    Raises
    ------
    RecipeError
        If the size of a worker, or its image, is not said; or the cluster is none.
    """
    backend = backend_of(cluster)
    if backend not in ("kubernetes", "slurm") or settings.name is not None:
        return
    if settings.worker_memory_gib is None:
        raise RecipeError(
            where=f"--cluster {cluster}",
            expected="the memory of a worker",
            found="nothing",
            remedy="Add --cluster-set worker_memory_gib=8; `tilewright plan` says what it takes.",
        )
    if backend == "kubernetes" and settings.image is None:
        raise RecipeError(
            where=f"--cluster {cluster}",
            expected="the image of scheduler and workers",
            found="none",
            remedy="Add --cluster-set image=NAME:TAG.",
        )


def with_cluster(resources: Resources, cluster: str, settings: ClusterSettings) -> Resources:
    """Resources of a run whose workers have the number, memory and device a cluster gives them."""
    backend = backend_of(cluster)
    if backend == "local":
        return resources
    workers = resources.workers or settings.most_workers
    memory, device = resources.memory_gib, resources.device
    if memory is None and workers is not None and settings.worker_memory_gib is not None:
        memory = _FILLED * workers * settings.worker_memory_gib
    if device == "auto" and backend != "address":
        device = "cuda" if settings.gpus else "cpu"
    found = {"workers": workers, "memory_gib": memory, "device": device, "elsewhere": True}
    return resources.model_copy(update=found)


def _assign(document: dict[str, Any], assignment: str, backend: Backend) -> None:
    """Put one ``key=value`` into the document."""
    key, equals, text = assignment.partition("=")
    name, _, inner = key.strip().partition(".")
    known = sorted(KEYS[backend])
    if not equals or name not in known or bool(inner) != (name in ("environment", "options")):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        listed = f"Known here: {', '.join(known)}." if known else "A local cluster has none."
        raise RecipeError(
            where=f"--cluster-set {key}",
            expected=f"key=value with a setting of this cluster ({backend})",
            found=f"'{key}'",
            remedy=f"Did you mean '{near[0]}'? {listed}" if near else listed,
        )
    try:
        plain = name == "environment" or ClusterSettings.model_fields[name].annotation == str | None
        value = text if plain else yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise RecipeError(
            where=f"--cluster-set {key}",
            expected="a YAML value",
            found=f"'{text}'",
            remedy="Put quotes around the value.",
        ) from err
    if inner:
        document.setdefault(name, {})[inner] = value
    elif name == "pass_environment":
        names = value if isinstance(value, list) else [text]
        document[name] = [*document.get(name, ()), *names]
    else:
        document[name] = value

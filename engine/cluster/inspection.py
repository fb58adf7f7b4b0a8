"""Whether scheduler and workers are as this process: versions, code, files of networks."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.errors import ModelError, RefusedError, ResourceError
from engine.networks.defense_bank import open_bank
from engine.networks.ensemble import open_ensemble
from engine.networks.mae_folder import open_mae
from engine.networks.model_folder import open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Client

    from engine.planning import Job


class _Digested(Protocol):
    """Files that were read, with their digest."""

    @property
    def sha256(self) -> str: ...


#: What decides pixels, or must be equal on both ends of a connection.
_EVERYWHERE = ("dask", "distributed", "numpy")
_ON_WORKERS = ("zarr", "torch")

_OPENERS: dict[str, Callable[[str], _Digested]] = {
    "model": open_model,
    "ensemble": open_ensemble,
    "masked autoencoder": open_mae,
    "bank of defenses": open_bank,
}


@dataclass(frozen=True, slots=True)
class Network:
    """Files that a job needs on every worker.

    Parameters
    ----------
    kind : str
        A key of `_OPENERS`.
    path : str
        Their folder or file; or a bundled name.
    sha256 : str
        Their digest.
    """

    kind: str
    path: str | Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What a worker must have.

    Parameters
    ----------
    versions : tuple of (str, str)
        Packages, Python and our own code.
    networks : tuple of Network
        What the job reads.
    """

    versions: tuple[tuple[str, str], ...]
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, job: Job) -> Expected:
        """Expect the versions that this process has, and the networks of a job."""
        return cls(tuple(versions(_EVERYWHERE + _ON_WORKERS).items()), _networks(job))


#: What this process was found to have.
_SOUND: set[Expected] = set()


def complaints(expected: Expected) -> tuple[str, ...]:
    """Say what this process lacks of what is expected; nothing where it has all.

    Looked for once in each process, until all is there.
    """
    if expected in _SOUND:
        return ()
    found = _differences(dict(expected.versions))
    # Other code may not even know what the networks are.
    if not found:
        found = [wrong for network in expected.networks if (wrong := _lacks(network))]
    if not found:
        _SOUND.add(expected)
    return tuple(found)


def inspect_cluster(client: Client, where: str, job: Job | None = None) -> None:
    """Compare scheduler and workers with this process.

    Parameters
    ----------
    client : Client
        The cluster.
    where : str
        The option that named it, for messages.
    job : Job or None
        Whose networks the workers must have; None where versions and code count.

    Raises
    ------
    ResourceError
        If versions differ.
    ModelError
        If only files of networks are missing or different.
    """
    code = {"code": _code()} if job is None else {}
    scheduler = Expected(tuple((versions(_EVERYWHERE) | code).items()))
    ours = versions(_EVERYWHERE + _ON_WORKERS) | code
    networks = _networks(job) if job is not None else ()
    answers = {"the scheduler": _ask_scheduler(client, scheduler)}
    workers = client.run(complaints, Expected(tuple(ours.items()), networks), on_error="return")
    answers |= {f"worker {address}": answer for address, answer in workers.items()}
    bad = {who: _told(answer) for who, answer in answers.items() if answer != ()}
    if not bad:
        return
    who, told = next(iter(bad.items()))
    also = f" (and {len(bad) - 1} more of {len(answers)})" if len(bad) > 1 else ""
    about_versions = any(not text.startswith(tuple(_OPENERS)) for text in told)
    kind: type[RefusedError] = ResourceError if about_versions else ModelError
    raise kind(
        where=f"{where}, {who}{also}",
        expected="what this process has",
        found="; ".join(told),
        remedy="Give scheduler, workers and this process the same image or environment."
        if about_versions
        else "Put the files at the same place on every worker, or into the image.",
    )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python, tilewright and packages, as this process has them."""
    return {name: _version(name) for name in ("python", "tilewright", *packages)}


def _ask_scheduler(client: Client, expected: Expected) -> object:
    """Ask the scheduler for its complaints; the error where it cannot even be asked."""
    try:
        return client.run_on_scheduler(complaints, expected)
    except Exception as err:
        return err


def _told(answer: object) -> tuple[str, ...]:
    """Complaints of a process, or why it could not be asked."""
    if isinstance(answer, tuple):
        return tuple(str(text) for text in answer)
    if isinstance(answer, ModuleNotFoundError):
        return (f"{answer}: tilewright is not installed there",)
    return (f"no answer to be compared: {type(answer).__name__}: {answer}",)


def _differences(wanted: Mapping[str, str]) -> list[str]:
    """Versions of this process that are not what is wanted, in words."""
    return [
        f"{name} {found} instead of {version}"
        for name, version in wanted.items()
        if not _same(found := _version(name), version)
    ]


def _same(found: str, wanted: str) -> bool:
    """Whether two versions are the same; of code, where digests or files are."""
    return bool({*found.split()} & {*wanted.split()})


def _networks(job: Job) -> tuple[Network, ...]:
    """Files of all networks of a job."""
    found = []
    if job.model is not None:
        found.append(Network("model", job.model.path, job.model.sha256))
    if job.ensemble is not None:
        found.append(Network("ensemble", job.ensemble.path, job.ensemble.sha256))
    if job.mae is not None:
        found.append(Network("masked autoencoder", job.mae.path, job.mae.sha256))
    if job.bank:
        found.append(Network("bank of defenses", job.bank, job.bank_sha256))
    return tuple(found)


def _lacks(network: Network) -> str:
    """Say what is wrong with the files of a network here, or nothing."""
    try:
        found = _OPENERS[network.kind](str(network.path))
    except (RefusedError, OSError) as err:
        return f"{network.kind} '{network.path}' cannot be read: {err}"
    if found.sha256 != network.sha256:
        return f"{network.kind} '{network.path}' has other bytes than here"
    return ""


def _version(name: str) -> str:
    """Version of Python, of a package, or of our own code, in this process."""
    if name == "python":
        return ".".join(platform.python_version_tuple()[:2])
    if name == "code":
        return _code()
    try:
        # A build for another device is the same version: 2.13.0+cpu.
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "none"


@cache
def _code() -> str:
    """Digest of our own sources, and where they lie, as this process first found them.

    The same files may have another digest by now: whoever edits them while a cluster runs knows.
    """
    digest = hashlib.sha256()
    engine, tiling = (Path(find_spec(name).origin or "") for name in ("engine", "tiling"))  # type: ignore[union-attr] # this module is of the one and needs the other
    for root in (engine.parent, tiling.parent):
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return f"{digest.hexdigest()[:12]} {engine}:{engine.stat().st_ino}"

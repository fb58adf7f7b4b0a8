"""Workers as jobs of a Slurm batch system, with the scheduler in this process."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client

from engine.cluster import configuration
from engine.cluster.arriving import meet_workers
from engine.cluster.configuration import passed_environment, server_environment
from engine.cluster.extras import require
from engine.cluster.local import quiet_terminal
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cluster.spec import ClusterSpec

WHERE = "--cluster slurm"

#: Seconds after which a worker ends that has lost its scheduler: the end of the run, however.
DEATH_TIMEOUT_S = 60

#: Variables of this process that every job gets; all others only where they are listed.
_PASSED = ("PATH", "HOME", "USER", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")


def check(spec: ClusterSpec) -> None:
    """Refuse where there is no Slurm, or where it would not take such a job."""
    for command in ("sinfo", "sbatch", "scancel"):
        if shutil.which(command) is None:
            raise ResourceError(
                where=WHERE,
                expected="the commands of Slurm",
                found=f"no {command} on this machine",
                remedy="Run it on a login node of the batch system.",
            )
    silent = _ask("sinfo", "--noheader")
    if silent is not None:
        raise ResourceError(
            where=WHERE,
            expected="a controller of Slurm that answers sinfo",
            found=silent,
            remedy="Run it on a login node of the batch system, or name its configuration in "
            "SLURM_CONF; `scontrol ping` says whether the controller is up.",
        )
    script = _job(spec).job_script()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.sh"
        file.write_text(script, encoding="utf-8")
        refused = _ask("sbatch", "--test-only", str(file))
    if refused is not None:
        raise ResourceError(
            where=WHERE,
            expected="a batch system that takes the job",
            found=refused,
            remedy="See `sinfo` for partitions and their limits, and change partition, account, "
            "walltime, worker_cores or worker_memory_gib.",
        )


def _ask(*command: str) -> str | None:
    """Say what a command of Slurm complains of; None where all is well."""
    try:
        tried = subprocess.run(
            command, capture_output=True, text=True, check=False,
            timeout=configuration.CONNECT_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer of {command[0]}"
    if tried.returncode == 0:
        return None
    return " ".join(tried.stderr.split()) or "a refusal without words"


@contextmanager
def start(spec: ClusterSpec) -> Iterator[Client]:
    """Submit jobs, wait for the first worker, and cancel all when the block ends.

    Raises
    ------
    ResourceError
        If Slurm does not take the jobs, no worker comes in time, or versions differ.
    """
    check(spec)
    quiet_terminal()
    settings = spec.settings
    jobqueue = require("dask_jobqueue", "slurm")
    listening: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    if settings.host is not None:
        listening["host"] = settings.host
    with jobqueue.SLURMCluster(
        scheduler_options=listening, silence_logs=False, **_arguments(spec)
    ) as cluster:
        if settings.adapt_min is not None:
            cluster.adapt(minimum=settings.adapt_min, maximum=settings.adapt_max)
        else:
            cluster.scale(spec.wanted_workers)
        with Client(
            cluster, timeout=configuration.CONNECT_TIMEOUT_S, set_as_default=False
        ) as client:
            remedy = "See `squeue --me` for the reason, or raise wait_s."
            meet_workers(client, WHERE, spec.wait_s, remedy)
            client.forward_logging("engine")
            yield client


def _job(spec: ClusterSpec) -> Any:  # noqa: ANN401 - a type of the extra
    """Job of one worker, for a scheduler whose address is not known yet."""
    jobs = require("dask_jobqueue.slurm", "slurm")
    return jobs.SLURMJob("tcp://127.0.0.1:8786", name="check", **_arguments(spec))


def _arguments(spec: ClusterSpec) -> dict[str, Any]:
    """Arguments of a job: what is not set comes from ``jobqueue.slurm`` of Dask's configuration.

    Variables of this process reach the job by ``--export``, so that no secret stands in its
    script; others do by the script.
    """
    settings = spec.settings
    secret = passed_environment(settings.model_copy(update={"environment": {}}))
    exported = [*_PASSED, *secret]
    told = server_environment(settings.model_copy(update={"pass_environment": ()}))
    directives = [f"--export={','.join(exported)}"]
    directives += [f"--gres=gpu:{settings.gpus}"] if settings.gpus else []
    cores = None if settings.worker_cores is None else max(1, round(settings.worker_cores))
    return {
        "queue": settings.partition,
        "account": settings.account,
        "walltime": settings.walltime,
        "interface": settings.interface,
        "log_directory": settings.log_folder,
        "processes": 1,
        "cores": spec.threads,
        "job_cpu": cores,
        "memory": f"{settings.worker_memory_gib}GiB",
        "python": sys.executable,
        # `python -m dask worker`; the script dask-worker is no more.
        "worker_command": "dask worker",
        "worker_extra_args": ["--nanny", "--no-dashboard"],
        "death_timeout": DEATH_TIMEOUT_S,
        "job_script_prologue": [f"export {k}={shlex.quote(v)}" for k, v in told.items()],
        "job_extra_directives": directives,
    }

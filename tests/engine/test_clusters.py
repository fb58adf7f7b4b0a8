"""Clusters as far as no server is needed: settings, descriptions, refusals."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command, commands_in
from hypothesis import given
from hypothesis import strategies as st
from journeys import save_image
from kubernetes_stub import Stub, kubernetes_stub

import engine.api
import engine.device
from engine.cluster import ClusterSettings, ClusterSpec, Expected, complaints, open_cluster
from engine.cluster.configuration import server_environment
from engine.cluster.kubernetes import cluster_description
from engine.cluster.leaving import ended
from engine.cluster.quota import needs, quantity, shortfalls
from engine.device import visible_gpus
from engine.errors import RecipeError, ResourceError
from engine.planning import make_plan
from engine.planning.cost import choose_workers
from engine.recipe import Resources, load_cluster_settings, load_settings, with_cluster
from engine.recipe.clusters import KEYS

#: The client keeps the last namespace in a process.
HERE = ("namespace=default",)
KUBE = ("worker_memory_gib=2", "image=registry/tilewright:0.1.0")


def spec(backend: str, *settings: str, threads: int = 2) -> ClusterSpec:
    return ClusterSpec(backend, 1, threads, load_cluster_settings(backend, settings))


# --- settings ----------------------------------------------------------------------------------


def test_every_setting_belongs_to_a_cluster() -> None:
    assert set().union(*KEYS.values()) == set(ClusterSettings.model_fields)


@pytest.mark.parametrize(
    ("cluster", "settings", "fragments"),
    [
        ("nonsense", (), ("--cluster nonsense", "gateway, kubernetes, slurm")),
        ("local", ("workers=2",), ("A local cluster has none",)),
        ("tcp://h:1", ("workers=2",), ("Known here: wait_s",)),
        ("gateway", (), ("how many workers", "--workers 4")),
        ("gateway", ("workers=0",), ("--cluster-set workers", "greater than or equal to 1")),
        ("gateway", ("workers=two",), ("--cluster-set workers", "'two'")),
        ("gateway", ("workers=2", "adapt_min=1", "adapt_max=2"), ("not both",)),
        ("gateway", ("adapt_min=1",), ("adapt_min and adapt_max together",)),
        ("gateway", ("workers=2", "environment=3"), ("--cluster-set environment",)),
        ("gateway", ("workers=2", "environment.A-B=3"), ("names of variables", "A-B")),
        ("gateway", ("workers=2", "image=a{"), ("an image with a tag", "a{")),
        ("gateway", ("workers=[",), ("a YAML value",)),
        ("kubernetes", ("workers=1", KUBE[1]), ("the memory of a worker",)),
        ("kubernetes", ("workers=1", KUBE[0]), ("the image of scheduler and workers",)),
        ("kubernetes", ("workers=1", *KUBE, "namespace=A_b"), ("--cluster-set namespace", "A_b")),
        ("slurm", ("workers=1", "worker_memory_gib=1", "walltime=long"), ("walltime", "long")),
        ("slurm", ("workers=1", "worker_memory_gib=1", "leave=true"), ("(slurm)", "'leave'")),
    ],
)
def test_settings_that_are_refused(
    cluster: str, settings: tuple[str, ...], fragments: tuple[str, ...]
) -> None:
    with pytest.raises(RecipeError) as refused:
        load_cluster_settings(cluster, settings)
    for fragment in fragments:
        assert fragment in str(refused.value)


@pytest.mark.parametrize(("address", "found"), [("slurm", "memory"), ("nonsense", "tcp://host")])
def test_a_cluster_that_cannot_be_started(address: str, found: str) -> None:
    with pytest.raises(RecipeError, match=found):
        ClusterSpec(address, 1, 1)


def test_texts_stay_as_they_are_written() -> None:
    words = ("worker_memory_gib=4", "walltime=1:30:00", "environment.LEVEL=010", "account=007")
    found = load_cluster_settings("slurm", words, workers=3)
    assert (found.workers, found.walltime, found.account) == (3, "1:30:00", "007")
    assert found.environment == {"LEVEL": "010"}


def test_a_plan_is_made_for_the_workers_that_will_be_there() -> None:
    asked = load_cluster_settings("gateway", ("adapt_min=1", "adapt_max=4", "worker_memory_gib=10"))
    found = with_cluster(Resources(), "gateway", asked)
    assert found.workers == 4
    assert found.memory_gib == pytest.approx(36)
    assert with_cluster(Resources(memory_gib=5, workers=2), "gateway", asked).memory_gib == 5
    assert with_cluster(Resources(), "local", ClusterSettings()) == Resources()


def test_gpus_of_workers_are_planned_for_without_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nuclei: np.ndarray
) -> None:
    monkeypatch.setattr(engine.device, "_has_cuda", lambda: False)
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    size = ("workers=2", "worker_memory_gib=16")
    out = tmp_path / "OUT.ome.zarr"
    with_gpus = engine.api.plan(image, out, cluster="gateway", cluster_set=(*size, "gpus=1"))
    assert with_gpus.job.launch is not None
    assert with_gpus.job.launch.device == "cuda"
    without = engine.api.plan(image, out, cluster="gateway", cluster_set=size)
    assert without.job.launch is not None
    assert without.job.launch.device == "cpu"
    with pytest.raises(ResourceError, match="an NVIDIA GPU and its driver"):
        engine.api.plan(image, out, overrides=["resources.device=cuda"])


def test_only_listed_variables_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "file")
    asked = ("workers=1", "pass_environment=AWS_*", "environment.AWS_REGION=us")
    found = server_environment(load_cluster_settings("gateway", asked))
    assert found["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert found["AWS_REGION"] == "us"
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in found
    assert found["DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT"] == "1800s"
    assert found["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "10"
    assert found["OMP_NUM_THREADS"] == "1"


# --- GPUs of this machine ----------------------------------------------------------------------


def test_gpus_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine.device, "PROC", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ()
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "driver/nvidia/gpus" / name).mkdir(parents=True)
    assert visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5f")
    assert visible_gpus() == ("3", "GPU-5f")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()


def test_one_worker_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nuclei: np.ndarray
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    settings = load_settings("nuclei", ["storage.chunk=64", "storage.shard=64"])
    job = make_plan(str(image), tmp_path / "OUT.ome.zarr", settings).job
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr("engine.planning.cost.cores", lambda: 7)
    assert job.launch is not None
    plenty = Resources(memory_gib=1000)
    assert choose_workers(job.with_launch(replace(job.launch, device="cuda")), plenty) == 3
    assert choose_workers(job.with_launch(replace(job.launch, device="cpu")), plenty) == 7


# --- Slurm -------------------------------------------------------------------------------------


def test_a_job_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    from engine.cluster.slurm import _job

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    words = ("workers=2", "worker_memory_gib=6", "worker_cores=2", "gpus=1", "partition=long")
    more = ("walltime=2:00:00", "account=lab", "pass_environment=AWS_*", "environment.A=b c")
    script = _job(spec("slurm", *words, *more, threads=3)).job_script()
    lines = script.splitlines()
    for line in ("-p long", "-A lab", "-t 2:00:00", "--mem=6G", "--cpus-per-task=2", "-n 1"):
        assert f"#SBATCH {line}" in lines
    assert "#SBATCH --gres=gpu:1" in lines
    exported = next(line for line in lines if "--export=" in line)
    assert exported.endswith(",AWS_SECRET_ACCESS_KEY")
    assert "hush" not in script
    assert "export A='b c'" in lines
    assert "export OMP_NUM_THREADS=1" in lines
    assert f"{sys.executable} -m dask worker tcp://127.0.0.1:8786" in lines[-1]
    assert "--nthreads 3" in lines[-1]
    assert "--death-timeout 60" in lines[-1]
    # Dask's own parser takes the line.
    words = lines[-1].split()
    done = subprocess.run([*words[:4], *words[5:], "--help"], capture_output=True, check=False)
    assert done.returncode == 0


def test_no_slurm_here(monkeypatch: pytest.MonkeyPatch, tilewright: Command) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(tilewright, "slurm", "worker_memory_gib=2").refuses("no sinfo", "login node")


@pytest.mark.parametrize(
    ("failing", "fragments"),
    [
        ("sinfo", ("a controller of Slurm", "cannot find the host", "scontrol ping")),
        ("sbatch", ("takes the job", "cannot find the host", "partition, account")),
    ],
)
def test_slurm_that_refuses(
    monkeypatch: pytest.MonkeyPatch, tilewright: Command, failing: str, fragments: tuple[str, ...]
) -> None:
    for command in ("sinfo", "sbatch", "scancel"):
        file = Path(command)
        words = "echo cannot find >&2; echo the host >&2; exit 1" if command == failing else ":"
        file.write_text(f"#!/bin/sh\n{words}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(Path.cwd()), prepend=":")
    refused(tilewright, "slurm", "worker_memory_gib=2").refuses(*fragments)


# --- Kubernetes --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    pytest.importorskip("dask_kubernetes")
    known = Stub()
    with (
        pytest.MonkeyPatch.context() as patch,
        kubernetes_stub(known, tmp_path_factory.mktemp("stub")) as config,
    ):
        patch.setenv("KUBECONFIG", str(config))
        yield known


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> None:
    """Let the server know again what it knew."""
    if "stub" in request.fixturenames:
        known = request.getfixturevalue("stub")
        for field in fields(Stub):
            setattr(known, field.name, getattr(Stub(), field.name))


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


def refused(tilewright: Command, cluster: str, *settings: str) -> Any:
    """Answer of a run that should not start."""
    save_image(Path("image.ome.zarr"), np.arange(64 * 64, dtype="u1").reshape(64, 64))
    words = [word for setting in settings for word in ("--cluster-set", setting)]
    words = ["--workers", "4", "--cluster", cluster, *words]
    return tilewright("run", "image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity", *words)


@pytest.mark.parametrize(
    ("known", "settings", "fragments"),
    [
        ({}, ("namespace=lab",), ("namespace lab", "kubectl create namespace lab")),
        ({"operator": False}, HERE, ("the Dask operator", "daskclusters")),
        ({"forbidden": ("daskclusters",)}, HERE, ("forbidden", "kubectl auth can-i")),
    ],
)
def test_what_kubernetes_lacks(
    stub: Stub,
    tilewright: Command,
    known: dict[str, Any],
    settings: tuple[str, ...],
    fragments: tuple[str, ...],
) -> None:
    for name, value in known.items():
        setattr(stub, name, value)
    refused(tilewright, "kubernetes", *KUBE, *settings).refuses(*fragments)


def test_a_quota_that_is_too_small(stub: Stub, tilewright: Command) -> None:
    status = {"hard": {"limits.memory": "9Gi", "pods": "80"}, "used": {"limits.memory": "1Gi"}}
    metadata = {"name": "lab", "namespace": "default"}
    stub.quotas = [{"kind": "ResourceQuota", "metadata": metadata, "status": status}]
    answer = refused(tilewright, "kubernetes", *KUBE, *HERE)
    # Four workers of 2 GiB, and the scheduler.
    answer.refuses("limits.memory: 10.0Gi wanted, 8.0Gi left of 9Gi (quota 'lab')")


# The operator's client leaves the cluster that it could not make to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_that_kubernetes_does_not_take(stub: Stub) -> None:
    stub.refusal = "admission webhook denied the request"
    asked = spec("kubernetes", "workers=1", *KUBE, *HERE, "wait_s=5")
    with pytest.raises(ResourceError, match="admission webhook denied"), open_cluster(asked):
        pass
    made = {path for path in stub.asked if path.startswith("POST")}
    assert made == {"POST /apis/kubernetes.dask.org/v1/namespaces/default/daskclusters"}
    # It looks whether there is something to remove.
    assert "daskclusters" in stub.asked[-1]
    gc.collect()


def test_no_kubernetes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tilewright: Command
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    answer = refused(tilewright, "kubernetes", *KUBE)
    answer.refuses(f"none in {tmp_path / 'none'}", "Set KUBECONFIG")
    assert not Path("OUT.ome.zarr").exists()


def test_a_cluster_as_the_operator_is_told() -> None:
    pytest.importorskip("dask_kubernetes")
    words = ("workers=3", *KUBE, "worker_cores=2", "gpus=1", "secret=store", "spot=true")
    described = cluster_description(spec("kubernetes", *words), "tilewright-1")
    parts = described["spec"]
    scheduler, worker = parts["scheduler"]["spec"], parts["worker"]["spec"]
    first, second = scheduler["containers"][0], worker["containers"][0]
    assert first["args"][:2] == ["dask", "scheduler"]
    assert second["args"][:4] == ["dask", "worker", "--nthreads", "2"]
    assert parts["idleTimeout"] == 1800
    assert parts["worker"]["replicas"] == 3
    assert second["resources"]["limits"] == {"cpu": "2", "memory": "2Gi", "nvidia.com/gpu": "1"}
    assert second["envFrom"] == first["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in second["env"]
    assert len(worker["tolerations"]) == 3
    assert not worker["automountServiceAccountToken"]


def test_the_description_fits_the_schemas() -> None:
    dask_kubernetes = pytest.importorskip("dask_kubernetes")
    validate = pytest.importorskip("kubernetes_validate")
    jsonschema = pytest.importorskip("jsonschema")
    import yaml

    words = ("workers=3", *KUBE, "gpus=1", "secret=store", "service_account=runner")
    described = cluster_description(spec("kubernetes", *words), "tilewright-1")
    root = Path(dask_kubernetes.__file__).parent
    files = [file for file in root.rglob("daskcluster.yaml") if file.parent.name == "crds"]
    assert files
    for file in files:
        versions = yaml.safe_load(file.read_text())["spec"]["versions"]
        schema = versions[0]["schema"]["openAPIV3Schema"]
        assert not list(jsonschema.Draft202012Validator(schema).iter_errors(described))
    for part in ("scheduler", "worker"):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": described["spec"][part]["spec"],
        }
        validate.validate(pod, "1.33", strict=True)


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Ki", "Mi", "Gi", "G"]))
def test_quantities(number: int, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == number * quantity(f"1{suffix}")


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "one"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="a quantity such as"):
        quantity(text)


def test_what_a_cluster_takes_of_a_quota() -> None:
    pytest.importorskip("dask_kubernetes")
    found = needs(cluster_description(spec("kubernetes", "workers=3", *KUBE), "tilewright-1"))
    assert found["pods"] == 4
    assert found["requests.memory"] == found["memory"] == 8 * 2**30
    full = {"metadata": {"name": "q"}, "status": {"hard": {"pods": "4", "cpu": "3500m"}}}
    assert list(shortfalls(found, [full])) == ["cpu: 4 wanted, 3.5 left of 3500m (quota 'q')"]


# --- what a worker must have -------------------------------------------------------------------


def test_a_process_complains_of_what_differs() -> None:
    assert complaints(Expected((("numpy", np.__version__),))) == ()
    (told,) = complaints(Expected((("numpy", "1.0"),)))
    assert told == f"numpy {np.__version__} instead of 1.0"
    assert complaints(Expected((("no-such-package", "1"),))) == (
        "no-such-package none instead of 1",
    )


def test_code_is_the_same_by_its_bytes_or_its_place() -> None:
    from engine.cluster.inspection import _code, _same

    digest, place = _code().split()
    assert _same(f"{digest} /elsewhere:1", _code())
    assert _same(f"0123 {place}", _code())
    assert not _same("0123 /elsewhere:1", _code())


def test_no_variable_to_pass() -> None:
    asked = ("workers=1", "pass_environment=NOT_SET_ANYWHERE_*")
    with pytest.raises(ResourceError, match="NOT_SET_ANYWHERE"):
        server_environment(load_cluster_settings("gateway", asked))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("ours", [False, True])
def test_a_cluster_is_ended_or_left(
    caplog: pytest.LogCaptureFixture, ours: bool, leave: bool, fails: bool
) -> None:
    """One that is to be left is ended by an error only where this run started it."""
    settings = ClusterSettings(name=None if ours else "fish", leave=leave)
    stops: list[str] = []
    with (
        pytest.raises(KeyboardInterrupt) if fails else nullcontext(),
        ended("fish", settings, lambda: stops.append("fish")),
    ):
        if fails:
            raise KeyboardInterrupt
    stays = leave and not (fails and ours)
    assert stops == ([] if stays else ["fish"])
    assert ("cluster fish is left" in caplog.text) == (leave and not fails)


def test_a_cluster_that_cannot_be_ended_does_not_hide_why_the_run_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> None:
        raise OSError("gone")

    with pytest.raises(ValueError, match="first"), ended("fish", ClusterSettings(), refuse):
        raise ValueError("first")
    assert "cluster fish could not be stopped" in caplog.text

"""The public functions: ingest, plan, run and evaluate, as the command line calls them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.device import Launch
from engine.errors import InputError, OutputError, RecipeError, ResourceError
from engine.planning import Wish, make_ingest_plan, make_plan, with_marks
from engine.recipe import (
    Resources,
    Storage,
    backend_of,
    load_cluster_settings,
    load_settings,
    with_cluster,
)
from engine.store import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.checking import Depth
    from engine.evaluation import Evaluation
    from engine.evaluation.labels import LabelArray
    from engine.planning import Job, Plan
    from engine.recipe import ClusterSettings, Settings
    from engine.running import Listener, Outcome
    from engine.verifying import Verification
    from tiling import Box

Check = Literal["records", "listing", "bytes"]


class Silent:
    """A listener that tells nobody."""

    def waiting(self, reason: str) -> None:
        """Do nothing."""

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Do nothing."""

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Do nothing."""

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Do nothing."""

    def region_failed(self, failure: object) -> None:
        """Do nothing."""


def plan(
    image: str | Path,
    out: str | Path,
    recipe: str | Path | Settings = "nuclei",
    *,
    overrides: Sequence[str] = (),
    within: Box | None = None,
    restart: bool = False,
    recompute: str | None = None,
    check: Check = "records",
    cluster: str = "local",
    cluster_set: Sequence[str] = (),
) -> Plan:
    """Say what a run would do and cost; writes nothing.

    Parameters
    ----------
    image : str or Path
        An OME-Zarr image.
    out : str or Path
        Where the result would go; a run that stands there would be continued.
    recipe : str, Path or Settings
        Name of a bundled recipe, path of a recipe file, or settings already parsed.
    overrides : sequence of str
        Settings such as ``"tiling.overlap=96"``; only with a name or path.
    within : Box or None
        Part of every plane (y, x), in pixels of the level that is read.
    restart : bool
        Make everything anew, beside what stands in OUT, and replace that when it is complete.
    recompute : str or None
        Make one kind of pass, and what depends on it, anew in the same way: "statistics",
        "regions", "flags", "labels", "repair", "objects", "copy", "pyramid"; or "changed" for what
        other settings reach.
    check : {'records', 'listing', 'bytes'}
        How closely what stands is looked at: trust the records; ask the store for every object,
        of the image too; or decode all of them.
    cluster, cluster_set
        As in `run`: how many workers with how much memory are planned for.

    Returns
    -------
    Plan

    Raises
    ------
    RefusedError
        If it cannot be done, with where, what was expected, what was found and what to do.

    Examples
    --------
    >>> import engine
    >>> engine.plan("cells.ome.zarr", "out.ome.zarr").regions  # doctest: +SKIP
    4
    """
    if isinstance(recipe, str | Path):
        settings = load_settings(str(recipe), overrides)
    elif overrides:
        raise RecipeError(
            where="overrides",
            expected="none beside settings that are already parsed",
            found=", ".join(overrides),
            remedy="Give the recipe by name or path, or change the settings themselves.",
        )
    else:
        settings = recipe
    wish = Wish(restart, recompute)
    trust = check == "records"
    known = load_cluster_settings(cluster, cluster_set, settings.resources.workers)
    resources = with_cluster(settings.resources, cluster, known)
    settings = settings.model_copy(update={"resources": resources})
    prepared = make_plan(str(image), out, settings, within, wish, trust_input=trust)
    return checked(prepared, check)


def checked(
    prepared: Plan, check: str, tell: Callable[[str, int], None] = lambda _name, _done: None
) -> Plan:
    """Plan that computes again what a check finds missing, damaged or changed.

    Parameters
    ----------
    prepared : Plan
        As made from the records.
    check : {'records', 'listing', 'bytes'}
        How closely to look.
    tell : callable
        Is told the pass and the regions that were looked at since it was last told.

    Raises
    ------
    RefusedError
        If the check is none of these, or a store does not answer.
    """
    if check not in ("records", "listing", "bytes"):
        raise RecipeError(
            where=f"--check {check}",
            expected="records, listing or bytes",
            found=check,
            remedy="records trusts the records, listing asks for every object, bytes decodes them.",
        )
    if check == "records" or not prepared.choice.started:
        return prepared
    from engine.checking import check_inputs, check_outputs, joined, kept_passes

    depth: Depth = "bytes" if check == "bytes" else "listing"
    document = prepared.document()
    passes = kept_passes(document)
    tables = document.get("tables_at", {})
    outputs = check_outputs(prepared.job.out, passes, depth, tables, tell)
    inputs = check_inputs(prepared.job, passes, depth, tell)
    return with_marks(prepared, joined(outputs, inputs).marks)


def run(
    image: str | Path,
    out: str | Path,
    recipe: str | Path | Settings = "nuclei",
    *,
    overrides: Sequence[str] = (),
    within: Box | None = None,
    restart: bool = False,
    recompute: str | None = None,
    check: Check = "records",
    cluster: str = "local",
    cluster_set: Sequence[str] = (),
    listener: Listener | None = None,
) -> Outcome:
    """Run a recipe on an image, or continue where it stopped.

    Parameters
    ----------
    image, out, recipe, overrides, within, restart, recompute, check
        As in `plan`.
    cluster : str
        "local" starts worker processes here; "gateway", "kubernetes" and "slurm" have a server
        start them; else the address of a Dask scheduler.
    cluster_set : sequence of str
        Settings of the cluster such as ``"workers=8"``; see `engine.recipe.ClusterSettings`.
    listener : Listener or None
        Is told of progress.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If it cannot be done; nothing is written then.
    InterruptedRunError
        If it is stopped; what is done stays done.

    Notes
    -----
    Starts processes: in a script, call it below ``if __name__ == "__main__":``.
    """
    prepared = plan(
        image,
        out,
        recipe,
        overrides=overrides,
        within=within,
        restart=restart,
        recompute=recompute,
        check=check,
        cluster=cluster,
        cluster_set=cluster_set,
    )
    known = load_cluster_settings(cluster, cluster_set, prepared.resources.workers)
    return run_plan(prepared, cluster, listener, known)


def run_plan(
    prepared: Plan,
    cluster: str,
    listener: Listener | None = None,
    cluster_settings: ClusterSettings | None = None,
) -> Outcome:
    """Run a plan that was already made; see `run`."""
    from engine.running import execute  # planning needs no scheduler

    check_networks(prepared, cluster)
    check_workers(prepared.resources, cluster)
    if cluster != "local":
        _check_cluster(prepared, cluster, cluster_settings)
    return execute(prepared, cluster, listener or Silent(), cluster_settings)


def check_workers(resources: Resources, cluster: str) -> None:
    """Refuse a number of workers for a cluster that has its own.

    Raises
    ------
    RecipeError
        If one is asked for at the address of a scheduler.
    """
    if backend_of(cluster) == "address" and resources.workers is not None:
        raise RecipeError(
            where="--workers",
            expected="none with --cluster tcp://, whose workers are there already",
            found=str(resources.workers),
            remedy="Start as many workers as wanted, or use --cluster local.",
        )


def check_networks(prepared: Plan, cluster: str) -> None:
    """Refuse networks that cannot run, before every region finds out.

    Raises
    ------
    ModelError
        If weights do not fit their configuration.
    ResourceError
        If the workers are here and torch cannot use the device.
    """
    if prepared.job.launch is not None and prepared.pending:
        _check_weights(prepared.job)
        if cluster == "local":
            _check_device(prepared)


def _check_weights(job: Job) -> None:
    """Refuse weights that do not fit their configuration here, before every region finds out."""
    # Planning needs no torch.
    from engine.networks.ensemble_runtime import open_member
    from engine.networks.mae_weights import load_mae
    from engine.networks.stardist import load_network

    if job.model is not None:
        load_network(job.model)
    for member in job.ensemble.members if job.ensemble else ():
        open_member(member, Launch("cpu", "float32", 1))
    if job.mae is not None:
        load_mae(job.mae)


def _check_device(prepared: Plan) -> None:
    """Refuse a run on a GPU that the installed torch cannot use.

    Raises
    ------
    ResourceError
        If it cannot.
    """
    import torch

    launch = prepared.job.launch
    if launch is not None and launch.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            where="--device",
            expected="a torch that can use the GPU of this machine",
            found=f"torch {torch.__version__}, which cannot",
            remedy="Install a CUDA build of torch, or use --device cpu.",
        )


def ingest(
    source: str | Path,
    dest: str | Path,
    *,
    pixel_size_um: float | None = None,
    storage: Storage | None = None,
    resources: Resources | None = None,
    overwrite: bool = False,
    cluster: str = "local",
    cluster_set: Sequence[str] = (),
    listener: Listener | None = None,
) -> Outcome:
    """Copy a foreign image into OME-Zarr 0.5, or continue a copy that stopped.

    Parameters
    ----------
    source : str or Path
        TIFF, OME-TIFF, ImageJ stack, slide, PNG, JPEG, or a folder or glob of equal frames.
    dest : str or Path
        Where the image goes; its name ends in ``.ome.zarr``.
    pixel_size_um : float or None
        Side of a pixel in micrometres, in place of what the source says.
    storage : Storage or None
        Chunk and shard.
    resources : Resources or None
        Workers, threads and memory.
    overwrite : bool
        Make the image anew beside one that an ingest made there before, and replace that when
        the new one is complete.
    cluster, cluster_set, listener
        As in `run`.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If the source cannot be taken; nothing is written then.
    """
    given = resources or Resources()
    known = load_cluster_settings(cluster, cluster_set, given.workers)
    given = with_cluster(given, cluster, known)
    prepared = plan_ingest(source, dest, pixel_size_um, storage, given, overwrite=overwrite)
    return run_plan(prepared, cluster, listener, known)


def plan_ingest(
    source: str | Path,
    dest: str | Path,
    pixel_size_um: float | None,
    storage: Storage | None,
    resources: Resources | None,
    *,
    overwrite: bool,
) -> Plan:
    """Plan an ingest; see `ingest`."""
    return make_ingest_plan(
        str(source),
        dest,
        storage or Storage(),
        resources or Resources(),
        pixel_size_um,
        overwrite=overwrite,
    )


def _check_cluster(prepared: Plan, address: str, settings: ClusterSettings | None) -> None:
    """Refuse what cannot be reached or is out of limits, before the run leaves its first trace."""
    from engine.cluster import check_cluster  # planning needs no scheduler
    from engine.running.execution import cluster_spec

    check_cluster(cluster_spec(prepared, address, settings), prepared.job)


def verify(
    out: str | Path,
    *,
    repair: bool = False,
    check: str = "bytes",
    tell: Callable[[str, int], None] = lambda _name, _done: None,
    listener: Listener | None = None,
) -> Verification:
    """Compare every stored object of a result with its record.

    Parameters
    ----------
    out : str or Path
        A result of `run` or `ingest`, on a disk or in a bucket.
    repair : bool
        Mark what is missing or damaged: the run, given again, computes it again.
    check : {'listing', 'bytes'}
        Whether objects are only looked for, with size and tag, or decoded too.
    tell : callable
        Is told the pass and the regions that were looked at since it was last told.
    listener : Listener or None
        Is told why a repair waits.

    Returns
    -------
    Verification

    Raises
    ------
    RecipeError
        If the check is none of these.
    OutputError
        If there is no result, a record cannot be read, or another driver is at work there.
    """
    from engine.verifying import verify_result

    if check not in ("listing", "bytes"):
        raise RecipeError(
            where=f"--check {check}",
            expected="listing or bytes",
            found=check,
            remedy="listing asks for every object, bytes decodes them too.",
        )
    depth: Depth = "bytes" if check == "bytes" else "listing"
    place = Location.parse(out, OutputError)
    told = listener or Silent()
    return verify_result(place, depth, repair=repair, tell=tell, waiting=told.waiting)


def evaluate(
    pred: str | Path | LabelArray,
    truth: str | Path | LabelArray,
    thresholds: Sequence[float] | None = None,
) -> Evaluation:
    """Score labels against truth: F1 and more over IoU, Dice, pixel IoU, HD95.

    Parameters
    ----------
    pred, truth : str, Path or array of integers (..., Y, X)
        A result of `run`, an OME-Zarr label image, a label TIFF or PNG; or arrays, also such as
        lie on disk. Both must be paths or both arrays.
    thresholds : sequence of float or None
        IoU from which an object counts as found, in [0.5, 1]; 0.5, 0.55, … 0.95 where None.

    Returns
    -------
    Evaluation
        `as_json` gives it as a list of objects, one for each threshold.

    Raises
    ------
    InputError
        If the labels cannot be read or do not fit each other.
    """
    from engine.evaluation import evaluate as evaluate_arrays
    from engine.evaluation import evaluate_paths
    from engine.evaluation.scoring import THRESHOLDS

    wanted = THRESHOLDS if thresholds is None else thresholds
    if isinstance(pred, str | Path) and isinstance(truth, str | Path):
        return evaluate_paths(str(pred), str(truth), wanted)
    if isinstance(pred, str | Path) or isinstance(truth, str | Path):
        raise InputError(
            where="evaluate",
            expected="two paths or two arrays",
            found=f"{type(pred).__name__} and {type(truth).__name__}",
            remedy="Open the labels of a result with engine.open_result.",
        )
    return evaluate_arrays(pred, truth, wanted)

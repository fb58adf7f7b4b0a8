"""The public functions: ingest, plan, run and evaluate, as the command line calls them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InputError, RecipeError, ResourceError
from engine.ledger import FOLDER
from engine.planning import make_ingest_plan, make_plan
from engine.recipe import Resources, Storage, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.evaluation import Evaluation
    from engine.evaluation.labels import LabelArray
    from engine.planning import Plan
    from engine.recipe import Settings
    from engine.running import Listener, Outcome
    from tiling import Box


class Silent:
    """A listener that tells nobody."""

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Do nothing."""

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Do nothing."""

    def region_done(self, name: str, pixels: int) -> None:
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
    return make_plan(str(image), out, settings, within)


def run(
    image: str | Path,
    out: str | Path,
    recipe: str | Path | Settings = "nuclei",
    *,
    overrides: Sequence[str] = (),
    within: Box | None = None,
    cluster: str = "local",
    listener: Listener | None = None,
) -> Outcome:
    """Run a recipe on an image, or continue where it stopped.

    Parameters
    ----------
    image, out, recipe, overrides, within
        As in `plan`.
    cluster : str
        "local" starts worker processes here; else the address of a Dask scheduler.
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
    return run_plan(plan(image, out, recipe, overrides=overrides, within=within), cluster, listener)


def run_plan(
    prepared: Plan, cluster: str, listener: Listener | None = None, *, overwrite: bool = False
) -> Outcome:
    """Run a plan that was already made; see `run`, and `ingest` for `overwrite`."""
    from engine.running import execute  # planning needs no scheduler

    if prepared.job.model is not None and prepared.pending:
        from engine.networks.stardist import load_network  # planning needs no torch

        # Weights that do not fit config.json are refused here, not found by every region.
        load_network(prepared.job.model)
        if cluster == "local":
            _check_device(prepared)
    if cluster != "local":
        if prepared.resources.workers is not None:
            raise RecipeError(
                where="--workers",
                expected="none with --cluster, whose workers are there already",
                found=str(prepared.resources.workers),
                remedy="Start as many workers as wanted, or use --cluster local.",
            )
        _check_cluster(cluster)
    if overwrite:
        # Only now, when nothing is left to refuse: a typo must not cost an image.
        _remove(prepared.job.out)
    return execute(prepared, cluster, listener or Silent())


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
        Remove an image that an ingest made there before, once the new one is known to be
        possible.
    cluster, listener
        As in `run`.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If the source cannot be taken; nothing is written then.
    """
    prepared = plan_ingest(source, dest, pixel_size_um, storage, resources, overwrite=overwrite)
    return run_plan(prepared, cluster, listener, overwrite=overwrite)


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


def _check_cluster(address: str) -> None:
    """Refuse an address at which nobody answers, before the run leaves its first trace."""
    from engine.cluster import ClusterSpec, open_cluster  # planning needs no scheduler

    with open_cluster(ClusterSpec(address, workers=1, threads=1)):
        pass


def _remove(out: Path) -> None:
    """Remove an image that an ingest made; its records last, so that this can be repeated."""
    for entry in out.iterdir() if out.is_dir() else ():
        if entry.name != FOLDER:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if out.is_dir():
        shutil.rmtree(out)


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

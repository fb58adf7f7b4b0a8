"""Plans: of a run of a recipe, and of an ingest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.api.clusters import on_cluster
from engine.api.looking import checked
from engine.errors import RecipeError
from engine.planning import Wish, make_ingest_plan, make_plan
from engine.planning.places import check_out
from engine.recipe import Resources, Storage, load_settings
from engine.store.sources import with_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.planning import Plan
    from engine.recipe import Settings
    from tiling import Box

Check = Literal["records", "listing", "bytes"]


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
        "regions", "flags", "labels", "repair", "join", "objects", "seams", "copy", "pyramid"; or
        "changed" for what other settings reach.
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
    settings, _ = on_cluster(settings, cluster, cluster_set)
    prepared = make_plan(str(image), out, settings, within, wish, trust_input=trust)
    return checked(prepared, check)


def plan_ingest(
    source: str | Path,
    dest: str | Path,
    pixel_size_um: float | None,
    axes: str | None,
    storage: Storage | None,
    resources: Resources | None,
    *,
    overwrite: bool,
) -> Plan:
    """Plan an ingest; see `ingest`."""
    address = with_axes(str(source), axes)
    if axes is not None:
        # An address with axes is no path that could hold DEST.
        check_out(dest, str(source))
    return make_ingest_plan(
        address,
        dest,
        storage or Storage(),
        resources or Resources(),
        pixel_size_um,
        overwrite=overwrite,
    )

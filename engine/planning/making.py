"""Plans made of what a user gives: an image or a foreign source, a place, settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InputError, RecipeError
from engine.ledger import Ledger
from engine.planning.editions import Wish
from engine.planning.jobs import (
    check_extent,
    copy_job,
    ingest_job,
    input_identity,
)
from engine.planning.network_jobs import keep_precision, network_job
from engine.planning.places import check_out, check_replaceable
from engine.planning.plan import Plan, finish
from engine.planning.probes import check_probe, probe_image
from engine.recipe import IdentityRecipe
from engine.store import Location, check_store, inspect_image
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.recipe import Resources, Settings, Storage


def make_plan(
    image: str,
    out: str | Path,
    settings: Settings,
    within: Box | None = None,
    wish: Wish = Wish(),  # noqa: B008 - frozen
    *,
    trust_input: bool = True,
) -> Plan:
    """Plan a run of a recipe.

    Parameters
    ----------
    image : str
        Path of an OME-Zarr image.
    out : str or Path
        Path of the result; a run that stands there is continued.
    settings : Settings
        Recipe, storage and resources.
    within : Box or None
        Part of every plane, in pixels of the level that is read; widened to whole shards.
    wish : Wish
        What to do where a run of other settings, or a complete one, stands in OUT.
    trust_input : bool
        Take the image for the one that the run was started with where a few of its objects are
        unchanged, and refuse otherwise; False where a check of all objects follows.

    Returns
    -------
    Plan

    Raises
    ------
    RefusedError
        If anything is wrong with the image, the recipe, the model, the place or the machine.
    """
    place = check_out(out, image)
    # A silent endpoint is told in seconds; the first read would try for minutes.
    check_store(Location.parse(image), InputError)
    info = inspect_image(image)
    if Location(info.path).is_local:
        # The same image by another name is the same.
        info = replace(info, path=str(Path(info.path).resolve()))
    recipe = settings.recipe
    level = recipe.input.level
    if level >= len(info.levels):
        raise RecipeError(
            where="input.level",
            expected=f"0 to {len(info.levels) - 1}, the levels of '{image}'",
            found=str(level),
            remedy="Choose one of the levels that the image has.",
        )
    extent = info.levels[level].shape[-2:]
    check_extent(image, extent)
    area = _area(within, extent, settings.storage.shard)
    if isinstance(recipe, IdentityRecipe):
        job, extra = copy_job(info, recipe, settings.storage)
    else:
        job, extra = network_job(info, keep_precision(recipe, Ledger(place)), settings)
    extra |= {
        **input_identity(info, level),
        "area": str(area),
        "storage.chunk": str(settings.storage.chunk),
        "storage.shard": str(settings.storage.shard),
    }
    prepared = finish(replace(job, out=place, area=area), extra, settings.resources, wish)
    probe = probe_image(info, level)
    if prepared.choice.started and trust_input:
        check_probe(image, prepared.document()["probe"], probe)
    return replace(prepared, probe=probe)


def make_ingest_plan(
    source: str,
    dest: str | Path,
    storage: Storage,
    resources: Resources,
    pixel_size_um: float | None = None,
    *,
    overwrite: bool = False,
) -> Plan:
    """Plan an ingest: a copy of a foreign file, folder or glob into OME-Zarr.

    Parameters
    ----------
    source : str
        File, folder or glob.
    dest : str or Path
        Path of the OME-Zarr image to make.
    storage : Storage
        Chunk and shard.
    resources : Resources
        What the machine gives.
    pixel_size_um : float or None
        Side of a pixel in micrometres, in place of what the source says.
    overwrite : bool
        Make the image anew beside the one that an earlier ingest made, and replace that in the
        end.

    Returns
    -------
    Plan

    Raises
    ------
    RefusedError
        If the source cannot be taken or the place not be used.
    """
    place = check_out(dest, source)
    if overwrite:
        check_replaceable(place)
    job, extra = ingest_job(source, storage, pixel_size_um)
    wish = Wish(restart=overwrite and Ledger(place).exists)
    return finish(replace(job, out=place), extra, resources, wish)


def _area(within: Box | None, extent: Sequence[int], shard: int) -> Box:
    """Part of every plane that is done: what was asked for, widened to whole shards."""
    bounds = Box.of_shape(extent)
    if within is None:
        return bounds
    if within.empty or not bounds.contains(within):
        raise RecipeError(
            where=f"--within {within}",
            expected=f"a box y0:y1,x0:x1 inside the image, {bounds}",
            found=str(within),
            remedy="Choose a part of the image.",
        )
    return within.snap(shard).clip(bounds)

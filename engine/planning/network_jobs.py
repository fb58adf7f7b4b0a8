"""Jobs of recipes that run networks: star-convex objects, class maps, or both from one read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.device import Launch, choose_device, choose_precision
from engine.planning.additions import Addition, find_channels
from engine.planning.class_jobs import add_classes
from engine.planning.elements import SourceRef
from engine.planning.job import Job
from engine.planning.jobs import NOWHERE
from engine.planning.layers import image_layer
from engine.planning.star_jobs import add_stars
from engine.recipe import NormaliseSettings, StarDistRecipe
from engine.stages.base import Frame
from engine.stages.normalise import Normalise

if TYPE_CHECKING:
    from engine.ledger import Ledger
    from engine.recipe import SemanticRecipe, Settings
    from engine.store import ImageInfo


def network_job(
    info: ImageInfo, recipe: StarDistRecipe | SemanticRecipe, settings: Settings
) -> tuple[Job, dict[str, str]]:
    """Job of a recipe that runs networks, with everything chosen that was left open."""
    channels = find_channels(info, recipe.input.channels)
    resources = settings.resources
    device = choose_device(resources.device, elsewhere=resources.elsewhere)
    recipe = _general(recipe, channels)
    level = recipe.input.level
    height, width = info.levels[level].shape[-2:]
    frame = Frame(info.plane_shape, (height, width), len(channels), info.dtype)
    ref = SourceRef(info.path, foreign=False, level=level, channels=channels)
    job = Job(NOWHERE, ref, frame, recipe, (), frame.bounds, settings.storage.shard, "")
    added = [Addition(facts={"stage.normalise": str(Normalise.version), "device": device})]
    if isinstance(recipe, StarDistRecipe):
        asked = recipe.segment.precision
        job, more = add_stars(job, recipe, info, settings)
        added.append(more)
    else:
        asked = recipe.classes.precision
    precision = choose_precision(asked, device)
    job = _with_precision(job, precision)
    job = replace(job, launch=Launch(device, precision, settings.resources.launch or 1))
    if recipe.classes is not None:
        job, more = add_classes(job, recipe.classes, info, settings)
        added.append(more)
    if settings.storage.with_image:
        first = replace(info.levels[level], path="0")
        sides = (settings.storage.chunk, settings.storage.shard)
        added.append(Addition((image_layer(info.axes, first, info.dtype, *sides),)))
    facts = {"storage.with_image": str(settings.storage.with_image)}
    for one in added:
        facts |= one.facts
    layers = tuple(layer for one in added for layer in one.layers)
    return replace(job, layers=layers), facts


def keep_precision(
    recipe: StarDistRecipe | SemanticRecipe, ledger: Ledger
) -> StarDistRecipe | SemanticRecipe:
    """Recipe whose "auto" precision is the one that the run in OUT was started with.

    A run that is continued on another machine keeps its arithmetic.
    """
    section = "segment" if isinstance(recipe, StarDistRecipe) else "classes"
    settings = getattr(recipe, section)
    if settings.precision != "auto" or not ledger.exists:
        return recipe
    kept = ledger.read_run().get("parts", {}).get(f"{section}.precision")
    if kept is None:
        return recipe
    chosen = settings.model_copy(update={"precision": json.loads(kept)})
    return recipe.model_copy(update={section: chosen})


def _general(
    recipe: StarDistRecipe | SemanticRecipe, channels: tuple[int, ...]
) -> StarDistRecipe | SemanticRecipe:
    """Recipe with its channels as indices, and without settings that have no effect."""
    normalise = recipe.normalise
    if normalise.over != "local":
        # What has no effect must not refuse a run that is continued.
        fixed = {name: getattr(NormaliseSettings(), name) for name in ("cell", "contrast_floor")}
        normalise = normalise.model_copy(update=fixed)
    source = recipe.input.model_copy(update={"channels": channels})
    return recipe.model_copy(update={"input": source, "normalise": normalise})


def _with_precision(job: Job, precision: str) -> Job:
    """Job whose recipe names the arithmetic that was chosen."""
    recipe = job.recipe
    section = "segment" if isinstance(recipe, StarDistRecipe) else "classes"
    settings = getattr(recipe, section).model_copy(update={"precision": precision})
    return replace(job, recipe=recipe.model_copy(update={section: settings}))

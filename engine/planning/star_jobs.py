"""What star-convex objects add to a job: their network, and the defenses that doubt them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelError, RecipeError
from engine.methods.flag_votes import votes_needed
from engine.networks.defense_bank import open_bank
from engine.networks.model_folder import ModelFolder, open_model
from engine.planning.additions import Addition, wrong_channels
from engine.planning.elements import VOTES_GROUP
from engine.planning.layers import derived_layer, label_dtype
from engine.stages.flags import Flags
from engine.stages.stardist import Candidates, Instances

if TYPE_CHECKING:
    from engine.networks.defense_bank import DefenseBank
    from engine.planning.job import Job
    from engine.recipe import Settings, StarDistRecipe
    from engine.store import ImageInfo


def add_stars(
    job: Job, recipe: StarDistRecipe, info: ImageInfo, settings: Settings
) -> tuple[Job, Addition]:
    """Add the network that finds star-convex objects, and the defenses that doubt them."""
    model = open_model(recipe.segment.model)
    # Workers may stand in another folder than the user.
    model = replace(model, path=model.path.resolve(), weights=model.weights.resolve())
    _check_model(model, job.frame.channels, recipe)
    segment = recipe.segment.model_copy(
        update={
            "prob_threshold": recipe.segment.prob_threshold or model.thresholds.prob,
            "nms_threshold": model.thresholds.nms
            if recipe.segment.nms_threshold is None
            else recipe.segment.nms_threshold,
        }
    )
    storage, name = settings.storage, recipe.instances.name
    sides, scale = (storage.chunk, storage.shard), model.config.grid[0]
    if storage.shard % scale:
        raise RecipeError(
            where="storage.shard",
            expected=f"a multiple of the model's grid, {scale}",
            found=str(storage.shard),
            remedy="Choose a power of two.",
        )
    level = recipe.input.level
    ids = label_dtype(info.levels[level].shape)
    layers = [
        derived_layer("probability", "maps/probability", "uint8", scale, info, level, sides),
        derived_layer(name, f"labels/{name}", ids, 1, info, level, sides),
    ]
    stages = (Candidates, Instances)
    facts = {"weights": model.sha256, **{f"stage.{s.name}": str(s.version) for s in stages}}
    flags, bank = _bank(recipe, model)
    if bank is not None:
        votes = derived_layer("flag_votes", VOTES_GROUP, "uint16", 1, info, level, sides)
        layers.append(replace(votes, made_with=name))
        facts |= {"flags.weights": bank.sha256, "flags.stage": str(Flags.version)}
    job = replace(
        job,
        recipe=recipe.model_copy(update={"segment": segment}),
        model=model,
        bank=flags,
        bank_sha256=bank.sha256 if bank else "",
        defenses=(recipe.flags.defenses or len(bank)) if recipe.flags and bank else 0,
    )
    return job, Addition(tuple(layers), facts)


def _check_model(model: ModelFolder, channels: int, recipe: StarDistRecipe) -> None:
    """Refuse a model that does not fit the channels, or that a lattice cannot serve."""
    config = model.config
    if config.n_channel_in != channels:
        where = f"model '{recipe.segment.model}'"
        raise wrong_channels(where, config.n_channel_in, channels)
    if len(set(config.grid)) > 1 or len(set(config.divisor)) > 1:
        raise ModelError(
            where=f"model '{recipe.segment.model}'",
            expected="the same grid and pooling on both axes",
            found=f"grid {config.grid}, divisor {config.divisor}",
            remedy="Use a model with a square grid.",
        )
    recipe.tiling.with_network(max(config.divisor), config.grid[0])


def _bank(recipe: StarDistRecipe, model: ModelFolder) -> tuple[str, DefenseBank | None]:
    """Place and content of the bank of a recipe that flags; a bank serves one model."""
    settings = recipe.flags
    if settings is None:
        return "", None
    bank = open_bank(settings.bank)
    bank.check_model(model.sha256)
    if bank.mode != "global":
        raise RecipeError(
            where="flags.bank",
            expected="a bank that was made for intensities of whole images (mode global)",
            found=f"mode {bank.mode}",
            remedy="Make one with `tilewright train defenses --mode global`.",
        )
    if settings.defenses is not None and settings.defenses > len(bank):
        raise RecipeError(
            where="flags.defenses",
            expected=f"at most {len(bank)}, as many as '{settings.bank}' holds",
            found=str(settings.defenses),
            remedy="Leave it out to use all.",
        )
    count = settings.defenses or len(bank)
    needed = votes_needed(count, settings.min_votes)
    if settings.stop == "early" and needed < 2:
        raise RecipeError(
            where="flags.stop",
            expected=f"never, or flags.min_votes above 1/{count}: where one vote suffices, "
            "every defense must look",
            found=f"early with flags.min_votes {settings.min_votes}",
            remedy="Set flags.min_votes, such as 0.1.",
        )
    place = Path(settings.bank)
    return (str(place.absolute()) if place.exists() else settings.bank), bank

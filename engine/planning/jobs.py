"""Jobs made from a recipe and what it is applied to, with nothing left to choose."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.device import Launch, choose_device, choose_precision
from engine.errors import InputError, ModelError, RecipeError
from engine.methods.flag_votes import votes_needed
from engine.networks.defense_bank import open_bank
from engine.networks.model_folder import ModelFolder, open_model
from engine.planning.elements import VOTES_GROUP, SourceRef
from engine.planning.job import Job
from engine.planning.layers import derived_layer, image_layer, label_dtype, source_level
from engine.recipe import IdentityRecipe, NormaliseSettings, StarDistRecipe
from engine.stages.base import Frame
from engine.stages.flags import Flags
from engine.stages.normalise import Normalise
from engine.stages.stardist import Candidates, Instances
from engine.store import Location, local_path
from engine.store.axes import Axis
from engine.store.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger import Ledger
    from engine.networks.defense_bank import DefenseBank
    from engine.recipe import Settings, Storage
    from engine.store import ImageInfo

#: Stands for OUT until it is checked.
NOWHERE = Location("/")

#: A side of fewer pixels is no image.
SMALLEST_SIDE = 2


def stardist_job(
    info: ImageInfo, recipe: StarDistRecipe, settings: Settings
) -> tuple[Job, dict[str, str]]:
    """Job of a recipe that segments, with everything chosen that was left open."""
    model = open_model(recipe.segment.model)
    # Workers may stand in another folder than the user.
    model = replace(model, path=model.path.absolute(), weights=model.weights.absolute())
    channels = _channels(info, recipe.input.channels)
    _check_model(model, len(channels), recipe)
    device = choose_device(settings.resources.device)
    precision = choose_precision(recipe.segment.precision, device)
    segment = recipe.segment.model_copy(
        update={
            "precision": precision,
            "prob_threshold": recipe.segment.prob_threshold or model.thresholds.prob,
            "nms_threshold": model.thresholds.nms
            if recipe.segment.nms_threshold is None
            else recipe.segment.nms_threshold,
        }
    )
    source = recipe.input.model_copy(update={"channels": channels})
    normalise = recipe.normalise
    if normalise.over != "local":
        # What has no effect must not refuse a run that is continued.
        fixed = {name: getattr(NormaliseSettings(), name) for name in ("cell", "contrast_floor")}
        normalise = normalise.model_copy(update=fixed)
    recipe = recipe.model_copy(update={"segment": segment, "input": source, "normalise": normalise})
    level = recipe.input.level
    height, width = info.levels[level].shape[-2:]
    frame = Frame(info.plane_shape, (height, width), len(channels), info.dtype)
    storage, name = settings.storage, recipe.instances.name
    sides, scale = (storage.chunk, storage.shard), model.config.grid[0]
    if storage.shard % scale:
        raise RecipeError(
            where="storage.shard",
            expected=f"a multiple of the model's grid, {scale}",
            found=str(storage.shard),
            remedy="Choose a power of two.",
        )
    ids = label_dtype(info.levels[level].shape)
    layers = [
        derived_layer("probability", "maps/probability", "uint8", scale, info, level, sides),
        derived_layer(name, f"labels/{name}", ids, 1, info, level, sides),
    ]
    if storage.with_image:
        first = replace(info.levels[level], path="0")
        layers.append(image_layer(info.axes, first, info.dtype, storage.chunk, storage.shard))
    flags, bank = _bank(recipe, model)
    if bank is not None:
        votes = derived_layer("flag_votes", VOTES_GROUP, "uint16", 1, info, level, sides)
        layers.append(replace(votes, made_with=name))
    ref = SourceRef(info.path, foreign=False, level=level, channels=channels)
    launch = Launch(device, precision, settings.resources.launch or 1)
    job = Job(
        NOWHERE, ref, frame, recipe, tuple(layers), frame.bounds, storage.shard, "",
        launch=launch, model=model, bank=flags, bank_sha256=bank.sha256 if bank else "",
        defenses=len(bank) if bank else 0,
    )  # fmt: skip
    versions = {f"stage.{s.name}": str(s.version) for s in (Normalise, Candidates, Instances)}
    facts = {"weights": model.sha256, "device": device}
    if bank is not None:
        facts |= {"flags.defenses": bank.sha256, "flags.stage": str(Flags.version)}
    return job, {**facts, **versions, "storage.with_image": str(storage.with_image)}


def copy_job(
    info: ImageInfo, recipe: IdentityRecipe, storage: Storage
) -> tuple[Job, dict[str, str]]:
    """Job of the identity recipe."""
    if storage.with_image:
        raise RecipeError(
            where="storage.with_image",
            expected="false for the identity recipe, whose result is the image",
            found="true",
            remedy="Leave the setting out.",
        )
    level = recipe.input.level
    first = replace(info.levels[level], path="0")
    layer = image_layer(info.axes, first, info.dtype, storage.chunk, storage.shard)
    layer = replace(layer, is_label=info.is_label)
    height, width = first.shape[-2:]
    frame = Frame(info.plane_shape, (height, width), info.n_channels, info.dtype)
    channels = tuple(range(info.n_channels))
    ref = SourceRef(info.path, foreign=False, level=level, channels=channels)
    return Job(NOWHERE, ref, frame, recipe, (layer,), frame.bounds, storage.shard, ""), {}


def ingest_job(
    source: str, storage: Storage, pixel_size_um: float | None
) -> tuple[Job, dict[str, str]]:
    """Job of an ingest, and what decides its pixels beside the recipe."""
    source = str(local_path(source).absolute())
    with open_source(source) as opened:
        info, stamps = opened.info, opened.fingerprint()
    if pixel_size_um is not None:
        if not 0 < pixel_size_um < math.inf:
            raise InputError(
                where="--pixel-size",
                expected="micrometres per pixel, above 0",
                found=str(pixel_size_um),
                remedy="Give the side of a pixel, such as 0.5.",
            )
        info = replace(
            info,
            scale=(*info.scale[:-2], pixel_size_um, pixel_size_um),
            units=(*info.units[:-2], "micrometer", "micrometer"),
        )
    kinds = {"t": "time", "c": "channel"}
    axes = tuple(
        Axis(name, kinds.get(name, "space"), unit)
        for name, unit in zip(info.axes, info.units, strict=True)
    )
    check_extent(source, info.shape[-2:])
    layer = image_layer(axes, source_level(info), info.dtype, storage.chunk, storage.shard)
    planes = tuple(n for n, name in zip(info.shape, info.axes, strict=True) if name not in "cyx")
    height, width = info.shape[-2:]
    frame = Frame(planes, (height, width), info.channels, info.dtype)
    ref = SourceRef(source, foreign=True, level=0, channels=tuple(range(info.channels)))
    recipe = IdentityRecipe(method="identity")
    job = Job(NOWHERE, ref, frame, recipe, (layer,), frame.bounds, storage.shard, "")
    stamp = hashlib.sha256(json.dumps([[s.path, s.size, s.mtime_ns] for s in stamps]).encode())
    extra = {
        "ingest": "1",
        "source.path": source,
        "source.files": str(len(stamps)),
        "source.bytes": str(sum(s.size for s in stamps)),
        "source.stamps": stamp.hexdigest(),
        "pixel size": str(info.scale[-2:]),
        "storage.chunk": str(storage.chunk),
        "storage.shard": str(storage.shard),
    }
    return job, extra


def keep_precision(recipe: StarDistRecipe, ledger: Ledger) -> StarDistRecipe:
    """Recipe whose "auto" precision is the one that the run in OUT was started with.

    A run that is continued on another machine keeps its arithmetic.
    """
    if recipe.segment.precision != "auto" or not ledger.exists:
        return recipe
    kept = ledger.read_run().get("parts", {}).get("segment.precision")
    if kept is None:
        return recipe
    segment = recipe.segment.model_copy(update={"precision": json.loads(kept)})
    return recipe.model_copy(update={"segment": segment})


def check_extent(where: str, extent: Sequence[int]) -> None:
    """Refuse what is no image.

    Raises
    ------
    InputError
        If a side is shorter than `SMALLEST_SIDE`.
    """
    if min(extent) < SMALLEST_SIDE:
        raise InputError(
            where=f"'{where}'",
            expected=f"an image of at least {SMALLEST_SIDE} pixels on each side",
            found=f"{extent[-2]} x {extent[-1]} pixels (y, x)",
            remedy="Check that the right file or level was given.",
        )


def input_identity(info: ImageInfo, level: int) -> dict[str, str]:
    """Name the input by its place and its metadata: facts that a refusal can show."""
    chosen = info.levels[level]
    return {
        "image.path": info.path,
        "image.version": info.version,
        "image.dtype": info.dtype,
        "image.axes": "".join(axis.name for axis in info.axes),
        "image.array": chosen.path,
        "image.shape": str(chosen.shape),
        "image.scale": str(chosen.scale),
        "image.translation": str(chosen.translation),
    }


def _channels(info: ImageInfo, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Find the channels that a recipe names.

    Raises
    ------
    RecipeError
        If the image has no such channel.
    """
    chosen = []
    for name in wanted:
        index = info.channel_names.index(name) if name in info.channel_names else name
        if not isinstance(index, int) or not 0 <= index < info.n_channels:
            names = ", ".join(f"{k} ({n})" for k, n in enumerate(info.channel_names))
            raise RecipeError(
                where="input.channels",
                expected=f"channels of '{info.path}': {names}",
                found=repr(name),
                remedy="Choose one with --set input.channels=[0].",
            )
        chosen.append(index)
    return tuple(chosen)


def _check_model(model: ModelFolder, channels: int, recipe: StarDistRecipe) -> None:
    """Refuse a model that does not fit the channels, or that a lattice cannot serve."""
    config = model.config
    if config.n_channel_in != channels:
        raise ModelError(
            where=f"model '{recipe.segment.model}'",
            expected=f"{config.n_channel_in} input channels, as it was trained",
            found=f"{channels} in input.channels",
            remedy=f"Name as many, such as --set input.channels={_example(config.n_channel_in)}.",
        )
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
    needed = votes_needed(len(bank), settings.min_votes)
    if settings.stop == "early" and needed < 2:
        raise RecipeError(
            where="flags.stop",
            expected=f"never, or flags.min_votes above 1/{len(bank)}: where one vote suffices, "
            "every defense must look",
            found=f"early with flags.min_votes {settings.min_votes}",
            remedy="Set flags.min_votes, such as 0.1.",
        )
    place = Path(settings.bank)
    return (str(place.absolute()) if place.exists() else settings.bank), bank


def _example(count: int) -> str:
    """List the first `count` channels as a setting."""
    return "[" + ",".join(map(str, range(count))) + "]"

"""Jobs made from a recipe and what it is applied to, with nothing left to choose."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.errors import InputError, RecipeError
from engine.planning.elements import SourceRef
from engine.planning.job import Job
from engine.planning.layers import image_layer, source_level
from engine.recipe import IdentityRecipe
from engine.stages.base import Frame
from engine.store import Location, check_store
from engine.store.axes import Axis
from engine.store.sources import open_source, split_axes, with_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.recipe import Storage
    from engine.store import ImageInfo

#: Stands for OUT until it is checked.
NOWHERE = Location("/")

#: A side of fewer pixels is no image.
SMALLEST_SIDE = 2


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
    """Job of an ingest, and what decides its pixels beside the recipe.

    `source` may name axes too, see `engine.store.sources.address`.
    """
    source, named = split_axes(source)
    place = Location.parse(source)
    check_store(place, InputError)
    source = str(place)
    address = with_axes(source, named)
    with open_source(address) as opened:
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
    ref = SourceRef(address, foreign=True, level=0, channels=tuple(range(info.channels)))
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
    if named is not None:
        extra["source.axes"] = named
    return job, extra


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

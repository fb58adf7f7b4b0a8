"""The empty arrays and the metadata of OUT: a valid OME-Zarr image from the first moment on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.planning.elements import CLASS_COLORS, CLASSES, INITIAL, VOTES_GROUP
from engine.store import (
    MEAN,
    NEAREST,
    ArraySpec,
    ImageMetadata,
    create_array,
    create_group,
    inspect_image,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)
from engine.store.metadata import Channel
from engine.store.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from engine.planning import Job, Layer


def create_arrays(job: Job) -> None:
    """Make all arrays, empty; what stands already stays as it is."""
    for layer in job.layers:
        for k, level in enumerate(layer.levels):
            spec = ArraySpec(
                level.shape,
                layer.dtype,
                (layer.chunk, layer.chunk),
                (layer.shard, layer.shard),
                layer.axes,
            )
            create_array(job.out / layer.group, layer.levels[k].path, spec)


def write_metadata(job: Job) -> None:
    """Let the metadata of all groups name the arrays of this run; written again where they do."""
    for layer in job.layers:
        if layer.is_label and layer.group:
            _label_metadata(job, layer)
        elif layer.group:
            write_image_metadata(job.out / layer.group, _map_metadata(layer))
    above = {layer.group.rsplit("/", 1)[0] for layer in job.layers if layer.group}
    for group in sorted({group for one in above for group in (one, one.split("/")[0])}):
        # A folder above groups is one too; one that is an image already stays so.
        create_group(job.out / group)
    _root_metadata(job)


def _root_metadata(job: Job) -> None:
    """Let the root show the image where it is there, else the first map."""
    layers = {layer.name: layer for layer in job.layers}
    if "image" in layers:
        channels, properties, name = _source_facts(job)
        layer = layers["image"]
        metadata = ImageMetadata(
            name,
            layer.axes,
            layer.levels,
            layer.dtype,
            NEAREST if layer.is_label else MEAN,
            channels,
            properties,
        )
    else:
        layer = next(layer for layer in job.layers if not layer.is_label)
        levels = tuple(replace(v, path=f"{layer.group}/{v.path}") for v in layer.levels)
        metadata = replace(_map_metadata(layer), levels=levels, name=job.out.name.split(".")[0])
    write_image_metadata(job.out, metadata)


def _map_metadata(layer: Layer) -> ImageMetadata:
    """Describe a map: of probabilities, where 255 is 1, or of votes, which are counts."""
    whole = {"value": layer.name, "value_of_255": 1.0}
    if layer.group == VOTES_GROUP:
        whole = {"value": "defenses that flag the object"}
    channel = Channel(layer.name, "FFFFFF", (0.0, 255.0, 0.0, 255.0))
    return ImageMetadata(
        layer.name,
        layer.axes,
        layer.levels,
        layer.dtype,
        MEAN,
        (channel,),
        whole,
    )


def _label_metadata(job: Job, layer: Layer) -> None:
    group = job.out / layer.group
    write_labels_group(job.out, [layer.name])
    write_image_metadata(
        group, ImageMetadata(layer.name, layer.axes, layer.levels, layer.dtype, NEAREST)
    )
    names = job.ensemble.classes if job.ensemble and layer.name in (CLASSES, INITIAL) else ()
    several = len(CLASS_COLORS) - 1
    shades = {k: CLASS_COLORS[(k - 1) % several + 1 if k else 0] for k in range(len(names))}
    write_label_metadata(
        group,
        colors={k: (*shade, 255 if k else 0) for k, shade in shades.items()},
        properties=[{"label-value": k, "class": name} for k, name in enumerate(names)],
    )


def _source_facts(job: Job) -> tuple[tuple[Channel, ...], Mapping[str, Any], str]:
    """Channels, properties and name of what is copied."""
    if not job.source.foreign:
        info = inspect_image(job.source.path)
        return info.channels, dict(info.properties), info.name
    with open_source(job.source.path, verify=False) as source:
        facts = source.info
    colors = facts.channel_colors or (None,) * len(facts.channel_names)
    channels = tuple(
        Channel(name, color) for name, color in zip(facts.channel_names, colors, strict=True)
    )
    return channels or (Channel("intensity"),), dict(facts.properties), job.out.name.split(".")[0]

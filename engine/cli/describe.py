"""What is said of an image before work begins: its axes, pixels and channels as understood."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from engine.store.sources import source_facts, split_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from engine.planning import Plan
    from engine.recipe import Settings
    from engine.store import ImageInfo
    from engine.store.sources import SourceInfo

_LISTED = 8  # names of channels that a line gives before it only counts them
_RGB_NAMES = ("red", "green", "blue")
_RGB_COLORS = ("FF0000", "00FF00", "0000FF")
# Names of channels that say nothing of a stain.
_NUMBERED = re.compile(r"(channel)?[ :_-]*\d+(:\d+)*", re.IGNORECASE)

_COLOUR_WARNING = (
    "the image is in colour (brightfield?) and the network takes one channel of it, {channel}, "
    "as fluorescence: objects bright on dark. In stained tissue they are dark on bright, and what "
    "is found there means little. If it is fluorescence shown in colour, name the channel, such as "
    "--set input.channels=[2]; for brightfield give a model trained on it with --set "
    "segment.model=FOLDER (`tilewright train stardist`), or an image with a channel in which "
    "objects are bright."
)


def facts_table() -> Table:
    """Make a table of names and values; long paths go on in the next line and stay whole."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def show_source(console: Console, plan: Plan) -> None:
    """Print how the source of an ingest is understood, before it is copied."""
    table, job = facts_table(), plan.job
    path, _ = split_axes(job.source.path)
    facts = _source_rows(plan, source_facts(job.source.path))
    for name, value in (("source", path), *facts, ("image", str(job.out))):
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(table, highlight=False)


def image_rows(plan: Plan, info: ImageInfo) -> list[tuple[str, str]]:
    """Lines that say what is read: format, axes, channels, dtype, size of a pixel."""
    axes = tuple(axis.name for axis in info.axes)
    level = info.levels[plan.job.source.level]
    size = info.pixel_size_um
    if size is not None:
        first = info.levels[0].scale
        size = (size[0] * level.scale[-2] / first[-2], size[1] * level.scale[-1] / first[-1])
    return [
        ("format", f"OME-Zarr {info.version}"),
        ("pixels", f"{_pixels(axes, level.shape, info.channel_names)}, {info.dtype}"),
        ("pixel size", _size(size, "none found: `tilewright ingest --pixel-size UM` gives it")),
    ]


def show_colour_warning(console: Console, plan: Plan, info: ImageInfo) -> None:
    """Warn where a model for one channel is given one of a colour image."""
    channels = plan.job.source.channels
    if plan.job.model is not None and len(channels) == 1 and is_colour(info):
        channel = f"{channels[0]} ({info.channel_names[channels[0]]})"
        text = escape(_COLOUR_WARNING.format(channel=channel))
        console.print(f"[yellow]warning[/yellow] {text}", highlight=False)


def channel_row(plan: Plan, info: ImageInfo) -> tuple[str, str]:
    """Line that says which channels a network is given, of how many."""
    names = [f"{k} ({info.channel_names[k]})" for k in plan.job.source.channels]
    return ("channels", f"{', '.join(names)} of {info.n_channels}")


def is_colour(info: ImageInfo) -> bool:
    """Whether channels are red, green and blue: by name, or by colour where none has a name."""
    if info.n_channels not in {3, 4}:
        return False
    names = tuple(name.lower() for name in info.channel_names[:3])
    unnamed = all(_NUMBERED.fullmatch(name) or not name for name in names)
    return names == _RGB_NAMES or (unnamed and info.channel_colors[:3] == _RGB_COLORS)


def channels_by_default(recipe: str, overrides: Sequence[str], settings: Settings) -> bool:
    """Whether the channels are those of a bundled recipe, or nobody named any."""
    from engine.recipe import bundled_recipes

    if any(text.split("=")[0].strip() == "input.channels" for text in overrides):
        return False
    named = "channels" in settings.recipe.input.model_fields_set
    return recipe in bundled_recipes() or not named


def _source_rows(plan: Plan, info: SourceInfo) -> list[tuple[str, str]]:
    """Lines of a source; sizes as the image will have them."""
    layer = plan.job.layers[0]
    known = all(axis.unit == "micrometer" for axis in layer.axes[-2:])
    height, width = layer.levels[0].scale[-2:]
    rows = [
        ("format", info.format),
        ("pixels", f"{_pixels(info.axes, info.shape, info.channel_names)}, {info.dtype}"),
    ]
    if info.plane_axes or info.named_by == "--axes":
        stored = "".join(info.stored or info.axes)
        guess = "a guess, for the file names none: --axes gives others"
        rows.append(
            ("axes", f"{stored}, {f'named by {info.named_by}' if info.named_by else guess}")
        )
    missing = "none found: --pixel-size UM gives it"
    return [*rows, ("pixel size", _size((height, width) if known else None, missing))]


def _pixels(axes: Sequence[str], shape: Sequence[int], names: Sequence[str]) -> str:
    """Say an image's shape: ``512 x 512 (y, x), 2 channels (DAPI, GFP), 3 planes (z)``."""
    lengths = dict(zip(axes, shape, strict=True))
    text = f"{lengths['y']} x {lengths['x']} (y, x)"
    if "c" in lengths:
        listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
        text += f", {_count(lengths['c'], 'channel')} ({listed})"
    planes = {axis: n for axis, n in lengths.items() if axis not in "cyx"}
    if planes:
        *more, last = planes.values()
        counts = "".join(f"{n} x " for n in more)
        text += f", {counts}{_count(last, 'plane')} ({', '.join(planes)})"
    return text


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _size(size: tuple[float, float] | None, missing: str) -> str:
    return missing if size is None else f"{size[0]:.4g} x {size[1]:.4g} um (y, x)"

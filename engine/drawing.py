"""Pictures of a result: labels over the image, and all maps side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from engine.errors import InputError
from engine.ledger import Ledger
from engine.planning.elements import CLASSES, INITIAL
from engine.review import write_preview
from engine.review.overlay import draw_overlay
from engine.review.panels import Panel, value_panel, write_panels
from engine.review.pictures import class_picture, enlarge, enlargement, gray_picture
from engine.review.suspects import Outline, outlines, read_suspects
from engine.store import ImageReader, Location, image_groups, inspect_image
from engine.store.resolve import read_group
from engine.suspects import FALSE_POSITIVE
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.store import ImageInfo

#: Longest side of a preview in pixels.
PREVIEW_SIDE = 2048

#: Longest side of one panel among several, and what that of a small image is enlarged to.
PANEL_SIDE, SMALL_PANEL_SIDE = 768, 512

#: Rows of the image that a preview reads at once.
STRIP_ROWS = 512


@dataclass(frozen=True)
class View:
    """Which part of a result is shown.

    Parameters
    ----------
    level : int or None
        Level of the labels; the finest that gives few enough pixels where None.
    within : Box or None
        Part of the plane, in pixels of level 0; all of it where None.
    plane : tuple of int or None
        Index on every leading axis; the first plane where None.
    """

    level: int | None = None
    within: Box | None = None
    plane: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Part:
    """The part that is shown, in pixels of its level."""

    place: Location
    info: ImageInfo
    level: int
    plane: tuple[int, ...]
    whole: Box

    @property
    def box(self) -> Box:
        """In pixels of the level."""
        reader = ImageReader(self.info.path, self.level)
        return self.whole.coarsen(2**self.level).clip(Box.of_shape(reader.extent))

    def read(self, group: str) -> np.ndarray:
        """Read the part of a map or label image of the result."""
        info = inspect_image(self.place / group)
        # A map may be coarser than the labels; pixels are repeated, nothing is interpolated.
        step = round(self.info.levels[0].shape[-1] / info.levels[0].shape[-1])
        level = max(0, self.level - (step.bit_length() - 1))
        coarse = step * 2**level // 2**self.level
        reader = ImageReader(info.path, level)
        box = self.box.coarsen(coarse).clip(Box.of_shape(reader.extent))
        pixels = reader.read(self.plane, (0,), box)[0]
        shown = pixels.repeat(coarse, axis=0).repeat(coarse, axis=1)
        missing = [max(0, n - have) for n, have in zip(self.box.shape, shown.shape, strict=True)]
        shown = np.pad(shown, [(0, n) for n in missing], mode="edge")
        return shown[: self.box.shape[0], : self.box.shape[1]]

    def image(self) -> np.ndarray:
        """Read the image below."""
        return _image_under(self.place, self.level, self.box, self.plane)

    @property
    def pixel_size_um(self) -> float | None:
        """Width of a pixel of the level; None where it is not known."""
        size = self.info.pixel_size_um
        return None if size is None else size[1] * 2**self.level

    def __str__(self) -> str:
        return f"level {self.level}, {self.box} of plane {self.plane or 0}"


def draw_preview(
    out: str | Path,
    png: str | Path,
    view: View,
    *,
    labels: str | None = None,
    suspects: bool = False,
) -> str:
    """Draw the labels of a result over its image.

    Parameters
    ----------
    out : str or Path
        A result with a label image.
    png : str or Path
        Picture to write.
    view : View
        Which part.
    labels : str or None
        Name of the label image; the only one of objects where None.
    suspects : bool
        Draw what is flagged in red and yellow, all else pale.

    Returns
    -------
    str
        What is shown.

    Raises
    ------
    InputError
        If there are no labels, no such level or plane, or the box lies outside.
    """
    place = Location.parse(out)
    info = _label_image(place, labels)
    part = _part(place, info, view, PREVIEW_SIDE)
    drawn = ImageReader(info.path, part.level).read(part.plane, (0,), part.box)[0]
    flagged = _suspects(place, part.plane, part.whole, part.level) if suspects else None
    write_preview(part.image(), drawn, png, pixel_size_um=part.pixel_size_um, suspects=flagged)
    said = f"{part}, {np.count_nonzero(np.unique(drawn))} objects"
    if flagged is None:
        return said
    wrong = sum(one.kind == FALSE_POSITIVE for one in flagged)
    return f"{said}, {wrong} suspect (red), {len(flagged) - wrong} that may be missing (yellow)"


def draw_panels(out: str | Path, png: str | Path, view: View) -> str:
    """Draw the image, and every label image and map of a result, side by side.

    Parameters
    ----------
    out : str or Path
        A result with a label image.
    png : str or Path
        Picture to write.
    view : View
        Which part.

    Returns
    -------
    str
        What is shown, in the order of the panels.

    Raises
    ------
    InputError
        As for `draw_preview`.
    """
    place = Location.parse(out)
    groups = image_groups(place)
    names = [group.removeprefix("labels/") for group in groups if group.startswith("labels/")]
    info = _label_image(place, names[0] if names else None)
    part = _part(place, info, view, PANEL_SIDE)
    grow, pixel = enlargement(max(part.box.shape), SMALL_PANEL_SIDE), part.pixel_size_um
    panels, size = _panels(part, groups, grow), None if pixel is None else pixel / grow
    write_panels(panels, png, pixel_size_um=size, classes=_class_names(part, names))
    return f"{part}: {'; '.join(str(panel) for panel in panels)}"


def _panels(part: _Part, groups: Sequence[str], grow: int) -> list[Panel]:
    """Draw the image, its objects, maps of values and class maps, each enlarged."""
    image = enlarge(part.image(), grow)
    final = "classes, repaired" if f"labels/{INITIAL}" in groups else "classes"
    titles = {INITIAL: "classes by the ensemble", CLASSES: final}
    objects, maps, classes = [], [], {}
    for group in groups:
        kind, _, name = group.partition("/")
        pixels = enlarge(part.read(group), grow)
        if kind == "maps":
            maps.append(value_panel(name, pixels))
        elif name in titles:
            classes[name] = Panel(titles[name], class_picture(image, pixels.astype(np.uint8)))
        else:
            objects.append(Panel(name, draw_overlay(image, pixels)))
    last = [classes[name] for name in titles if name in classes]
    return [Panel("image", gray_picture(image)), *objects, *maps, *last]


def _class_names(part: _Part, labels: Sequence[str]) -> dict[int, str]:
    """Names of the classes of the class maps among label images, as their metadata tell them."""
    names: dict[int, str] = {}
    for group in (f"labels/{name}" for name in labels if name in (INITIAL, CLASSES)):
        told = read_group(part.place / group).ome.get("image-label", {}).get("properties", [])
        # What the metadata do not name is shown too, and told by its number.
        names = {int(k): f"class {k}" for k in np.unique(part.read(group))} | names
        names |= {int(one["label-value"]): str(one["class"]) for one in told if "class" in one}
    return dict(sorted(names.items()))


def _part(place: Location, info: ImageInfo, view: View, side: int) -> _Part:
    """Part of a result that a view names.

    Raises
    ------
    InputError
        If there is no such level or plane, or the box lies outside.
    """
    bounds = Box.of_shape(info.extent)
    box = view.within or bounds
    if box.empty or not bounds.contains(box):
        raise InputError(
            where=f"--within {view.within}",
            expected=f"a box inside {bounds}",
            found=str(view.within),
            remedy="Choose a part of the image.",
        )
    level = view.level
    if level is None:
        fits = [k for k in range(len(info.levels)) if max(box.shape) >> k <= side]
        level = fits[0] if fits else len(info.levels) - 1
    planes = ImageReader(info.path, level).plane_shape
    plane = (0,) * len(planes) if view.plane is None else view.plane
    inside = len(plane) == len(planes) and all(
        0 <= k < n for k, n in zip(plane, planes, strict=True)
    )
    if not inside:
        raise InputError(
            where="--plane",
            expected=_planes_known(planes),
            found=", ".join(map(str, plane)),
            remedy="Choose a plane that the image has." if planes else "Leave --plane out.",
        )
    return _Part(place, info, level, plane, box)


def _planes_known(planes: tuple[int, ...]) -> str:
    """Which indices name a plane of an image."""
    if not planes:
        return "no index, for the image has one plane"
    spans = ", ".join(f"0 to {n - 1}" for n in planes)
    return f"one index for each axis above y and x: {spans}"


def _suspects(out: Location, plane: tuple[int, ...], box: Box, level: int) -> list[Outline]:
    """Outlines that meet a box of level 0, in pixels of the shown part of another level."""
    table = read_suspects(out)
    for name, index in zip((n for n in table.column_names if n in ("t", "z")), plane, strict=True):
        table = table.filter(pc.field(name) == index)
    near = (pc.field("y0") < box.stop[0]) & (pc.field("y1") > box.start[0])
    near &= (pc.field("x0") < box.stop[1]) & (pc.field("x1") > box.start[1])
    corner, step = np.array(box.coarsen(2**level).start) * 2**level, 2**level
    return [
        Outline(one.kind, (one.points + 0.5 - corner) / step - 0.5)
        for one in outlines(table.filter(near))
    ]


def _label_image(out: Location, wanted: str | None) -> ImageInfo:
    """Find the label image of a result: the one that is named, or the only one of objects."""
    inspect_image(out)
    folder = out / "labels"
    names = sorted(folder.children()[0])
    found = [n for n in names if n == wanted or (wanted is None and n not in (CLASSES, INITIAL))]
    if len(found) != 1:
        several = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise InputError(
            where=f"'{out}'",
            expected="a result with one label image of objects"
            if wanted is None
            else f"a result with a label image '{wanted}'",
            found=several,
            remedy="Name one with --labels."
            if names
            else "Give the OUT of `tilewright run` with a recipe that segments.",
        )
    return inspect_image(folder / found[0])


def _image_under(out: Location, level: int, part: Box, plane: tuple[int, ...]) -> np.ndarray:
    """Read the image below the labels: from OUT where it was copied, else from the run's source."""
    ledger = Ledger(out)
    document: dict[str, Any] = ledger.read_run() if ledger.exists else {"layers": ["image"]}
    channels = tuple(document.get("channels", (0,)))
    if "image" in document["layers"]:
        path, base = str(out), 0
    else:
        path, base = document["source"], document["level"]
    info = inspect_image(path)
    usable = min(base + level, len(info.levels) - 1)
    reader = ImageReader(path, usable)
    finer = 2 ** (base + level - usable)
    box = part.refine(finer).clip(Box.of_shape(reader.extent))
    # In strips: an image without a pyramid may be far larger than the picture made of it.
    strips = box.split((finer * max(1, STRIP_ROWS // finer), box.shape[1] + box.start[1]))
    rows = [reader.read(plane, channels, strip)[:, ::finer, ::finer] for strip in strips]
    pixels = np.concatenate(rows, axis=1)
    return pixels if len(pixels) == 3 else pixels[0]

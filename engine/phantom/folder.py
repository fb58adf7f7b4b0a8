"""Folders of phantom scenes: images and class maps as TIFF, and what they were drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tifffile

from engine.errors import OutputError, RecipeError
from engine.phantom.parameters import VERSION, Span
from engine.phantom.scene import CLASSES, make_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.phantom.parameters import SceneParameters


def write_scenes(
    folder: Path, parameters: SceneParameters, count: int, seed: int
) -> Iterator[Path]:
    """Write scenes into a new folder, one each time the next is asked for.

    Parameters
    ----------
    folder : Path
        Made with ``images/scene-0000.tif`` (uint16), ``labels/scene-0000.tif`` (uint8 class maps)
        and, once all stand, ``README.md``.
    parameters : SceneParameters
        Ranges to draw from.
    count : int
        Scenes, 1 to 10 000.
    seed : int
        At least 0; the same gives the same scenes, and more scenes begin with the same ones.

    Yields
    ------
    Path
        The image just written.

    Raises
    ------
    RecipeError
        If count or seed is out of range.
    OutputError
        If the folder holds something already, or is a file.
    """
    _check(folder, count, seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene = make_scene(parameters, seed, index)
        name = f"scene-{index:04}.tif"
        tifffile.imwrite(folder / "labels" / name, scene.classes, compression="zlib")
        tifffile.imwrite(folder / "images" / name, scene.image, compression="zlib")
        yield folder / "images" / name
    (folder / "README.md").write_text(_card(parameters, count, seed), encoding="utf-8")


def _check(folder: Path, count: int, seed: int) -> None:
    """Refuse a folder in use, and numbers that cannot be."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            where=str(folder),
            expected="a folder that is new or empty",
            found="other files there" if folder.is_dir() else "a file",
            remedy="Name another folder, or remove this one.",
        )
    for name, value, low, high in (("scenes", count, 1, 10_000), ("seed", seed, 0, 2**63)):
        if not low <= value <= high:
            raise RecipeError(
                where=f"{name} of a phantom",
                expected=f"{low} to {high}",
                found=str(value),
                remedy=f"Give another --{name}.",
            )


def _card(parameters: SceneParameters, count: int, seed: int) -> str:
    """Say what the scenes are and how to make them again."""
    classes = ", ".join(f"{index} {name}" for index, name in enumerate(CLASSES))
    unseen = " --unseen" if parameters.name == "unseen" else ""
    again = f"--scenes {count} --seed {seed} --size {parameters.size}{unseen}"
    lines = [
        "# Phantom mitochondria",
        "",
        (
            f"{count} scenes of {parameters.size} x {parameters.size} pixels, drawn by the "
            f"generator of tilewright, version {VERSION}, from the `{parameters.name}` ranges "
            f"with seed {seed}. "
            "`images`: pan-stain, uint16. `labels`: classes, uint8."
        ),
        "",
        f"Classes: {classes}.",
        "",
        "Made again by:",
        "",
        f"    tilewright phantom OUT {again}",
        "",
        "## Ranges",
        "",
    ]
    for part in ("shape", "cristae", "image"):
        lines += [f"{part}:", ""]
        group = getattr(parameters, part)
        lines += [f"- {name}: {_written(getattr(group, name))}" for name in group.__slots__]
        lines.append("")
    return "\n".join(lines)


def _written(value: object) -> str:
    """Write a range, or relative frequencies."""
    if isinstance(value, Span):
        return f"{value.low} to {value.high}"
    return str(value)

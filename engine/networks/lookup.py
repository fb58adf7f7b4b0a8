"""Models by name or by path: what comes with the package is found first, and suggested."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelError, RefusedError
from engine.networks.weight_files import package_path, refuse_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What comes with the package: the folder of this package in which it lies, and what it is called.
_SHELVES = {
    "bundled": "model",
    "bundled_ensembles": "ensemble",
    "bundled_banks": "bank of defenses",
    "bundled_maes": "masked autoencoder",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What messages call one kind of thing, and what it is.

    Parameters
    ----------
    noun, expected, bundled : str
        "ensemble", "an ensemble folder or …", "Bundled ensembles".
    folder : bool
        Whether it is a folder; else a file.
    inside, named : str, optional
        A file that marks such a folder, and what the folder is called where somebody named a file.
    error : type
        Of errors.
    """

    noun: str
    expected: str
    bundled: str
    folder: bool = True
    inside: str | None = None
    named: str | None = None
    error: type[RefusedError] = ModelError


def bundled_folders(shelf: str, inside: str) -> dict[str, Path]:
    """Folders that come with the package, by name.

    Parameters
    ----------
    shelf : str
        The folder of this package in which they lie.
    inside : str
        A file that each of them holds.

    Returns
    -------
    dict
        Sorted; empty where the shelf is missing.
    """
    root = package_path(shelf)
    found = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    return {name: root / name for name in found if (root / name / inside).is_file()}


def bundled_files(shelf: str, suffix: str) -> dict[str, Path]:
    """Files that come with the package, by name without suffix.

    Parameters
    ----------
    shelf : str
        The folder of this package in which they lie.
    suffix : str
        With its dot.

    Returns
    -------
    dict
        Sorted; empty where the shelf is missing.
    """
    root = package_path(shelf)
    found = sorted(p.stem for p in root.glob(f"*{suffix}")) if root.is_dir() else []
    return {name: root / f"{name}{suffix}" for name in found}


def find(name: str, bundled: Mapping[str, Path], kind: Kind) -> Path:
    """Find what a name or a path means.

    Parameters
    ----------
    name : str
        A name of `bundled`, which wins, or a path.
    bundled : mapping of str to Path
        What comes with the package.
    kind : Kind
        What is looked for.

    Returns
    -------
    Path
        Of a folder or a file, as `kind` asks; not looked into.

    Raises
    ------
    ModelError, or `kind.error`
        If it is neither, or a pickle; all bundled names of the kind are named.
    """
    if name in bundled:
        return bundled[name]
    path = Path(name)
    if path.is_dir() if kind.folder else path.is_file():
        return path
    if path.is_file():
        refuse_pickle(path)
        if kind.inside is not None:
            raise kind.error(
                where=str(path), expected=str(kind.named), found="a file",
                remedy=f"Name the folder that holds {kind.inside}.",
            )  # fmt: skip
    found = "a file" if path.is_file() else "a folder" if path.is_dir() else "neither"
    others = _other_kinds(name, kind)
    if others:
        found += f" but the name of a bundled {' and a bundled '.join(others)}"
    raise kind.error(
        where=f"{kind.noun} {name!r}", expected=kind.expected, found=found,
        remedy=f"{kind.bundled}: {', '.join(bundled) or 'none'}.{_suggestion(name, bundled)}",
    )  # fmt: skip


def _other_kinds(name: str, kind: Kind) -> list[str]:
    """Nouns of the other kinds of which something with this name comes with the package."""
    nouns = []
    for shelf, noun in _SHELVES.items():
        root = package_path(shelf)
        if noun != kind.noun and root.is_dir() and name in {p.stem for p in root.iterdir()}:
            nouns.append(noun)
    return nouns


def _suggestion(name: str, bundled: Mapping[str, Path]) -> str:
    """Name that was probably meant, where one is near; empty else."""
    near = difflib.get_close_matches(name, bundled, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""

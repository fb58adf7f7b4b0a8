"""What a result is: every decoded array, table and document; and where two of them differ."""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

if TYPE_CHECKING:
    from engine.store.location import Location

#: What is no part of the result: records, logs, report, lease.
PRIVATE = ".tilewright"


@dataclass(frozen=True)
class Snapshot:
    """A result, decoded.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Every array by its path, all levels.
    tables : dict of str to pyarrow.Table
        Every table by its path, sorted by id.
    documents : dict of str to object
        Every document of metadata by its path, parsed.
    strays : tuple of str
        Objects that belong to none of these.
    """

    arrays: dict[str, np.ndarray] = field(repr=False)
    tables: dict[str, pa.Table] = field(repr=False)
    documents: dict[str, Any] = field(repr=False)
    strays: tuple[str, ...] = ()

    @classmethod
    def of(cls, out: Location) -> Snapshot:
        """Read a result as any other program would."""
        names = sorted(name for name, _ in out.walk() if name.split("/")[0] != PRIVATE)
        texts = {
            name: (out / name).read_bytes().decode()
            for name in names
            if name.rsplit("/", 1)[-1] in ("zarr.json", ".zattrs", ".zgroup", ".zarray")
        }
        documents = {name: json.loads(text) for name, text in texts.items()}
        folders = [
            name.rpartition("/")[0]
            for name, document in documents.items()
            if document.get("node_type") == "array"
        ]
        arrays = {_plain(name): _decode(out / name) for name in folders}
        parts: dict[str, list[pa.Table]] = defaultdict(list)
        strays = sorted(_EDITION.findall(" ".join(folders))) if len(arrays) < len(folders) else []
        for name in names:
            folder, _, leaf = name.rpartition("/")
            if leaf.endswith(".parquet"):
                parts[folder].append(pq.read_table(io.BytesIO((out / name).read_bytes())))
            elif name not in documents and not _is_chunk(name, folders):
                strays.append(name)
        tables = {k: pa.concat_tables(v).sort_by("id") for k, v in parts.items()}
        plain = {
            _plain(name): json.loads(_plain(text))
            for name, text in texts.items()
            if not _BARE_GROUP.search(name)
        }
        return cls(arrays, tables, plain, tuple(strays))

    def differences(self, other: Snapshot) -> list[str]:
        """Say where another result differs from this one; empty where it does not."""
        found = [f"a stray object {name}" for name in other.strays]
        for kind in ("arrays", "tables", "documents"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            found += [f"{kind}: {name} is missing" for name in sorted(mine.keys() - theirs.keys())]
            found += [f"{kind}: {name} is new" for name in sorted(theirs.keys() - mine.keys())]
            for name in sorted(mine.keys() & theirs.keys()):
                text = _difference(mine[name], theirs[name])
                if text:
                    found.append(f"{kind}: {name} {text}")
        return found


def shown(out: Location) -> dict[str, np.ndarray]:
    """What a viewer sees: the finest level that the metadata of each group names.

    Raises
    ------
    OSError
        If a group names an array that is not there.
    """
    found = {}
    for name in sorted(name for name, _ in out.walk() if name.split("/")[0] != PRIVATE):
        group, _, leaf = name.rpartition("/")
        if leaf == "zarr.json":
            document = json.loads((out / name).read_bytes())
            for image in document.get("attributes", {}).get("ome", {}).get("multiscales", []):
                path = image["datasets"][0]["path"]
                found[group] = _decode(out / (f"{group}/{path}" if group else path))
    return found


#: What is made anew stands beside what it replaces, in a folder of its own: labels/nuclei/e2/0.
_EDITION = re.compile(r"(?<![\w.-])e\d+/(?=\d)")
_BARE_GROUP = re.compile(r"(^|/)e\d+/zarr\.json$")


def _plain(name: str) -> str:
    """Paths as they would be if nothing had ever been replaced."""
    return _EDITION.sub("", name)


def decode_object(out: Location, name: str) -> np.ndarray | None:
    """What one object of a result holds, decoded; None where it cannot be."""
    try:
        if name.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO((out / name).read_bytes()))
            return np.array([repr(rows.to_pydict())])
        folder, _, index = f"/{name}".rpartition("/c/")
        array = _open(out / folder.strip("/"))
        sides = array.shards or array.chunks
        places = [int(n) for n in index.split("/")]
        part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(places, sides, strict=True))
        return np.asarray(array[part])
    except (OSError, ValueError, RuntimeError, pa.ArrowException):
        return None


def _decode(place: Location) -> np.ndarray:
    """All pixels of an array."""
    return np.asarray(_open(place)[...])


def _open(place: Location) -> zarr.Array[Any]:
    """Open an array with zarr-python's own codecs, as any other program would."""
    store = place.path if place.is_local else place.zarr_path(read_only=True)
    return zarr.open_array(store, mode="r")


def _is_chunk(name: str, folders: list[str]) -> bool:
    """Whether an object is a chunk or shard of one of these arrays."""
    for folder in folders:
        if name.startswith(f"{folder}/c/"):
            return all(part.isdigit() for part in name.removeprefix(f"{folder}/c/").split("/"))
    return False


def _difference(mine: object, theirs: object) -> str:
    """Say how two things of a kind differ."""
    if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return f"is {theirs.dtype} {theirs.shape}, not {mine.dtype} {mine.shape}"
        wrong = int(np.count_nonzero(mine != theirs))
        return f"differs in {wrong} of {mine.size} pixels" if wrong else ""
    if isinstance(mine, pa.Table) and isinstance(theirs, pa.Table):
        if mine.equals(theirs):
            return ""
        return f"has {theirs.num_rows} rows, not {mine.num_rows}, or other values"
    return "" if mine == theirs else "has another content"

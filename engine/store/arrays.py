"""Zarr arrays, opened with the fastest codecs that can take them."""

from __future__ import annotations

import importlib.util
import threading
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import zarr

from engine.errors import InputError, OutputError
from engine.store.failures import read_error
from engine.store.files import describe, read_first
from engine.store.location import Location

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engine.errors import RefusedError
    from tiling.box import Box

DTYPES = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
"""Names of the dtypes that images and labels may have."""

_RUST_CODECS = "zarrs.ZarrsCodecPipeline"
_PYTHON_CODECS = "zarr.core.codec_pipeline.BatchedCodecPipeline"
# What zarrs 0.2 decodes to equal pixels; each is compared in tests/engine/test_store_codecs.py.
_RUST_V3 = frozenset(["bytes", "transpose", "sharding_indexed", "blosc", "gzip", "zstd", "crc32c"])
_RUST_V2 = frozenset(["blosc", "zlib", "gzip", "zstd"])

# The codecs of an array are chosen by a process-wide setting at the moment it is opened.
_opening = threading.Lock()


def use_fast_codecs(threads: int | None = None) -> bool:
    """Decode and encode with the Rust codecs of ``zarrs`` in this process, where it is installed.

    Arrays that zarrs cannot take (big-endian zarr v2, filters, other compressors) keep the codecs
    of zarr-python; `open_array` decides that for each array. Safe to call again.

    Parameters
    ----------
    threads : int or None
        Threads that one call of the codecs may use; None leaves zarr's setting as it is (all
        cores).

    Returns
    -------
    bool
        Whether the Rust codecs are in use.

    Raises
    ------
    ValueError
        If `threads` is below 1.
    """
    if threads is not None and threads < 1:
        msg = f"threads must be >= 1, got {threads}"
        raise ValueError(msg)
    installed = importlib.util.find_spec("zarrs") is not None
    # An array that is being opened in another thread puts back what it found when it is done.
    with _opening:
        if threads is not None:
            zarr.config.set({"threading.max_workers": threads})
        if installed:
            zarr.config.set({"codec_pipeline.path": _RUST_CODECS})
    return installed


def open_array(place: str | Path | Location, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
    """Open an array on a disk, in a bucket or on a web server.

    Parameters
    ----------
    place : str, Path or Location
        Folder of the array: zarr v3 (``zarr.json``) or v2 (``.zarray``).
    mode : {'r', 'r+'}
        Read only, or read and write. Chunks that hold only the fill value are never stored.

    Returns
    -------
    zarr.Array
        The array; threads may read it, and write different shards of it, at the same time.

    Raises
    ------
    InputError
        If it is to be read and is missing, damaged, or of a dtype that is not taken (complex,
        object, string, structured, date).
    OutputError
        The same, if it is to be written.
    """
    error: type[RefusedError] = InputError if mode == "r" else OutputError
    folder = Location.parse(place, error)
    return array_of(array_document(folder, error), folder, mode)


class Sliced(Protocol):
    """What is asked of an array: NumPy, Zarr and Dask arrays all do."""

    def __getitem__(self, index: Any, /) -> Any:  # noqa: ANN401 - each library has its own
        """Part of the array."""


def read_plane(array: Sliced, leading: Sequence[int], box: Box) -> np.ndarray[Any, Any]:
    """Read a box of one plane: (y, x).

    Parameters
    ----------
    array : Array, ndarray or dask Array
        With as many axes before y and x as `leading` has.
    leading : sequence of int
        Index on each of them.
    box : Box
        Rows and columns, inside the array.

    Notes
    -----
    Slices of length 1, not indices: zarrs 0.2 guesses which axes an index drops by their length,
    and fails for a box of one row over several shards.
    """
    at = (*(slice(i, i + 1) for i in leading), *box.slices())
    return np.asarray(array[at]).reshape(box.shape)


def array_of(
    document: Mapping[str, Any], folder: Location, mode: Literal["r", "r+"]
) -> zarr.Array[Any]:
    """Open an array whose document is known; nothing is read.

    Parameters
    ----------
    document : mapping
        From `array_document`.
    folder : Location
        Folder of the array.
    mode : {'r', 'r+'}
        Read only, or read and write.

    Returns
    -------
    zarr.Array
        As from `open_array`.

    Raises
    ------
    InputError, OutputError
        As `open_array`.
    """
    error: type[RefusedError] = InputError if mode == "r" else OutputError
    _check_dtype(document, folder, error)
    try:
        path = folder.zarr_path(read_only=mode == "r")
    except OSError as err:
        raise read_error(str(folder), err, error) from err
    with _opening:
        chosen = zarr.config.get("codec_pipeline.path")
        # In a bucket zarrs 0.2 would open a client of its own, with other ideas of what is absent.
        if chosen == _RUST_CODECS and not (folder.is_local and _rust_takes(document)):
            chosen = _PYTHON_CODECS
        settings = {"codec_pipeline.path": chosen, "array.write_empty_chunks": False}
        try:
            with zarr.config.set(settings):
                return zarr.Array.from_dict(path, dict(document))
        except Exception as err:  # zarr tells damaged metadata by whatever they happen to break
            raise error(
                where=str(folder),
                expected="a zarr array that can be opened",
                found=f"{type(err).__name__}: {err}",
                remedy="Its metadata are damaged or use a codec that is not installed.",
            ) from err


def array_document(folder: Location, error: type[RefusedError] = InputError) -> dict[str, Any]:
    """Metadata document of an array, as it stands.

    Parameters
    ----------
    folder : Location
        Folder of the array.
    error : type of RefusedError
        What to raise.

    Returns
    -------
    dict
        Content of ``zarr.json`` or ``.zarray``; holds ``zarr_format``.

    Raises
    ------
    RefusedError
        `error`, if there is no array or its document is damaged.
    """
    found = read_first(folder, ("zarr.json", ".zarray"), error)
    if found is not None:
        name, document = found
        if name == ".zarray" or document.get("node_type") == "array":
            return document | {"zarr_format": 2 if name == ".zarray" else 3}
    raise error(
        where=str(folder),
        expected="a zarr array",
        found="no array there",
        remedy="The store is incomplete: copy or write it again.",
    )


def _check_dtype(document: Mapping[str, Any], folder: Location, error: type[RefusedError]) -> None:
    """Refuse what is not numbers before zarr is asked to open it."""
    if document["zarr_format"] == 3:
        found = document.get("data_type")
        good = isinstance(found, str) and found in DTYPES
    else:
        found = document.get("dtype")
        try:
            good = isinstance(found, str) and np.dtype(found).name in DTYPES
        except TypeError:
            good = False
    if not good:
        raise error(
            where=str(folder),
            expected="pixels that are bool, integers of 8 to 64 bits or floats of 16 to 64 bits",
            found=f"dtype {describe(found)}",
            remedy="Convert the pixels first, complex ones for example to their magnitude.",
        )


def _rust_takes(document: Mapping[str, Any]) -> bool:
    """Whether the Rust codecs give the same pixels for an array with this document."""
    if document["zarr_format"] == 3:
        return _rust_takes_chain(document.get("codecs"))
    compressor = document.get("compressor")
    name = compressor.get("id") if isinstance(compressor, dict) else compressor
    known = name is None or (isinstance(name, str) and name in _RUST_V2)
    return bool(known and not document.get("filters") and str(document["dtype"])[0] != ">")


def _rust_takes_chain(codecs: object) -> bool:
    """Whether all codecs of a zarr v3 chain, those inside shards included, are known."""
    if not isinstance(codecs, list):
        return False
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not isinstance(name, str) or name not in _RUST_V3:
            return False
        if name == "sharding_indexed":
            inner = codec.get("configuration") if isinstance(codec, dict) else None
            if not isinstance(inner, dict) or not _rust_takes_chain(inner.get("codecs")):
                return False
    return True


def shard_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Pixels of one stored object on each axis: a shard, or a chunk where there are no shards."""
    return tuple(array.shards or array.chunks)

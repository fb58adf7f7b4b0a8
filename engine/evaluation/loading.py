"""Labels from where they lie: an OUT of ours, any OME-Zarr, a TIFF or a PNG, never loaded whole."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import tifffile
import zarr

from engine.errors import InputError
from engine.evaluation.labels import LabelSource
from engine.store.arrays import open_array
from engine.store.info import inspect_image
from engine.store.location import Location
from engine.store.resolve import read_group

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_labels(path: str, *, label: str | None = None) -> LabelSource:
    """Open the full-resolution label image at a path, without reading its pixels.

    Parameters
    ----------
    path : str
        An OME-Zarr image with a ``labels`` group (a result of tilewright is one), that labels
        group or one image of it, an OME-Zarr image of integers, or a TIFF or PNG of one channel.
    label : str, optional
        Which image of the labels group; needed where there are several.

    Returns
    -------
    LabelSource
        Level 0.

    Raises
    ------
    InputError
        If there is nothing at the path, it is no label image, or `label` does not choose one.
    """
    place = Location.parse(path)
    if not place.is_file():
        if not place.can_list or place.is_folder():
            return _open_folder(place, label)
        raise InputError(
            where=path, expected="a label image", found="nothing there", remedy="Check the path."
        )
    if not place.is_local:
        raise InputError(
            where=path,
            expected="labels in an OME-Zarr, which can be read from there, or a local file",
            found="a file in a bucket or on a web server",
            remedy="Copy the file and give its path.",
        )
    if label is not None:
        raise _not_chosen(path, label, "a file, which holds one image without a name")
    suffix = place.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return _open_tiff(str(place))
    if suffix == ".png":
        return _open_png(str(place))
    raise InputError(
        where=path,
        expected="labels in an OME-Zarr, a TIFF or a PNG",
        found=f"a file that ends in {suffix!r}",
        remedy="Convert the labels to a TIFF of integers.",
    )


def _open_folder(folder: Location, label: str | None) -> LabelSource:
    """Labels of an OME-Zarr: those beside an image, a listing of labels, or an image itself."""
    group = read_group(folder)
    names = group.ome.get("labels")
    documents = ("zarr.json", ".zgroup", ".zattrs")
    if names is None and any((folder / "labels" / name).is_file() for name in documents):
        folder = folder / "labels"
        names = read_group(folder).ome.get("labels")
    if not isinstance(names, list):
        if label is not None:
            raise _not_chosen(str(folder), label, "an image without label images")
        return _open_image(folder)
    if label is None and len(names) == 1:
        label = str(names[0])
    if label is None or label not in names:
        listed = ", ".join(map(str, names)) or "none"
        raise _not_chosen(str(folder), label, f"label images: {listed}")
    return _open_image(folder / label)


def _open_image(folder: Location) -> LabelSource:
    """Level 0 of one OME-Zarr image."""
    info = inspect_image(folder)
    array = open_array(Location(info.path) / info.levels[0].path)
    return LabelSource(info.path, array, tuple(axis.name for axis in info.axes))


def _open_tiff(path: str) -> LabelSource:
    """First series of a TIFF, read piece by piece."""
    try:
        with tifffile.TiffFile(path) as file:
            axes = tuple(str(file.series[0].axes).lower())
        store = tifffile.imread(path, aszarr=True, series=0, level=0)
        array = zarr.open_array(store, mode="r")
    except (tifffile.TiffFileError, OSError, ValueError, IndexError) as err:
        raise _unreadable(path, "TIFF", err) from err
    # The store keeps the file open as long as its array is in use.
    weakref.finalize(array, store.close)
    return LabelSource(path, array, axes)


def _open_png(path: str) -> LabelSource:
    """PNG of one channel; the format can only be decoded whole."""
    try:
        array: NDArray[Any] = imagecodecs.png_decode(Path(path).read_bytes())
    except (imagecodecs.PngError, OSError, ValueError) as err:
        raise _unreadable(path, "PNG", err) from err
    # Colour lies along a last, third axis: named so, the check of axes refuses it.
    return LabelSource(path, array, ("y", "x", "s")[: array.ndim])


def _unreadable(path: str, kind: str, err: Exception) -> InputError:
    return InputError(
        where=path,
        expected=f"a readable {kind}",
        found=f"{type(err).__name__}: {err}",
        remedy="Check that the file is whole.",
    )


def _not_chosen(path: str, label: str | None, found: str) -> InputError:
    return InputError(
        where=path,
        expected="exactly one label image" if label is None else f"a label image {label!r}",
        found=found,
        remedy="Name one that is there, or give the path of the label image itself.",
    )

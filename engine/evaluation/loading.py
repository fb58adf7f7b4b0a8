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

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    suffix = Path(path).suffix.lower()
    if "://" not in path and not Path(path).exists():
        raise InputError(
            where=path,
            expected="a label image",
            found="nothing",
            remedy="Check the path.",
        )
    if suffix in (".tif", ".tiff", ".png"):
        if label is not None:
            raise _not_chosen(path, label, "an image file, which holds only one")
        return _open_png(path) if suffix == ".png" else _open_tiff(path)
    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, NotADirectoryError, ValueError) as err:
        raise InputError(
            where=path,
            expected="an OME-Zarr group, or a TIFF or PNG of labels",
            found="something else",
            remedy="Give the root of an OME-Zarr image, its labels group, or a label image file.",
        ) from err
    return _open_group(path, group, label)


def _open_group(path: str, group: zarr.Group, label: str | None) -> LabelSource:
    """Labels of an OME-Zarr group: of its labels group, of itself as one, or itself."""
    names = _ome(group).get("labels")
    if names is None and isinstance(inner := group.get("labels"), zarr.Group):
        group, path = inner, f"{path.rstrip('/')}/labels"
        names = _ome(group).get("labels")
    if names is None:
        if label is not None:
            raise _not_chosen(path, label, "an image without a labels group")
        return _open_multiscale(path, group)
    if label is None and len(names) == 1:
        label = str(names[0])
    if label is None or label not in names:
        raise _not_chosen(path, label, f"label images {', '.join(map(str, names)) or '(none)'}")
    chosen = group.get(label)
    if not isinstance(chosen, zarr.Group):
        raise _not_chosen(path, label, "the name in the metadata, but no image under it")
    return _open_multiscale(f"{path.rstrip('/')}/{label}", chosen)


def _open_multiscale(path: str, group: zarr.Group) -> LabelSource:
    """Level 0 of a multiscale image (OME-NGFF 0.4 and 0.5, section multiscales)."""
    try:
        multiscale = _ome(group)["multiscales"][0]
        axes = tuple(str(axis["name"]) for axis in multiscale["axes"])
        array = group[multiscale["datasets"][0]["path"]]
    except (KeyError, IndexError, TypeError) as err:
        raise InputError(
            where=path,
            expected="OME-Zarr 0.4 or 0.5: multiscales with named axes and datasets that exist",
            found=f"attributes {sorted(group.attrs)} and members {sorted(group.keys())}",
            remedy="Give the root of an OME-Zarr image or its labels group.",
        ) from err
    if not isinstance(array, zarr.Array):
        raise InputError(
            where=path,
            expected="an array at level 0",
            found="a group",
            remedy="Check how the image was written.",
        )
    return LabelSource(path, array, axes)


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """OME metadata of a group: under ``ome`` since 0.5, at the top before."""
    attributes = group.attrs.asdict()
    inner = attributes.get("ome", attributes)
    return inner if isinstance(inner, dict) else {}


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

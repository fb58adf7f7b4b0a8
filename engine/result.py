"""Opening a result in Python: an xarray DataTree with named dimensions and physical places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array
import numpy as np
import xarray

from engine.ledger import Ledger
from engine.store import Location, image_groups, inspect_image, open_array

if TYPE_CHECKING:
    from pathlib import Path

    from engine.store import ImageInfo


def open_result(out: str | Path) -> xarray.DataTree:
    """Open an OME-Zarr image, with its labels and maps, lazily.

    Parameters
    ----------
    out : str or Path
        A result of a run, or any OME-Zarr image.

    Returns
    -------
    xarray.DataTree
        The root's levels are the nodes ``/0``, ``/1``, …; those of a label image ``/labels/NAME/0``
        and of a map ``/maps/NAME/0`` (of a class's probability ``/maps/probability/CLASS/0``).
        Each holds one variable, ``image``, ``labels`` or the map's name, with dimensions named as
        the axes, one chunk per stored chunk, and the places of pixel centres as coordinates, in
        the unit given in their attribute ``units``.

    Raises
    ------
    InputError
        If there is no image.
    """
    root = Location.parse(out)
    nodes = _levels(inspect_image(root), "", "image")
    for path in image_groups(root):
        variable = "labels" if path.startswith("labels/") else path.rsplit("/", 1)[-1]
        nodes |= _levels(inspect_image(root / path), f"/{path}", variable)
    tree = xarray.DataTree.from_dict(nodes)
    ledger = Ledger(root)
    if ledger.exists:
        document = ledger.read_run()
        tree.attrs = {k: document[k] for k in ("source", "digest", "created") if k in document}
    return tree


def _levels(info: ImageInfo, prefix: str, variable: str) -> dict[str, xarray.Dataset]:
    """Levels of one image, by path in the tree."""
    nodes = {}
    names = [axis.name for axis in info.axes]
    for k, level in enumerate(info.levels):
        array = open_array(Location(info.path) / level.path)
        chunks = dask.array.from_zarr(array)
        coords = {}
        for axis, n, step, shift in zip(
            info.axes, level.shape, level.scale, level.translation, strict=True
        ):
            attrs = {"units": axis.unit} if axis.unit else {}
            places: object = np.arange(n) * step + shift
            if axis.name == "c" and len(info.channel_names) == n:
                places = list(info.channel_names)
            coords[axis.name] = xarray.Variable(axis.name, places, attrs)
        data = xarray.DataArray(chunks, dims=names, coords=coords, name=variable)
        nodes[f"{prefix}/{k}"] = data.to_dataset()
    return nodes

"""A folder or a glob of equal frames as one image with a leading t axis."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.store.sources.base import FileStamp, Source, SourceInfo, stamp
from engine.store.sources.checks import check_request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tiling.box import Box

# Frames kept open at once: more than a worker has threads, few beside any limit on open files.
_OPEN_FRAMES = 16


@dataclass
class _Held:
    """An open frame and the number of threads that read from it now."""

    frame: Source
    users: int = 0


class FramesSource(Source):
    """Frames of equal shape, dtype and channels, one file each, in natural order of their names.

    Parameters
    ----------
    where : str
        The folder or pattern, for messages.
    files : tuple of Path
        The frames in order; at least one.
    ignored : tuple of Path
        Other files that were found there; named in the properties.
    open_frame : callable
        Opens one frame; the second argument is that of `open_source`'s ``verify``.
    verify : bool
        Open every frame now and compare it with the first. Without, a frame is compared when it
        is first read.

    Raises
    ------
    InputError
        If a frame cannot be opened, or differs from the first.
    """

    def __init__(
        self,
        where: str,
        files: tuple[Path, ...],
        ignored: tuple[Path, ...],
        open_frame: Callable[[Path, bool], Source],
        *,
        verify: bool,
    ) -> None:
        self._files = files
        self._open_frame = open_frame
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, _Held] = OrderedDict()
        with open_frame(files[0], verify) as first:
            self._first = first.info
        if "t" in self._first.axes:
            raise InputError(
                where=where,
                expected="frames that are single points in time",
                found=f"{files[0].name} with {self._first.size('t')} of its own",
                remedy="Ingest each file by itself.",
            )
        if verify:
            for path in files[1:]:
                with open_frame(path, True) as frame:
                    self._compare(path, frame.info)
        self.info = _stacked(self._first, files, ignored)

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box of one frame; see `Source.read`.

        Parameters
        ----------
        plane : mapping of str to int
            ``t`` is the place of the frame; z where frames are stacks.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (C, Y, X)
            Native byte order.

        Raises
        ------
        InputError
            If the frame cannot be read, or no longer equals the first.
        """
        check_request(self.info, plane, box)
        rest = {axis: index for axis, index in plane.items() if axis != "t"}
        held = self._borrow(plane["t"])
        try:
            return held.frame.read(rest, box)
        finally:
            self._give_back(held)

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """Stamps of all frames."""
        return tuple(stamp(p) for p in self._files)

    def close(self) -> None:
        """Close the frames that are open."""
        with self._lock:
            frames, self._frames = list(self._frames.values()), OrderedDict()
        for held in frames:
            held.frame.close()

    def _borrow(self, index: int) -> _Held:
        """Open a frame, or share the one that is open; it stays open until given back."""
        with self._lock:
            if index not in self._frames:
                self._frames[index] = _Held(self._reopen(index))
            held = self._frames[index]
            held.users += 1
            self._frames.move_to_end(index)
            return held

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            idle = [i for i, h in self._frames.items() if h.users == 0]
            surplus = idle[: max(0, len(self._frames) - _OPEN_FRAMES)]
            closing = [self._frames.pop(i) for i in surplus]
        for old in closing:
            old.frame.close()

    def _reopen(self, index: int) -> Source:
        frame = self._open_frame(self._files[index], False)
        try:
            self._compare(self._files[index], frame.info)
        except InputError:
            frame.close()
            raise
        return frame

    def _compare(self, path: Path, info: SourceInfo) -> None:
        first = self._first
        pairs = {
            "axes": (first.axes, info.axes),
            "shape": (first.shape, info.shape),
            "dtype": (first.dtype, info.dtype),
            "channels": (first.channel_names, info.channel_names),
            "units": (first.units, info.units),
        }
        differs = [(k, a, b) for k, (a, b) in pairs.items() if a != b]
        if not differs and not all(
            math.isclose(a, b, rel_tol=0.01) for a, b in zip(first.scale, info.scale, strict=True)
        ):
            differs = [("pixel size", first.scale, info.scale)]
        if differs:
            name, wanted, found = differs[0]
            raise InputError(
                where=str(path),
                expected=f"{name} {_text(wanted)} like the first frame {self._files[0].name}",
                found=_text(found),
                remedy="Take it out of the folder, or name the frames that belong together by a "
                "pattern such as 'folder/frame_*.tif'.",
            )


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts numbers in names by value: frame2 before frame10.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tuple
        Comparable with the key of any other path.

    Examples
    --------
    >>> sorted([Path("f10.tif"), Path("f2.tif")], key=natural_key)[0].name
    'f2.tif'
    """
    parts = re.split(r"(\d+)", path.as_posix())
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts)


def _text(value: object) -> str:
    return " x ".join(str(v) for v in value) or "none" if isinstance(value, tuple) else str(value)


def _stacked(first: SourceInfo, files: tuple[Path, ...], ignored: tuple[Path, ...]) -> SourceInfo:
    properties = {f"first.{k}": v for k, v in first.properties.items()}
    properties["frames"] = json.dumps([p.name for p in files])
    if ignored:
        properties["ignored"] = json.dumps([p.name for p in ignored])
    return SourceInfo(
        axes=("t", *first.axes),
        shape=(len(files), *first.shape),
        dtype=first.dtype,
        scale=(1.0, *first.scale),
        units=(None, *first.units),
        channel_names=first.channel_names,
        channel_colors=first.channel_colors,
        properties=properties,
        preferred_block=first.preferred_block,
        format=f"{len(files)} frames, {first.format}",
        stored=("t", *first.stored),
        named_by=first.named_by or ("" if first.plane_axes else "the files, one for each t"),
    )

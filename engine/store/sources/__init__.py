"""Sources of ingest: one reader for each family of foreign formats.

`open_source` takes a path and gives a `Source`: facts of the image (`SourceInfo`) without reading
pixels, and boxes of its planes on request, in memory that does not grow with the image.
"""

from engine.store.sources.address import split_axes, with_axes
from engine.store.sources.base import FileStamp, Source, SourceInfo
from engine.store.sources.opening import FRAME_SUFFIXES, open_source, source_facts

__all__ = [
    "FRAME_SUFFIXES",
    "FileStamp",
    "Source",
    "SourceInfo",
    "open_source",
    "source_facts",
    "split_axes",
    "with_axes",
]

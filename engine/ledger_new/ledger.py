"""Records of what is done: written after the pixels, one small file per region and pass.

::

    OUT.ome.zarr/.tilewright/
        run.json                    what decides pixels, its digest, the input
        records/<pass>/<key>.json   a region of a pass is done
        failures/<pass>/<key>.json  a region of a pass failed, and why
        statistics/                 frozen results of pass 0
        objects/                    outlines of all objects, by the region that owns them
        work/                       what later passes need; removed when the run is complete
        logs/                       one file per run
        report.json                 what was measured
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from engine.store import read_json, write_atomic, write_json
from tiling import Box, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Version of the layout above; a newer one is refused.
FORMAT = 1
FOLDER = ".tilewright"

# What of run.json is read again, and its types.
_RUN_KEYS = {
    "digest": str,
    "parts": dict,
    "source": str,
    "level": int,
    "channels": list,
    "layers": list,
    "created": str,
}


@dataclass(frozen=True)
class Record:
    """What is known of one region of one pass that is done.

    Parameters
    ----------
    pass_name : str
        The pass.
    region : Region
        Plane and core, in pixels of the array that the pass writes.
    digest : str
        Digest of everything that decided the pixels.
    seconds : float
        Time the task took.
    peak_bytes : int
        Largest resident size of the worker process when the task ended.
    worker : str
        Address of the worker.
    notes : mapping of str to number or list of numbers
        Counts and measures.
    """

    pass_name: str
    region: Region
    digest: str
    seconds: float
    peak_bytes: int
    worker: str
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {
            "pass": self.pass_name,
            "plane": list(self.region.plane),
            "start": list(self.region.core.start),
            "stop": list(self.region.core.stop),
            "digest": self.digest,
            "seconds": round(self.seconds, 4),
            "peak_bytes": self.peak_bytes,
            "worker": self.worker,
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Make a record from a JSON object.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        core = Box(tuple(data["start"]), tuple(data["stop"]))
        return cls(
            data["pass"],
            Region(tuple(data["plane"]), core),
            data["digest"],
            float(data["seconds"]),
            int(data["peak_bytes"]),
            data["worker"],
            data["notes"],
        )


@dataclass(frozen=True)
class Failure:
    """Why a region of a pass is missing.

    Parameters
    ----------
    pass_name : str
        The pass.
    region : Region
        Plane and core.
    message : str
        The error, as the user reads it.
    attempts : int
        How often it was tried.
    """

    pass_name: str
    region: Region
    message: str
    attempts: int


class Ledger:
    """The records of one OUT.

    Parameters
    ----------
    out : Path
        Folder of the result.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / FOLDER

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.folder / "run.json").is_file()

    def path(self, *parts: str) -> Path:
        """Path of a file among the records."""
        return self.folder.joinpath(*parts)

    def read_run(self) -> dict[str, Any]:
        """Read what the run was started with.

        Raises
        ------
        OutputError
            If the document is missing, damaged or of a newer version.
        """
        path = self.folder / "run.json"
        document = read_json(path, OutputError)
        if document.get("format") != FORMAT:
            raise OutputError(
                where=str(path),
                expected=f"format {FORMAT}",
                found=f"format {document.get('format')!r}",
                remedy="Use the version of tilewright that wrote it, or another OUT.",
            )
        wrong = [k for k, kind in _RUN_KEYS.items() if not isinstance(document.get(k), kind)]
        if wrong:
            raise OutputError(
                where=str(path),
                expected="what a run was started with, as tilewright writes it",
                found=f"no {', '.join(wrong)}",
                remedy="The file is damaged: copy OUT again, or choose another one.",
            )
        return document

    def write_run(self, document: Mapping[str, Any]) -> None:
        """Write what the run is started with; in one step."""
        write_json(self.folder / "run.json", {"format": FORMAT, **document})

    def write(self, record: Record) -> None:
        """Say that a region is done. Called last, when its pixels stand."""
        path = self._file("records", record.pass_name, record.region)
        write_atomic(path, json.dumps(record.to_json()).encode())
        self._file("failures", record.pass_name, record.region).unlink(missing_ok=True)

    def records(self, pass_name: str, digest: str) -> Iterator[Record]:
        """Read the records of a pass that belong to a digest, in order of their names.

        Raises
        ------
        OutputError
            If a record is damaged.
        """
        for path, document in self._documents("records", pass_name):
            try:
                record = Record.from_json(document)
            except (KeyError, TypeError, ValueError) as err:
                raise _damaged(path, err) from err
            if record.digest == digest:
                yield record

    def write_failure(self, failure: Failure) -> None:
        """Keep why a region is missing, until it is done."""
        path = self._file("failures", failure.pass_name, failure.region)
        document = {
            "pass": failure.pass_name,
            "plane": list(failure.region.plane),
            "start": list(failure.region.core.start),
            "stop": list(failure.region.core.stop),
            "message": failure.message,
            "attempts": failure.attempts,
        }
        write_json(path, document)

    def failures(self) -> Iterator[Failure]:
        """Read why regions are missing."""
        folder = self.folder / "failures"
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        for pass_name in names:
            for path, data in self._documents("failures", pass_name):
                try:
                    core = Box(tuple(data["start"]), tuple(data["stop"]))
                    region = Region(tuple(data["plane"]), core)
                    yield Failure(data["pass"], region, data["message"], data["attempts"])
                except (KeyError, TypeError, ValueError) as err:
                    raise _damaged(path, err) from err

    def forget_failures(self, pass_name: str) -> None:
        """Remove the failures of a pass that is about to be tried again."""
        for path, _ in self._documents("failures", pass_name):
            path.unlink(missing_ok=True)

    def _file(self, kind: str, pass_name: str, region: Region) -> Path:
        return self.folder / kind / pass_name / f"{region.key}.json"

    def _documents(self, kind: str, pass_name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        folder = self.folder / kind / pass_name
        if folder.is_dir():
            for path in sorted(folder.glob("*.json")):
                yield path, read_json(path, OutputError)


def _damaged(path: Path, err: Exception) -> OutputError:
    return OutputError(
        where=str(path),
        expected="a record as tilewright writes it",
        found=f"{type(err).__name__}: {err}",
        remedy="Remove this file; its region is then computed again.",
    )

"""The document of a run: what decides its pixels, where they come from, how it was started."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from engine.ledger import effects
from engine.store.checksums import checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.location import Location

#: Version of what the ledger writes; others are refused.
FORMAT = 2

# What is read again, and its types.
_KEYS = {
    "digest": str,
    "parts": dict,
    "source": str,
    "level": int,
    "channels": list,
    "layers": list,
    "created": str,
}


def write_document(place: Location, document: Mapping[str, Any]) -> None:
    """Write the document of a run in one step.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    body = {"format": FORMAT, **document}
    text = json.dumps({**body, "checksum": _checksum(body)}, indent=2, allow_nan=False)
    effects.write(place, (text + "\n").encode())


def read_document(place: Location) -> dict[str, Any]:
    """Read the document of a run.

    Raises
    ------
    OutputError
        If it is missing, damaged, edited, or of another version.
    """
    try:
        document = json.loads(effects.read(place))
    except FileNotFoundError as err:
        raise _wrong(place, "nothing there") from err
    except ValueError as err:
        raise _wrong(place, f"damaged JSON ({err})") from err
    if not isinstance(document, dict):
        raise _wrong(place, f"a JSON {type(document).__name__}")
    _check_format(place, document.get("format"))
    missing = [k for k, kind in _KEYS.items() if not _is(document.get(k), kind)]
    if missing:
        raise _wrong(place, f"no proper {', '.join(missing)}")
    if not all(isinstance(value, str) for value in document["parts"].values()):
        raise _wrong(place, "parts that are no text")
    written = document.pop("checksum", None)
    if written != _checksum(document):
        raise _wrong(place, "a content that does not agree with its checksum")
    return document


def _check_format(place: Location, found: object) -> None:
    if found == FORMAT:
        return
    if found == 1:
        raise OutputError(
            where=str(place),
            expected=f"format {FORMAT}",
            found="format 1, written by tilewright 0.1.0 before its release",
            remedy="Start anew in another OUT.",
        )
    raise OutputError(
        where=str(place),
        expected=f"format {FORMAT}",
        found=f"format {found!r}",
        remedy="Use the version of tilewright that wrote it, or another OUT.",
    )


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _checksum(document: Mapping[str, Any]) -> str:
    return checksum(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def _wrong(place: Location, found: str) -> OutputError:
    return OutputError(
        where=str(place),
        expected="what a run was started with, as tilewright wrote it",
        found=found,
        remedy="It is damaged or was edited: put back the original, or choose another OUT.",
    )

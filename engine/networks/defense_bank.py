"""Banks of polynomial defenses: files that hold an ordered set of them, made for one model.

A bank is one safetensors file: coefficients (N, S, S, A) as float16 or float32, F1 before and after
each defense, and a JSON text in its metadata that says for which model, in which layout and with
which scaling of intensities they were found.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engine.errors import InputError, OutputError
from engine.methods.defenses import CAP, FIELD, Layout, evaluate
from engine.networks.lookup import Kind, bundled_files, find
from engine.store import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Version of the file; a reader takes its own and older ones.
VERSION = 1

Mode = Literal["global", "field"]

_KEY = "tilewright.defenses"
_SUFFIX = ".safetensors"
_KIND = Kind(
    "bank of defenses", "a file or the name of a bundled bank", "Bundled banks",
    folder=False, error=InputError,
)  # fmt: skip
# Fields are computed from rounded coefficients, and rounded themselves.
_CAP_SLACK = 1e-5
_STORED = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass(frozen=True)
class DefenseBank:
    """An ordered set of polynomial defenses.

    Parameters
    ----------
    name : str
        What people call it.
    layout : Layout
        Of every defense.
    coefficients : ndarray of shape (N, S, S, A), float32
        N at least 1.
    model_sha256 : str
        Digest of the model that they were found for.
    f1_before, f1_after : ndarray of shape (N,), float32
        F1 at IoU 0.75 of the piece that a defense was found on, without and with it.
    mode : {"global", "field"}
        How intensities were scaled when they were found.
    origins : tuple of str
        Piece of each defense: image and place.
    version : int
        Of the file.

    Raises
    ------
    InputError
        If lengths or shapes do not fit, or a value is not finite or beyond the cap.
    """

    name: str
    layout: Layout
    coefficients: np.ndarray
    model_sha256: str
    f1_before: np.ndarray
    f1_after: np.ndarray
    mode: Mode
    origins: tuple[str, ...]
    version: int = VERSION

    def __post_init__(self) -> None:
        count = len(self.origins)
        for field, shape in (
            ("coefficients", (count, *self.layout.shape)),
            ("f1_before", (count,)),
            ("f1_after", (count,)),
        ):
            array = getattr(self, field)
            _require(array.shape == shape, self._at(field), f"shape {shape}", str(array.shape))
            _require(array.dtype == np.float32, self._at(field), "float32", str(array.dtype))
            _require(bool(np.isfinite(array).all()), self._at(field), "finite values", "others")
        _require(count >= 1, self._at("coefficients"), "at least one defense", "none")
        _require(self.mode in ("global", "field"), self._at("mode"), "global or field", self.mode)
        # One by one: all fields at once take 1/2 MB each, twice.
        largest = max(float(np.abs(evaluate(c, self.layout)).max()) for c in self.coefficients)
        _require(
            largest <= CAP + _CAP_SLACK, self._at("coefficients"),
            f"fields within ±{CAP}", f"{largest:.4f}",
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def gains(self) -> np.ndarray:
        """How much each defense raised F1 on its own piece: (N,) float32."""
        gains: np.ndarray = self.f1_after - self.f1_before
        return gains

    @property
    def sha256(self) -> str:
        """Digest of all that decides results: coefficients, layout, model, scaling."""
        layout = self.layout
        facts = [layout.degree, layout.blocks, layout.field, self.model_sha256, self.mode]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(np.ascontiguousarray(self.coefficients, dtype="<f4").tobytes())
        return digest.hexdigest()

    def fields(self) -> np.ndarray:
        """All defenses at strength 1: (N, field, field) float32 in [-0.25, 0.25]."""
        return np.stack([evaluate(c, self.layout) for c in self.coefficients])

    def check_model(self, sha256: str) -> None:
        """Refuse another model.

        Parameters
        ----------
        sha256 : str
            Digest of the model that is to be used.

        Raises
        ------
        InputError
            If the bank was made for another one.
        """
        _require(
            sha256 == self.model_sha256, f"bank of defenses {self.name!r}",
            f"model {self.model_sha256[:12]}…, for which it was made", f"{sha256[:12]}…",
            "Take a bank made for this model, or make one: tilewright train defenses.",
        )  # fmt: skip

    def _at(self, field: str) -> str:
        return f"bank of defenses {self.name!r}: {field}"


def bundled_banks() -> tuple[str, ...]:
    """Names of the banks that come with the package, sorted."""
    return tuple(_bundled())


def open_bank(path_or_name: str) -> DefenseBank:
    """Read a bank of defenses, or a bundled one by its name.

    Parameters
    ----------
    path_or_name : str
        Path of a file, or a name of `bundled_banks`. A bundled name wins; write ``./NAME`` for a
        file of the same name.

    Returns
    -------
    DefenseBank
        Checked.

    Raises
    ------
    InputError
        If it is not there, damaged, no bank, newer than this version, or of another field size.
    """
    file = find(path_or_name, _bundled(), _KIND)
    try:
        with safe_open(file, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            arrays = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as err:
        raise _damaged(file, str(err)) from err
    return _parse(arrays, metadata, file)


def save_bank(bank: DefenseBank, file: Path, *, half: bool = False) -> None:
    """Write a bank; the file appears complete or not at all.

    Parameters
    ----------
    bank : DefenseBank
        What to write.
    file : Path
        Its folder is made where missing.
    half : bool
        Whether to store coefficients as float16; the bank must hold such values.

    Raises
    ------
    OutputError
        If the file exists.
    ValueError
        If `half` would change a coefficient.
    """
    if file.exists():
        raise OutputError(
            where=str(file), expected="no such file yet", found="one",
            remedy="Choose another --out or remove it.",
        )  # fmt: skip
    stored = bank.coefficients.astype(np.float16) if half else bank.coefficients
    if not np.array_equal(stored.astype(np.float32), bank.coefficients):
        msg = "coefficients must be float16 values to be stored as such: round them first"
        raise ValueError(msg)
    layout = bank.layout
    facts = {
        "version": bank.version, "name": bank.name, "degree": layout.degree,
        "blocks": layout.blocks, "field": layout.field, "model_sha256": bank.model_sha256,
        "mode": bank.mode, "origins": bank.origins,
    }  # fmt: skip
    arrays = {
        "coefficients": np.ascontiguousarray(stored),
        "f1_before": np.ascontiguousarray(bank.f1_before),
        "f1_after": np.ascontiguousarray(bank.f1_after),
    }
    write_atomic(file, save(arrays, {_KEY: json.dumps(facts)}))


def _parse(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], file: Path
) -> DefenseBank:
    if _KEY not in metadata:
        raise _damaged(file, f"no {_KEY!r} in its metadata: some other safetensors file")
    try:
        facts = json.loads(metadata[_KEY])
        version = int(facts["version"])
    except (ValueError, TypeError, KeyError) as err:
        raise _damaged(file, repr(err)) from err
    _require(
        version <= VERSION, f"{file}: version", f"at most {VERSION}", str(version),
        "It was made by a newer tilewright: update.",
    )  # fmt: skip
    try:
        return _bank(arrays, facts)
    except (ValueError, TypeError, KeyError) as err:
        raise _damaged(file, repr(err)) from err


def _bank(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> DefenseBank:
    name, field = str(facts["name"]), int(facts["field"])
    _require(
        field == FIELD, f"bank of defenses {name!r}: field", f"{FIELD} pixels", str(field),
        f"Only fields of {FIELD} pixels are supported.",
    )  # fmt: skip
    stored = arrays["coefficients"]
    if stored.dtype not in _STORED:
        msg = f"coefficients must be float16 or float32, got {stored.dtype}"
        raise ValueError(msg)
    return DefenseBank(
        name=name,
        layout=Layout(int(facts["degree"]), int(facts["blocks"]), field),
        coefficients=stored.astype(np.float32),
        model_sha256=str(facts["model_sha256"]),
        f1_before=arrays["f1_before"],
        f1_after=arrays["f1_after"],
        mode=cast("Mode", str(facts["mode"])),
        origins=tuple(str(origin) for origin in facts["origins"]),
        version=int(facts["version"]),
    )


def _bundled() -> dict[str, Path]:
    return bundled_files("bundled_banks", _SUFFIX)


def _damaged(file: Path, found: str) -> InputError:
    return InputError(
        where=str(file), expected="a bank of defenses", found=found,
        remedy="Copy it again, or make one: tilewright train defenses.",
    )  # fmt: skip


def _require(
    ok: bool, where: str, expected: str, found: str,
    remedy: str = "Copy the bank again, or make one: tilewright train defenses.",
) -> None:  # fmt: skip
    if not ok:
        raise InputError(where=where, expected=expected, found=found, remedy=remedy)

"""Files of a model folder: found, known by their first bytes, pickles refused; written whole."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PosixPath

from engine.errors import ModelError

WEIGHT_FILES = ("weights.safetensors", "weights_best.h5")

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_HASH_PIECE_BYTES = 1 << 20


#: Where this package lies in this process.
PACKAGE = Path(__file__).parent


class PackagePath(PosixPath):
    """Path of a file that comes with this package; in another process, of the package there.

    Examples
    --------
    >>> package_path("bundled").is_dir()
    True
    """

    def __reduce__(self) -> tuple[object, ...]:
        if not self.is_relative_to(PACKAGE):
            return Path, (str(self),)
        return package_path, self.relative_to(PACKAGE).parts


def package_path(*parts: str) -> Path:
    """Path of a file of this package, as this process has it."""
    return PackagePath(PACKAGE, *parts)


def find_weights(path: Path) -> Path:
    """Find the one file of weights of a model folder.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    Path
        One of `WEIGHT_FILES`, whose first bytes are those of its format.

    Raises
    ------
    ModelError
        If none or both are there, or the file is damaged or a pickle.
    """
    present = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
    if len(present) != 1:
        for file in sorted(path.iterdir()) if not present else ():
            refuse_pickle(file)
        raise ModelError(
            where=str(path), expected=f"one of {' and '.join(WEIGHT_FILES)}",
            found="neither" if not present else "both",
            remedy="Put the weights there under that name." if not present else "Remove one.",
        )  # fmt: skip
    file = present[0]
    refuse_pickle(file)
    head = _head(file)
    sound = head == _HDF5_MAGIC if file.suffix == ".h5" else _is_safetensors(file, head)
    if not sound:
        raise ModelError(
            where=str(file), expected=f"a {file.suffix} file", found=f"a file that begins {head!r}",
            remedy="The file is damaged or of another format; copy it again.",
        )  # fmt: skip
    return file


def _is_safetensors(file: Path, head: bytes) -> bool:
    """Whether the header's length (uint64, little endian) fits into the file."""
    return len(head) == 8 and 2 <= int.from_bytes(head, "little") <= file.stat().st_size - 8


def digest_files(files: Sequence[Path]) -> str:
    """Digest names, sizes and bytes of files.

    Parameters
    ----------
    files : sequence of Path
        In the order in which they count.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while piece := stream.read(_HASH_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def refuse_pickle(file: Path) -> None:
    """Raise if a file is, or could be, a pickle: loading one runs the code in it.

    Parameters
    ----------
    file : Path
        Judged by its first bytes and its suffix.

    Raises
    ------
    ModelError
        If it is one.
    """
    head = _head(file)
    protocol = head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6)
    if protocol or head[:4] == b"PK\x03\x04" or file.suffix.lower() in _PICKLE_SUFFIXES:
        raise ModelError(
            where=str(file), expected="weights as .safetensors or .h5",
            found="a pickle or an archive",
            remedy="Loading a pickle can run any code; convert the weights to safetensors.",
        )  # fmt: skip


def _head(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        return stream.read(8)


def read_json(file: Path) -> dict[str, object]:
    """Read a JSON object.

    Parameters
    ----------
    file : Path
        The file.

    Returns
    -------
    dict
        Its keys and values.

    Raises
    ------
    ModelError
        If it is missing, unreadable, or holds something else.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ModelError(
            where=str(file), expected="a file", found="none",
            remedy="A model folder holds config.json, thresholds.json and weights; stardist's own "
            'default thresholds are {"prob": 0.5, "nms": 0.4}.',
        ) from err  # fmt: skip
    except (OSError, ValueError) as err:
        raise ModelError(
            where=str(file), expected="readable JSON", found=str(err), remedy="Copy it again.",
        ) from err  # fmt: skip
    if not isinstance(values, dict):
        raise ModelError(
            where=str(file), expected="a JSON object", found=type(values).__name__,
            remedy="Copy it again.",
        )  # fmt: skip
    return values


def write_json(file: Path, values: Mapping[str, object]) -> None:
    """Write a JSON object as people read it."""
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def refuse_existing(path: Path) -> None:
    """Raise a `ModelError` where a folder is to be made and something stands."""
    if path.exists():
        raise ModelError(
            where=str(path), expected="no such folder yet", found="one",
            remedy="Choose another name or remove it.",
        )  # fmt: skip


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder that appears complete or not at all.

    Parameters
    ----------
    path : Path
        The folder; its parent is made where missing.

    Yields
    ------
    Path
        A folder beside it to write into; renamed at the end, removed after an error.

    Raises
    ------
    ModelError
        If `path` exists.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp makes it readable by its owner alone
        yield temporary
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise

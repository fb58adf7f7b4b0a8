"""The command line as a user meets it: words in; exit code, messages and changed files out."""

import hashlib
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.cli import main

Command = Callable[..., "Answer"]


@dataclass(frozen=True)
class Answer:
    """What a command answered, and the files that it made, changed or removed."""

    code: int
    out: str
    err: str
    touched: tuple[str, ...]

    def refuses(self, *fragments: str) -> None:
        """Assert exit code 2, one message with every fragment, and no file touched."""
        assert self.code == 2, self
        assert self.err.startswith("error "), self
        assert self.err.count("\n") == 1, self
        for fragment in ("expected", "found", *fragments):
            assert fragment in self.err, self
        assert "Traceback" not in self.err + self.out, self
        assert self.touched == (), self


def commands_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`tilewright` in this process, with `folder` as its working folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def tilewright(*words: object) -> Answer:
        before, handler = _files(folder), signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(sys, "argv", ["tilewright", *map(str, words)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        text, after = capsys.readouterr(), _files(folder)
        names = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        code = ended.value.code
        assert isinstance(code, int)
        return Answer(code, text.out, text.err, tuple(names))

    return tilewright


def _files(folder: Path) -> dict[str, str]:
    """Everything below a folder, with a digest of what it holds."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else "folder"
        for p in folder.rglob("*")
    }

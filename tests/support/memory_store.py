"""A store in memory, in place of every disk and bucket, that tells of each effect before it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

from engine.store.location import Location, Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class MemoryStore:
    """Objects by name, as `engine.store.location.Backend`; of many effects each comes singly."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.before: Callable[[str, str], None] = lambda effect, name: None

    def read(self, name: str) -> bytes:
        self.before("read", name)
        if name not in self.objects:
            raise FileNotFoundError(2, "nothing there", name)
        return self.objects[name]

    def write(self, name: str, data: bytes) -> None:
        self.before("write", name)
        self._put(name, data)

    def create(self, name: str, data: bytes) -> None:
        self.before("create", name)
        if name in self.objects:
            raise FileExistsError(17, "it exists", name)
        self._put(name, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.before("delete", name)
            self.objects.pop(name, None)

    def stat(self, name: str) -> Stat | None:
        self.before("stat", name)
        if name not in self.objects:
            return None
        return Stat(len(self.objects[name]), str(self.versions[name]))

    def children(self, name: str) -> tuple[list[str], list[str]]:
        self.before("list", name)
        below = [key.removeprefix(f"{name}/") for key in self.objects if key.startswith(f"{name}/")]
        folders = {key.split("/", 1)[0] for key in below if "/" in key}
        return sorted(folders), [key for key in below if "/" not in key]

    def walk(self, name: str) -> Iterator[tuple[str, Stat]]:
        self.before("list", name)
        for key in [key for key in self.objects if key.startswith(f"{name}/")]:
            stat = Stat(len(self.objects[key]), str(self.versions[key]))
            yield key.removeprefix(f"{name}/"), stat

    def remove(self, name: str) -> None:
        self.delete([key for key in self.objects if f"{key}/".startswith(f"{name}/")])

    def zarr_store(self, name: str, *, read_only: bool) -> NoReturn:
        raise NotImplementedError

    def _put(self, name: str, data: bytes) -> None:
        self.objects[name] = data
        self.versions[name] = self.versions.get(name, 0) + 1


@contextmanager
def in_memory(store: MemoryStore | None = None) -> Iterator[MemoryStore]:
    """Let every location lie in one store, a new one where None."""
    store = store or MemoryStore()
    with patch.object(Location, "_backend", property(lambda _: store)):
        yield store

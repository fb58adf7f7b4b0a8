"""Decoded pieces that a neighbouring box will need again, each decoded once, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np
    from numpy.typing import NDArray


@dataclass
class _Slot:
    """One piece: absent until the first caller has decoded it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    value: NDArray[np.generic] | None = None


class DecodeCache:
    """Least recently used decoded pieces; threads that want the same piece wait for one decoding.

    Parameters
    ----------
    limit_bytes : int
        Pieces are dropped, oldest first, while more than this is held. The newest piece always
        stays: a file whose only strip is the whole page would else be decoded for every box.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of all pieces held now."""
        with self._lock:
            return self._held()

    def get(self, key: Hashable, decode: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
        """Piece `key`, decoded now if it is not held.

        Parameters
        ----------
        key : hashable
            Name of the piece.
        decode : callable
            Makes the piece; called by one thread at a time for each key.

        Returns
        -------
        ndarray
            Not to be changed: others read it too.
        """
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
        with slot.lock:
            if slot.value is None:
                slot.value = decode()
            value = slot.value
        with self._lock:
            self._evict()
        return value

    def drop(self, key: Hashable) -> None:
        """Drop one piece, if it is held."""
        with self._lock:
            self._slots.pop(key, None)

    def clear(self) -> None:
        """Drop all pieces."""
        with self._lock:
            self._slots.clear()

    def _held(self) -> int:
        return sum(s.value.nbytes for s in self._slots.values() if s.value is not None)

    def _evict(self) -> None:
        """Drop the oldest pieces beyond the limit, but never the newest."""
        while len(self._slots) > 1 and self._held() > self._limit_bytes:
            self._slots.popitem(last=False)

"""Objects joined over the seams of cells, as a tree: blocks of cells first, then blocks of blocks.

::

    cell A │ cell B          each cell numbers its own parts; two parts are one object
      2 2  │  1 1            where pixels on both sides of a seam are neighbours
      2 2  │  1 .

Each level knows of the one below only what reaches its sides; what does not is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from engine.methods.components import Edges, Parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.methods.components import Connectivity

#: Neighbours, of a cell, that none of its neighbours looks at again: steps in rows and columns.
_BEYOND = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}


@dataclass(frozen=True)
class Components:
    """Components of a cell or of a block of cells, and which of them reach its sides.

    Parameters
    ----------
    edges : Edges
        Components along the four sides: 0 for none, else one more than their index here; empty
        where all are whole.
    parts : Parts
        What each measures so far, of n.
    heads : ndarray of shape (n, 3), int64
        The part that holds its first pixel: row and column of the cell, index there.
    pieces : ndarray of shape (n,), int64
        Parts that it is made of.
    """

    edges: Edges
    parts: Parts
    heads: np.ndarray
    pieces: np.ndarray

    def take(self, index: np.ndarray, edges: Edges) -> Components:
        """Take some of the components, along other sides."""
        return Components(edges, self.parts.take(index), self.heads[index], self.pieces[index])


@dataclass(frozen=True)
class Joint:
    """What became of the components of the children of a block.

    Parameters
    ----------
    target : tuple of ndarray of shape (n,), int64
        For each child, in C order, and each of its components: the index of the object in `closed`
        or, where it goes on beyond the block, -1 minus its index in `open`.
    closed : Components
        Objects that are whole; no sides.
    open : Components
        Components that reach a side of the block.
    """

    target: tuple[np.ndarray, ...]
    closed: Components
    open: Components


def open_cell(edges: Edges, parts: Parts, place: tuple[int, int]) -> Components:
    """Make the components of a single cell that may go on beyond it.

    Parameters
    ----------
    edges : Edges
        Its parts along the four sides.
    parts : Parts
        Those that touch a side, in the order of `Edges.touching`.
    place : tuple of int
        Row and column of the cell.
    """
    touching = edges.touching()
    heads = np.column_stack([np.tile(place, (len(touching), 1)), touching]).astype(np.int64)
    return Components(edges.renumbered(touching), parts, heads, np.ones(len(touching), np.int64))


def join_block(
    children: Mapping[tuple[int, int], Components], connectivity: Connectivity, *, last: bool
) -> Joint:
    """Join the components of neighbouring cells, or blocks of cells, over their seams.

    Parameters
    ----------
    children : mapping of (row, column) to Components
        A full rectangle of them, at least one.
    connectivity : {4, 8}
        Neighbours of a pixel.
    last : bool
        Whether there is nothing beyond the block: all objects are whole then.

    Returns
    -------
    Joint
        Children in C order.
    """
    order = sorted(children)
    starts = np.cumsum([0, *(len(children[place].pieces) for place in order)])
    begins = dict(zip(order, starts.tolist(), strict=False))
    total = int(starts[-1])
    pairs = np.concatenate(
        [np.zeros((0, 2), np.int64), *_links(children, begins, connectivity)], axis=0
    )
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (total, total))
    count, group = connected_components(graph, directed=False) if total else (0, np.zeros(0))
    group = np.asarray(group, np.int64)
    united = _united([children[place] for place in order], group, count)
    sides = _no_sides() if last else _outer(children, begins, group)
    going = sides.touching()
    whole = np.setdiff1d(np.arange(count), going)
    target = np.empty(count, np.int64)
    target[whole] = np.arange(len(whole))
    target[going] = -1 - np.arange(len(going))
    return Joint(
        tuple(target[part] for part in np.split(group, starts[1:-1])),
        united.take(whole, _no_sides()),
        united.take(going, sides.renumbered(going)),
    )


def _united(children: list[Components], group: np.ndarray, count: int) -> Components:
    """Unite components of the same group, each below `count`; no sides."""
    parts = Parts.concatenate([child.parts for child in children])
    heads = np.concatenate([child.heads for child in children])[parts.heads(group, count)]
    pieces = np.zeros(count, np.int64)
    np.add.at(pieces, group, np.concatenate([child.pieces for child in children]))
    return Components(_no_sides(), parts.united(group, count), heads, pieces)


def _links(
    children: Mapping[tuple[int, int], Components],
    begins: Mapping[tuple[int, int], int],
    connectivity: Connectivity,
) -> Iterator[np.ndarray]:
    """Pairs of components, numbered over all children, that meet over a seam: (n, 2) int64."""
    for (y, x), mine in children.items():
        for step in _BEYOND[connectivity]:
            other = (y + step[0], x + step[1])
            if other not in children:
                continue
            both = _meeting(*_facing(mine.edges, children[other].edges, step), connectivity)
            yield both - 1 + np.array([begins[y, x], begins[other]])


def _facing(one: Edges, other: Edges, step: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Components on both sides of the seam to a neighbour; at a corner one pixel of each."""
    match step:
        case (0, 1):
            return one.right, other.left
        case (1, 0):
            return one.bottom, other.top
        case (1, 1):
            return one.bottom[-1:], other.top[:1]
        case _:
            return one.bottom[:1], other.top[-1:]


def _outer(
    children: Mapping[tuple[int, int], Components],
    begins: Mapping[tuple[int, int], int],
    group: np.ndarray,
) -> Edges:
    """Find the groups, one more than their number, along the four sides of a block."""
    rows, columns = ([place[k] for place in children] for k in (0, 1))

    def along(side: str, axis: int, at: int) -> np.ndarray:
        """One side, from the children that stand at it."""
        found = []
        for place in sorted(place for place in children if place[axis] == at):
            numbers = getattr(children[place].edges, side)
            names = np.concatenate([[0], group[begins[place] :][: len(children[place].pieces)] + 1])
            found.append(names[numbers].astype(np.int32))
        return np.concatenate(found)

    return Edges(
        along("top", 0, min(rows)), along("bottom", 0, max(rows)),
        along("left", 1, min(columns)), along("right", 1, max(columns)),
    )  # fmt: skip


def _no_sides() -> Edges:
    return Edges(*(np.zeros(0, np.int32) for _ in range(4)))


def _meeting(one: np.ndarray, other: np.ndarray, connectivity: Connectivity) -> np.ndarray:
    """Pairs of parts, one more than their indices, that are neighbours over a seam: (n, 2)."""
    shifts = [(one, other)]
    if connectivity == 8:
        shifts += [(one[1:], other[:-1]), (one[:-1], other[1:])]
    found = [np.stack([a, b], axis=1)[(a > 0) & (b > 0)] for a, b in shifts]
    pairs: np.ndarray = np.unique(np.concatenate(found), axis=0).astype(np.int64)
    return pairs

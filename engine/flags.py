"""Pass 1b: what the defenses say of the objects of a region, kept cell by cell for the labels pass.

Cells are those of the grid, not regions: whoever draws labels finds the votes of any object by the
place of its anchor, however the passes before were cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.index import load_near, open_index
from engine.ledger import FOLDER
from engine.methods.flag_extras import best_first
from engine.methods.starconvex import StarObjects, keys
from engine.networks.defense_bank import DefenseBank, open_bank
from engine.pixels import open_levels, plane_number, read_pixels, read_sources
from engine.stages.base import Place, Raster
from engine.store import StoredObject, checksum, pack_arrays, unpack_arrays, write_file
from engine.work import Done, compute_on_device
from tiling import Box, Region

if TYPE_CHECKING:
    from engine.planning import Job
    from engine.stages.base import Made
    from engine.stages.flags import Flagged


@dataclass(frozen=True)
class ObjectFlags:
    """Votes of objects, by key; and the objects that only variants show.

    Parameters
    ----------
    keys : ndarray of shape (n,), uint64
        Ascending.
    votes, seen : ndarray of shape (n,), int32
        Defenses that flag the object, and that looked at it.
    distance : ndarray of shape (n,), float32
        Smallest distance to an object of a variant; infinite beyond tau.
    suspect : ndarray of shape (n,), bool
        Flagged as a false positive.
    extras : StarObjects
        Flagged as false negatives.
    extra_votes, extra_seen : ndarray of shape (m,), int32
        Defenses that show each, and that looked there.
    """

    keys: np.ndarray
    votes: np.ndarray
    seen: np.ndarray
    distance: np.ndarray
    suspect: np.ndarray
    extras: StarObjects
    extra_votes: np.ndarray
    extra_seen: np.ndarray

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Rows of objects by their keys: (k,) int64.

        Raises
        ------
        KeyError
            If one is not there.
        """
        rows = np.searchsorted(self.keys, wanted)
        found = rows < len(self.keys)
        found[found] = self.keys[rows[found]] == wanted[found]
        if not found.all():
            msg = f"{np.count_nonzero(~found)} of {len(wanted)} objects have no votes"
            raise KeyError(msg)
        return rows


def flag_region(job: Job, region: Region) -> Done:
    """Let all defenses look at a region, and keep their votes.

    Parameters
    ----------
    job : Job
        The run; its index tells where objects are kept.
    region : Region
        Plane and core in pixels of the level that is read.
    """
    index = open_index(job.out, job.index)
    bank = _open_bank(job.bank, job.bank_sha256, job.token)
    wanted = {"flags": region.core}
    boxes = job.flag_pipeline(reach=index.reach).fold(wanted)
    outer = boxes["image"]
    sources = read_sources(job, region.plane, outer)
    pixels = read_pixels(job, region.plane, outer)
    given = {
        "image": Raster(outer, pixels),
        "reference": _reference(job, region.plane, boxes["reference"]),
    }
    levels = open_levels(job)

    def run(trial: Job) -> Made:
        pipeline = trial.flag_pipeline(levels, bank, index.reach)
        return pipeline.run_from(given, wanted, Place(region.plane, trial.running_launch))

    made = compute_on_device(job, region, run)
    flagged: Flagged = made.products["flags"]
    stored = tuple(
        _save_cell(job, region.plane, cell, flagged)
        for cell in region.core.split((job.shard, job.shard))
    )
    notes = {
        **made.notes,
        "suspects": int(flagged.suspect.sum()),
        "suspected_missing": len(flagged.extras),
        "read": [*outer.start, *outer.stop],
    }
    return Done(notes, stored, sources, checksum(pixels))


def load_flags(job: Job, plane: tuple[int, ...], box: Box) -> ObjectFlags:
    """Votes of all objects whose anchors lie in the cells that a box meets."""
    cells = box.clip(job.area).snap(job.shard).clip(job.area)
    found = [_load_cell(job, plane, cell) for cell in cells.split((job.shard, job.shard))]
    order = np.argsort(np.concatenate([one.keys for one in found]))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in found])

    return ObjectFlags(
        keys=joined("keys")[order],
        votes=joined("votes")[order],
        seen=joined("seen")[order],
        distance=joined("distance")[order],
        suspect=joined("suspect")[order],
        extras=StarObjects.concatenate([one.extras for one in found], job.n_rays),
        extra_votes=joined("extra_votes"),
        extra_seen=joined("extra_seen"),
    )


def _reference(job: Job, plane: tuple[int, ...], box: Box) -> StarObjects:
    """Objects of pass 1 with anchors in a box, ordered by (-score, y, x)."""
    index = open_index(job.out, job.index)
    parts = [objects for objects, _ in load_near(job, index, plane, box).values()]
    objects = StarObjects.concatenate(parts, job.n_rays)
    objects = objects.take(objects.inside(box))
    return objects.take(best_first(objects))


def _save_cell(job: Job, plane: tuple[int, ...], cell: Box, flagged: Flagged) -> StoredObject:
    """Keep the part of a cell; a cell without objects is kept too."""
    own, extra = flagged.objects.inside(cell), flagged.extras.inside(cell)
    names = keys(flagged.objects.points[own], plane_number(job, plane), job.frame.extent)
    order = np.argsort(names)
    extras = flagged.extras.take(extra)
    arrays = {
        "keys": names[order],
        "votes": flagged.votes.votes[own][order],
        "seen": flagged.votes.seen[own][order],
        "distance": flagged.votes.distance[own][order],
        "suspect": flagged.suspect[own][order],
        "points": extras.points,
        "scores": extras.scores,
        "rays": extras.rays,
        "extra_votes": flagged.extra_votes[extra],
        "extra_seen": flagged.extra_seen[extra],
    }
    return write_file(job.out, _cell_name(job, plane, cell), pack_arrays(arrays))


def _load_cell(job: Job, plane: tuple[int, ...], cell: Box) -> ObjectFlags:
    found = unpack_arrays((job.out / _cell_name(job, plane, cell)).read_bytes())
    extras = StarObjects(*(found.pop(name) for name in ("points", "scores", "rays")))
    return ObjectFlags(extras=extras, **found)


def _cell_name(job: Job, plane: tuple[int, ...], cell: Box) -> str:
    """File, below OUT, of the flags of a cell."""
    return f"{FOLDER}/flags/{job.digests['flags'][:16]}/{Region(plane, cell).key}.npz"


@lru_cache(maxsize=2)
def _open_bank(name: str, sha256: str, _token: str) -> DefenseBank:
    """Bank of this process, the very one that was planned with."""
    bank = open_bank(name)
    if bank.sha256 != sha256:
        raise InputError(
            where=f"bank '{name}'",
            expected=f"the one that the run was started with, {sha256[:12]}…",
            found=f"another, {bank.sha256[:12]}…",
            remedy="Put the original back, or start anew with --restart.",
        )
    return bank

"""The stage that perturbs: which objects are lost, and which appear, when little is subtracted.

Jain, Shao, Hecht 2025, Algorithm 1. The region is read and normalised once; the defenses of a bank
are subtracted one after the other, the stages that segment run on each variant, and votes are
counted while the variants pass. Whatever is counted belongs to a field: the whole area that is
wanted, or, where fields may be left early, the fields of a lattice of the plane, each with the
objects around it and nothing else. So no flag depends on how the image is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.methods.defenses import evaluate, perturb
from engine.methods.flag_extras import Extras, covered, merge_extras, share_of
from engine.methods.flag_matching import compare, features
from engine.methods.flag_votes import Votes, chances, votes_needed
from engine.methods.starconvex import StarObjects
from engine.stages.base import Made, Place, Raster, Stage
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.device import Device
    from engine.networks.defense_bank import DefenseBank
    from engine.recipe import FlagSettings
    from engine.stages.base import Frame, Pipeline

#: Side in pixels of the fields that are left early: whole periods of the defenses. In a small field
#: one object near the votes that are needed is too large a share to leave it, and what lies around
#: it is computed with it
#: (2048 by 3072 pixels, votes of 71 defenses drawn on to 202 in 8 orders: fields of 512, 1024 and
#: 2048 save 2, 3 and 9 times the tiles, at 99.7, 99.5 and 99.4 % the same flags).
FIELD_SIDE = 2048

#: Defenses that look at a field before it may be left: one without objects may still miss some.
LEAST_LOOKED = 8


def field_side(settings: FlagSettings) -> int:
    """Side in pixels of the fields that are computed as a whole; 1 where none is left early."""
    return 1 if settings.stop == "never" else FIELD_SIDE


@dataclass(frozen=True)
class Flagged:
    """What the defenses say of the objects of a box.

    Parameters
    ----------
    objects : StarObjects
        Objects of the reference whose anchors lie in the box, ordered by (-score, y, x).
    votes : Votes
        Of these objects, in their order.
    suspect : ndarray of shape (n,), bool
        Those that are flagged as false positives.
    extras : StarObjects
        Flagged false negatives: objects that variants show where the reference has none.
    extra_votes, extra_seen : ndarray of shape (m,), int32
        Defenses that show each, and that looked there.
    """

    objects: StarObjects
    votes: Votes
    suspect: np.ndarray
    extras: StarObjects
    extra_votes: np.ndarray
    extra_seen: np.ndarray


@dataclass(frozen=True)
class Flags(Stage):
    """Perturb, segment, compare, count.

    Parameters
    ----------
    frame : Frame
        The image.
    segmentation : Pipeline
        Stages that make "objects" of "normalised": the very ones that made the reference.
    bank : DefenseBank or None
        The defenses; None while only planning.
    settings : FlagSettings
        Strength, distances, votes.
    reach : float
        Longest ray of any object of the reference in the image, in pixels.

    Notes
    -----
    An object is found again if it and a variant's object are nearest to each other and at most
    tau apart. Whether that holds is decided by what lies within 2 tau of the object's centroid,
    which is within `reach` of its anchor. Candidates that may share a box are within two rays of
    each other.
    """

    frame: Frame
    segmentation: Pipeline
    bank: DefenseBank | None
    settings: FlagSettings
    reach: float
    name = "flags"
    version = 2

    @property
    def around(self) -> int:
        """Pixels around a field in which candidates of false negatives are merged."""
        return 2 * int(np.ceil(self.reach))

    @property
    def margin(self) -> int:
        """Pixels around a field in which objects are compared."""
        return self.around + int(np.ceil(self.reach)) + 2 * int(np.ceil(self.settings.tau))

    def fields(self, wanted: Box) -> list[Box]:
        """Fields in which votes are counted for a box that is wanted."""
        side = field_side(self.settings)
        if side == 1:
            return [wanted]
        whole = wanted.snap(side).clip(self.frame.bounds)
        return list(whole.split((side, side)))

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for the image and for the objects around all fields."""
        near = self._near(Box.around(self.fields(wanted["flags"])))
        boxes = self.segmentation.fold({"objects": near})
        return {"normalised": boxes["normalised"], "reference": near}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of a variant and its temporaries, and of what segments it."""
        needed = self.needs(wanted)
        variant = 3 * needed["normalised"].size * self.frame.channels * 4
        return variant + self.segmentation.memory({"objects": needed["reference"]})

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of what segments a variant on the device."""
        return self.segmentation.device_memory({"objects": self.needs(wanted)["reference"]})

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Count the votes of all defenses, or of as many as are needed."""
        if self.bank is None:
            msg = "a stage without a bank can plan but not run"
            raise ValueError(msg)
        normalised: Raster = given["normalised"]
        reference: StarObjects = given["reference"]
        coefficients = self.bank.coefficients[: self.settings.defenses]
        table = self._table(len(coefficients))
        device = place.launch.device
        fields = [self._open(box, reference, device) for box in self.fields(wanted["flags"])]
        variants = tiles = 0
        for number, one_defense in enumerate(coefficients):
            open_fields = [one for one in fields if not self._is_settled(one, table)]
            if not open_fields:
                break
            defense = evaluate(one_defense, self.bank.layout)
            y, x = normalised.box.start
            pixels = perturb(normalised.data, defense, self.settings.strength, (y, x))
            variant = Raster(normalised.box, pixels)
            for group in self._groups([one.box for one in open_fields]):
                made = self._segment(variant, group, place)
                tiles += int(made.notes["network.tiles"])
                for one in open_fields:
                    if group.contains(one.box):
                        self._look(one, number, made.products["objects"], device)
            variants += len(open_fields)
        flagged = [self._close(one, table, wanted["flags"]) for one in fields]
        notes = {"variants": variants, "fields": len(fields), "tiles": tiles}
        return Made({"flags": _joined(flagged, reference.rays.shape[1])}, notes)

    def _table(self, total: int) -> np.ndarray:
        """Probability of being suspect in the end, by defenses seen and votes."""
        return chances(total, votes_needed(total, self.settings.min_votes))

    def _near(self, box: Box) -> Box:
        return box.grow(self.margin).clip(self.frame.bounds)

    def _open(self, box: Box, reference: StarObjects, device: Device) -> _Field:
        near = reference.take(reference.inside(self._near(box)))
        return _Field(box, near, features(near, device), near.inside(box), Votes.none(len(near)))

    def _is_settled(self, one: _Field, table: np.ndarray) -> bool:
        """Whether a field may be left: few of its own flags are expected to change any more."""
        if self.settings.stop == "never" or one.looked < LEAST_LOOKED:
            return False
        doubt = one.votes.doubt(table)[one.own]
        return len(doubt) == 0 or bool(doubt.mean() <= self.settings.risk)

    def _segment(self, variant: Raster, group: Box, place: Place) -> Made:
        wanted = {"objects": self._near(group)}
        return self.segmentation.run_from({"normalised": variant}, wanted, place)

    def _look(self, one: _Field, number: int, found: StarObjects, device: Device) -> None:
        """Count the vote of a defense in one field."""
        variant = found.take(found.inside(self._near(one.box)))
        known, seen = one.features, features(variant, device)
        comparison = compare(known, seen, self.settings.tau, device)
        one.votes = one.votes.add(comparison)
        one.looked += 1
        extra = variant.take(comparison.extra)
        extra = extra.take(extra.inside(one.box.grow(self.around)))
        if len(extra):
            one.extras.append((number, extra))

    def _close(self, one: _Field, table: np.ndarray, wanted: Box) -> Flagged:
        """Decide what is suspect in the part of a field that is wanted."""
        n_rays = one.near.rays.shape[1]
        extras = merge_extras(one.extras, share_of(self.settings.merge), n_rays)
        extras = extras.take(extras.objects.inside(one.box) & extras.objects.inside(wanted))
        extras = self._kept(extras, one)
        own = one.own & one.near.inside(wanted)
        votes = Votes(one.votes.votes[own], one.votes.seen[own], one.votes.distance[own])
        seen = np.full(len(extras.votes), one.looked, np.int32)
        suspect = votes.chance(table) > 0.5
        return Flagged(one.near.take(own), votes, suspect, extras.objects, extras.votes, seen)

    def _kept(self, extras: Extras, one: _Field) -> Extras:
        """Candidates with votes enough that do not lie under objects of the reference.

        What is twice as long as any object of the image is none.
        """
        share = self.settings.min_votes_missing
        share = self.settings.min_votes if share is None else share
        needed = votes_needed(max(1, one.looked), share)
        small = extras.objects.rays.max(axis=1, initial=0) <= self.around
        extras = extras.take((extras.votes >= needed) & small)
        return extras.take(covered(extras.objects, one.near) <= self.settings.fn_max_covered)

    def _groups(self, fields: Sequence[Box]) -> list[Box]:
        """Boxes to segment: one around all fields, or runs of neighbours where that is less."""
        whole = Box.around(fields)
        runs: list[Box] = []
        for box in sorted(fields, key=lambda b: b.start):
            last = runs[-1] if runs else None
            if last and last.start[0] == box.start[0] and last.stop[1] == box.start[1]:
                runs[-1] = Box(last.start, box.stop)
            else:
                runs.append(box)
        return runs if sum(map(self._cost, runs)) < self._cost(whole) else [whole]

    def _cost(self, group: Box) -> int:
        """Pixels that are normalised for a group: what the network reads."""
        return self.segmentation.fold({"objects": self._near(group)})["normalised"].size


@dataclass
class _Field:
    """A field while variants pass."""

    box: Box
    near: StarObjects
    features: np.ndarray
    own: np.ndarray
    votes: Votes
    looked: int = 0
    extras: list[tuple[int, StarObjects]] = field(default_factory=list)


def _joined(parts: Sequence[Flagged], n_rays: int) -> Flagged:
    """Join the flags of several fields."""
    objects = StarObjects.concatenate([part.objects for part in parts], n_rays)
    extras = StarObjects.concatenate([part.extras for part in parts], n_rays)
    votes = Votes(
        np.concatenate([part.votes.votes for part in parts]),
        np.concatenate([part.votes.seen for part in parts]),
        np.concatenate([part.votes.distance for part in parts]),
    )
    return Flagged(
        objects,
        votes,
        np.concatenate([part.suspect for part in parts]),
        extras,
        np.concatenate([part.extra_votes for part in parts]),
        np.concatenate([part.extra_seen for part in parts]),
    )

"""The stages of class maps: members of an ensemble over tiles, and what they disagree about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.methods.entropy import soft_entropy, store_entropy, vote_entropy
from engine.stages.base import Made, Place, Raster, Stage
from engine.stages.pooling import BandSums, under_tiles
from tiling import BlendPlan, Box, Lattice, Tiling

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from engine.networks.ensemble import Ensemble, Member
    from engine.stages.base import Frame
    from tiling import TileRow

#: Bytes of activations per pixel of a tile in one launch, for each filter of a U-Net's first
#: level, float32.
FILTER_BYTES = 40

#: Filters of a member's first level for which memory is projected where it is no U-Net of ours.
STARDIST_FILTERS = 32

#: Rows whose entropy is computed at once: temporaries stay a small part of a region.
ROWS = 256


@dataclass(frozen=True)
class Segment(Stage):
    """Average-pool each member's logits over tiles; mean of their softmax, and their votes.

    Parameters
    ----------
    frame : Frame
        The image.
    ensemble : Ensemble
        The members.
    tiling : Tiling
        The lattice, with the least common phase of the members.
    votes : bool
        Count the members that choose each class.
    launch_tiles : int
        Tiles per launch, for the projection of memory.
    in_turn : bool
        Give the memory of a member back before the next one is loaded.

    Notes
    -----
    Sauer et al., "Refining masks with ensemble entropy and a masked autoencoder". Members run one
    after the other over the whole box; sums are float32 in lattice order, then in the order of
    the members, so that the result does not depend on the box.
    """

    frame: Frame
    ensemble: Ensemble
    tiling: Tiling
    votes: bool
    launch_tiles: int
    in_turn: bool = False
    name = "ensemble"
    version = 1

    @property
    def lattice(self) -> Lattice:
        """Tiles of a plane."""
        return Lattice(self.frame.extent, self.tiling)

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for all pixels of all tiles that count somewhere in what is wanted."""
        return {"normalised": self.lattice.reach(self._box(wanted)).clip(self.frame.bounds)}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of mean, votes and weights, of the image and its padded copy, and of a launch."""
        box, classes = self._box(wanted), len(self.ensemble.classes)
        image = 2 * self.lattice.reach(box).size * self.frame.channels * 4
        each = classes * (4 + self.votes) + 4
        return self.device_memory(wanted) + box.size * each + image

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of one band with its softmax, and of the activations of one launch."""
        width, classes = self._box(wanted).shape[1], len(self.ensemble.classes)
        band = self.tiling.tile * width * classes * 4
        widest = max(_filters(member) for member in self.ensemble.members)
        return 4 * band + self.launch_tiles * self.tiling.tile**2 * widest * FILTER_BYTES

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Run all members over all tiles that count in what is wanted."""
        from engine.networks.ensemble_runtime import open_member, release_member

        box, members = self._box(wanted), self.ensemble.members
        plan = BlendPlan(self.lattice, box)
        reach = self.lattice.reach(box)
        image, origin = under_tiles(given["normalised"], reach, self.frame.bounds)
        classes = len(self.ensemble.classes)
        mean = np.zeros((classes, *plan.output.shape), np.float32)
        counts = np.zeros(mean.shape, np.uint8) if self.votes else None
        for member in members if self.in_turn else ():
            # A trial before this one may have left all of them on the device.
            release_member(member)
        for member in members:
            network = open_member(member, place.launch)
            sums = BandSums(plan, classes, network.device)
            for row in plan.rows():
                for places, logits in network.launches(image, origin, row.tiles):
                    sums.add(places, logits.permute(0, 2, 3, 1))
                self._add(sums, row, mean, counts)
                sums.move_past(row)
            # Before the next one is loaded, which may need the memory.
            del network, sums
            if self.in_turn:
                release_member(member)
        mean /= np.float32(len(members))
        products = {"class_probability": Raster(box, mean)}
        if counts is not None:
            products["class_votes"] = Raster(box, counts)
        return Made(products, {"tiles": plan.tiles})

    def _add(
        self, sums: BandSums, row: TileRow, mean: np.ndarray, counts: np.ndarray | None
    ) -> None:
        """Add what a member says of a band."""
        logits = np.moveaxis(sums.mean(row), -1, 0)
        if logits.shape[1] == 0:
            return
        part = (slice(None), *row.band.slices())
        mean[part] += _softmax(logits)
        if counts is not None:
            chosen = logits.argmax(axis=0)
            counts[part] += chosen == np.arange(len(counts))[:, None, None]

    def _box(self, wanted: Mapping[str, Box]) -> Box:
        """Box to compute: what anyone wants."""
        names = ("class_probability", "class_votes")
        boxes = [wanted[name] for name in names if name in wanted]
        return Box.around(boxes).clip(self.frame.bounds)


@dataclass(frozen=True)
class Entropy(Stage):
    """Class map of the ensemble, and how far its members disagree, as they are stored.

    Parameters
    ----------
    frame : Frame
        The image.
    mode : {"soft", "vote"}
        Entropy of the mean probability, or of the votes.
    classes : int
        How many there are.

    Notes
    -----
    The class of a pixel is the one with the largest mean probability, the first of equal ones.
    """

    frame: Frame
    mode: Literal["soft", "vote"]
    classes: int
    name = "entropy"
    version = 1

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for what the members say, in the same place."""
        names = ("classes_initial", "entropy")
        box = Box.around([wanted[name] for name in names if name in wanted])
        probability = {"class_probability": box}
        return probability if self.mode == "soft" else {**probability, "class_votes": box}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of both maps, and of the temporaries of some rows, beside what the members say."""
        (box, *_) = self.needs(wanted).values()
        given = box.size * self.classes * (4 if self.mode == "soft" else 5)
        return given + 2 * box.size + 6 * ROWS * box.shape[1] * self.classes * 4

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Tell class and entropy of each pixel."""
        (box, *_) = self.needs(wanted).values()
        box = box.clip(self.frame.bounds)
        probability = given["class_probability"].cut(box)
        source = probability if self.mode == "soft" else given["class_votes"].cut(box)
        measure = soft_entropy if self.mode == "soft" else vote_entropy
        classes = np.empty((1, *box.shape), np.uint8)
        entropy = np.empty((1, *box.shape), np.uint8)
        for top in range(0, box.shape[0], ROWS):
            rows = slice(top, top + ROWS)
            classes[0, rows] = probability[:, rows].argmax(axis=0)
            entropy[0, rows] = store_entropy(measure(source[:, rows]))
        return Made({"classes_initial": Raster(box, classes), "entropy": Raster(box, entropy)})


def _filters(member: Member) -> int:
    """Count the filters of a member's first level."""
    widths: tuple[int, ...] = getattr(member.network, "widths", (STARDIST_FILTERS,))
    return widths[0]


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the first axis, class after class: (C, y, x) float32."""
    odds: np.ndarray = np.exp(logits - logits.max(axis=0))
    total = odds[0].copy()
    for part in odds[1:]:
        total += part
    odds /= total
    return odds

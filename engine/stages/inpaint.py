"""The stage that fills in what an ensemble disagrees about: a masked autoencoder, where needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.methods.entropy import FULL, patch_sums, uncertain_patches
from engine.stages.base import Made, Place, Raster, Stage
from tiling import Box, Lattice, Tiling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.device import Launch
    from engine.networks.mae_folder import MaeFolder
    from engine.stages.base import Frame

#: Windows that are cut out and filled in at once.
MOST_WINDOWS = 256

#: Bytes of the kernels that oneDNN keeps for the shapes of the ladder (measured, torch 2.13).
KERNEL_BYTES = 32 * 2**20


def pixels_at_once(launch: Launch, tile: int) -> int:
    """Pixels of the windows that run at once: as many as in a launch of tiles; none on a CPU.

    There windows together are no faster than alone (`benchmarks/inpaint.py`), and oneDNN keeps a
    kernel for every number of them: 530 MiB for a map of 4096 x 4096, where 160 suffice.
    """
    return 0 if launch.device == "cpu" else launch.tiles * tile**2


@dataclass(frozen=True)
class Repair:
    """What was done about the uncertain patches of one window's own part.

    Parameters
    ----------
    box : Box
        Around the uncertain patches, in pixels of the plane.
    patches : int
        How many there are.
    entropy : float
        Their mean entropy, in [0, 1].
    changed : int
        Pixels whose class is another afterwards.
    before, after : tuple of int
        Pixels of each class in these patches.
    left : bool
        Whether they were left as they are, since nothing near them can be trusted.
    """

    box: Box
    patches: int
    entropy: float
    changed: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    left: bool


@dataclass(frozen=True)
class _Window:
    """A window of the lattice, and the part of it that it decides."""

    tile: Box
    own: Box


@dataclass(frozen=True, eq=False)
class _Maps:
    """What all windows read: (y, x) and (C, y, x) uint8, over a box of the padded plane."""

    classes: np.ndarray
    entropy: np.ndarray
    probability: np.ndarray | None
    under: Box


@dataclass(frozen=True)
class Inpaint(Stage):
    """Fill in the patches that cannot be trusted, each from the window where it is most central.

    Parameters
    ----------
    frame : Frame
        The image.
    model : MaeFolder
        The masked autoencoder.
    threshold : float
        Mean entropy above which a patch is masked.
    launch_pixels : int
        Pixels of the windows that run at once, from `pixels_at_once`; each runs alone where that
        is less than two.
    area : Box
        Part of every plane that is done: beyond it nothing is known, and nothing is told.
    prior_weight : float or None
        How much the autoencoder's prior weighs against what the ensemble saw; None: it decides
        alone, as in the source.

    Notes
    -----
    Sauer et al.; windows of the network's side lie on a lattice of half their side, anchored to
    the plane, whose cells between half-way lines are what each window decides. Windows read the
    map as it was before any repair, so no order matters; those without an uncertain patch of
    their own do not run. Only masked patches are replaced. Where all patches near foreground are
    masked, nothing is left to infer from: they stay, and are marked. The far edge of the plane is
    reflected to a multiple of the patch, and to one window where it is smaller. With a weight of
    the prior, our own step beyond the paper, classes maximise ``weight log prior + log p`` with p
    the ensemble's mean probability as it is stored: the autoencoder never sees the image.
    """

    frame: Frame
    model: MaeFolder
    threshold: float
    launch_pixels: int
    area: Box
    prior_weight: float | None = None
    name = "inpaint"
    version = 1

    @property
    def lattice(self) -> Lattice:
        """Windows of a plane; cut half-way between neighbours."""
        config = self.model.config
        # The scale keeps half-way lines on whole patches.
        tiling = Tiling(
            config.window, config.window // 2, 0, config.patch, config.patch, blend="crop"
        )
        return Lattice(self.frame.extent, tiling)

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for class and entropy under all windows that decide something of what is wanted."""
        under = self._under(wanted["classes"]).clip(self.frame.bounds)
        needed = {"classes_initial": under, "entropy": under}
        return needed if self.prior_weight is None else {**needed, "class_probability": under}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of both maps, padded, of the result, of one batch of windows and of a launch."""
        side = self.model.config.window
        probabilities = 0 if self.prior_weight is None else 2 * len(self.model.config.classes)
        maps = (3 + probabilities) * self._under(wanted["classes"]).size
        return maps + MOST_WINDOWS * side**2 * 16 + KERNEL_BYTES + self.device_memory(wanted)

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the activations of one launch."""
        config = self.model.config
        tokens, pixels = config.tokens + 1, config.window**2
        heads = max(config.encoder_heads, config.decoder_heads)
        width = max(config.encoder_dim, config.decoder_dim)
        # Scores of attention of one window, and weights made of them.
        attention = 3 * heads * tokens**2 * 4
        each = tokens * width * (4 + 2 * config.mlp_ratio) * 4 + pixels * len(config.classes) * 8
        return attention + self._windows_at_once(self.launch_pixels) * each

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Fill in what is uncertain; products are the map and the repairs that belong here.

        Those belong to "repairs", where a box is wanted of them, whose window's own part begins
        there; to the box of the map otherwise.
        """
        box = wanted["classes"].clip(self.frame.bounds)
        told = wanted.get("repairs", box)
        under = self._under(box)
        classes, entropy = (
            self._padded(given[n], under)[0] for n in ("classes_initial", "entropy")
        )
        seen = given.get("class_probability")
        probability = None if seen is None else self._padded(seen, under)
        result = classes.copy()
        windows = self._windows(box)
        doubtful = [w for w in windows if self._uncertain(entropy, w.own, under).any()]
        mine = [w for w in windows if told.holds(w.own.start)]
        repairs: list[Repair] = []
        for first in range(0, len(doubtful), MOST_WINDOWS):
            some = doubtful[first : first + MOST_WINDOWS]
            maps = _Maps(classes, entropy, probability, under)
            filled, blind = self._fill(maps, some, place)
            for window, pixels, left in zip(some, filled, blind, strict=True):
                own = window.own.slices(under.start)
                result[own] = pixels[window.own.slices(window.tile.start)]
                if told.holds(window.own.start):
                    repairs.append(self._repair(classes, result, entropy, window.own, under, left))
        part = result[box.slices(under.start)]
        notes = {
            "windows": len(mine),
            "windows_run": sum(told.holds(w.own.start) for w in doubtful),
            "left": sum(repair.left for repair in repairs),
            "repaired_pixels": sum(repair.changed for repair in repairs),
        }
        return Made({"classes": Raster(box, part[None]), "repairs": repairs}, notes)

    def _fill(
        self, maps: _Maps, some: list[_Window], place: Place
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fill in windows: (N, y, x) uint8, and which of them were left as they are."""
        from engine.networks.mae_runtime import Evidence, open_inpainter

        at_once = self._windows_at_once(self.launch_pixels)
        inpainter = open_inpainter(self.model, replace(place.launch, tiles=at_once))
        boxes = [w.tile.slices(maps.under.start) for w in some]
        labels = np.stack([maps.classes[box] for box in boxes])
        masked = np.stack([self._uncertain(maps.entropy, w.tile, maps.under) for w in some])
        evidence = None
        if self.prior_weight is not None and maps.probability is not None:
            cut = np.stack([maps.probability[(slice(None), *box)] for box in boxes])
            evidence = Evidence(cut, self.prior_weight)
        return inpainter.fill(labels, masked, evidence), inpainter.blind(labels, masked)

    def _uncertain(self, entropy: np.ndarray, box: Box, under: Box) -> np.ndarray:
        """Uncertain patches of a box: (y / patch, x / patch) bool."""
        part = entropy[box.slices(under.start)]
        return uncertain_patches(part, self.threshold, self.model.config.patch)

    def _repair(
        self,
        classes: np.ndarray,
        result: np.ndarray,
        entropy: np.ndarray,
        own: Box,
        under: Box,
        left: bool,
    ) -> Repair:
        """Say what was done in a window's own part."""
        patch, count = self.model.config.patch, len(self.model.config.classes)
        mask = self._uncertain(entropy, own, under)
        rows, columns = np.nonzero(mask)
        low = np.array([rows.min(), columns.min()]) * patch + own.start
        high = np.array([rows.max() + 1, columns.max() + 1]) * patch + own.start
        box = Box(tuple(low.tolist()), tuple(high.tolist())).clip(self.frame.bounds)
        where = mask.repeat(patch, axis=0).repeat(patch, axis=1)
        shown = own.clip(self.frame.bounds).shape
        where[shown[0] :], where[:, shown[1] :] = False, False
        then, now = (array[own.slices(under.start)][where] for array in (classes, result))
        total = patch_sums(entropy[own.slices(under.start)], patch)[mask].sum()
        return Repair(
            box, len(rows), float(total) / (FULL * patch**2 * len(rows)),
            int(np.count_nonzero(then != now)),
            tuple(np.bincount(then, minlength=count).tolist()),
            tuple(np.bincount(now, minlength=count).tolist()), bool(left),
        )  # fmt: skip

    def _windows_at_once(self, pixels: int) -> int:
        return max(1, pixels // self.model.config.window**2)

    def _windows(self, box: Box) -> list[_Window]:
        """Windows that decide something of a box, in lattice order."""
        lattice, patch = self.lattice, self.model.config.patch
        inner = Box.of_shape([-(-n // patch) * patch for n in self.frame.extent])
        rows, columns = lattice.touching(box)
        found = []
        for i in rows:
            for j in columns:
                spans = [a.counted(k) for a, k in zip(lattice.axes, (i, j), strict=True)]
                own = Box(tuple(s[0] for s in spans), tuple(s[1] for s in spans))
                own = own.clip(inner).clip(self.area.snap(patch))
                if not own.empty:
                    found.append(_Window(lattice.tile_box((i, j)), own))
        return found

    def _under(self, box: Box) -> Box:
        """Box, in the padded plane, that holds all windows that decide something of another."""
        return self.lattice.reach(box.clip(self.frame.bounds))

    def _padded(self, given: Raster, under: Box) -> np.ndarray:
        """Cut maps to all windows, reflected beyond the far edge: (C, y, x) uint8."""
        inside = given.cut(under.clip(self.frame.bounds))
        missing = [n - have for n, have in zip(under.shape, inside.shape[1:], strict=True)]
        # A plane may be smaller than what is missing: symmetric padding repeats.
        return np.pad(inside, [(0, 0), *((0, n) for n in missing)], mode="symmetric")

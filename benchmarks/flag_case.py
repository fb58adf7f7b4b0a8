"""What the benchmarks of flags work on: an image, a model, a bank, and the recipe's tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.io import imread

from engine.device import Launch, choose_precision
from engine.networks.defense_bank import DefenseBank, open_bank
from engine.networks.model_folder import open_model
from engine.recipe import FlagSettings
from engine.stages.base import Frame, Pipeline, Place, Raster
from engine.stages.flags import Flagged, Flags
from engine.stages.stardist import Candidates, Instances
from tiling import Blend, Tiling

if TYPE_CHECKING:
    import argparse

DATA = Path(__file__).parents[2] / "shared" / "data" / "dsb2018" / "fluo" / "val" / "images"
SHAPE = (3000, 4000)
TILE, OVERLAP, MARGIN = 512, 64, 24


def mosaic() -> np.ndarray:
    """Lay validation images, each scaled by its percentiles, in rows: (1, Y, X) float32."""
    names = sorted(DATA.glob("*.png"))
    if not names:
        raise SystemExit(f"needs the validation images at {DATA}, which are absent")
    order = np.random.default_rng(0).permutation(len(names)).tolist() * 4
    canvas = np.zeros(SHAPE, np.float32)
    y = x = row = 0
    for k in order:
        pixels = imread(names[k]).astype(np.float32)
        low, high = np.percentile(pixels, [1, 99.8])
        if x >= SHAPE[1]:
            y, x, row = y + row, 0, 0
        if y >= SHAPE[0]:
            break
        part = ((pixels - low) / (high - low + 1e-20))[: SHAPE[0] - y, : SHAPE[1] - x]
        canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
        x, row = x + part.shape[1], max(row, min(part.shape[0], 256))
    return canvas[None]


class Case:
    """The work: a part of the mosaic or another image, the model, the bank and the settings."""

    def __init__(self, options: argparse.Namespace, image: np.ndarray | None = None) -> None:
        height, width = (int(n) for n in options.area.split(","))
        self.image = np.ascontiguousarray(
            (mosaic() if image is None else image)[:, :height, :width]
        )
        self.frame = Frame((), (height, width), 1, "float32")
        self.model = open_model(options.model)
        self.bank = open_bank(options.bank)
        self.settings = FlagSettings(
            bank=options.bank, min_votes=options.min_votes, risk=options.risk,
            strength=options.strength, tau=options.tau,
        )  # fmt: skip
        self.place = Place((), Launch("cpu", choose_precision("auto", "cpu"), 1))

    def tiling(self, blend: Blend) -> Tiling:
        """Take the recipe's tiles; "crop" where nothing averages them."""
        phase, scale = max(self.model.config.divisor), self.model.config.grid[0]
        return Tiling(TILE, OVERLAP, MARGIN, phase, scale, blend)

    def first(self, count: int) -> DefenseBank:
        """Make a bank of the first defenses."""
        bank = self.bank
        return replace(
            bank, coefficients=bank.coefficients[:count], f1_before=bank.f1_before[:count],
            f1_after=bank.f1_after[:count], origins=bank.origins[:count],
        )  # fmt: skip

    def segmentation(self) -> Pipeline:
        """Stages that find objects."""
        prob, nms = self.model.thresholds.prob, self.model.thresholds.nms
        tiling = self.tiling("average")
        return Pipeline(
            (Candidates(self.frame, self.model, tiling, prob, 1), Instances(self.frame, nms, 64))
        )

    def flag(self, bank: DefenseBank, stop: str) -> tuple[Flagged, dict[str, float]]:
        """Run the stage on all of the image; its notes."""
        segmentation = self.segmentation()
        given: dict[str, Any] = {"normalised": Raster(self.frame.bounds, self.image)}
        made = segmentation.run_from(given, {"objects": self.frame.bounds}, self.place)
        given["reference"] = reference = made.products["objects"]
        settings = self.settings.model_copy(update={"stop": stop})
        stage = Flags(self.frame, segmentation, bank, settings, reference.reach)
        made = stage.run(given, {"flags": self.frame.bounds}, self.place)
        return made.products["flags"], dict(made.notes)

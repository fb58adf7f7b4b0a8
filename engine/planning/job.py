"""A job: everything a task must know to do its part, small, frozen and picklable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from engine.planning.elements import LEAST_REACH, SUSPECTS, Layer, Pass, SourceRef
from engine.recipe import StarDistRecipe
from engine.stages.base import Pipeline
from engine.stages.flags import Flags
from engine.stages.normalise import Levels, Normalise
from engine.stages.stardist import Candidates, Instances
from tiling import Box, Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.device import Launch
    from engine.networks.defense_bank import DefenseBank
    from engine.networks.model_folder import ModelFolder
    from engine.recipe import IdentityRecipe
    from engine.stages.base import Frame
    from engine.store import Location


@dataclass(frozen=True)
class Job:
    """What a run does; equal jobs give equal pixels.

    Parameters
    ----------
    out : Location
        Where the result goes.
    source : SourceRef
        Where pixels come from.
    frame : Frame
        Planes, extent, channels read and dtype of the source.
    recipe : Recipe
        With nothing left to choose.
    layers : tuple of Layer
        What is written.
    area : Box
        Part of every plane that is done; whole shards.
    shard : int
        Side of a shard in pixels of the level that is read.
    digest : str
        Of everything that decides pixels.
    tables : str
        Folder, below OUT, of the tables that the run writes; "" for none.
    digests : mapping of str to str
        What decides each pass; see `engine.planning.identity`.
    token : str
        Names the start of the run: what a process keeps in memory belongs to it.
    index : str
        Name of the index of objects, once pass 1 is complete.
    launch : Launch or None
        How the network runs.
    model : ModelFolder or None
        The network.
    bank : str
        Path or bundled name of the bank of defenses; "" where nothing is flagged.
    bank_sha256 : str
        Its digest.
    defenses : int
        How many it holds.
    """

    out: Location
    source: SourceRef
    frame: Frame
    recipe: IdentityRecipe | StarDistRecipe
    layers: tuple[Layer, ...]
    area: Box
    shard: int
    digest: str
    tables: str = ""
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    token: str = ""
    index: str = ""
    launch: Launch | None = None
    model: ModelFolder | None = None
    bank: str = ""
    bank_sha256: str = ""
    defenses: int = 0

    def layer(self, name: str) -> Layer:
        """Layer by name."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def table_names(self) -> tuple[str, ...]:
        """Tables that the run writes."""
        if not self.tables:
            return ()
        name = self.stardist.instances.name
        return (name, SUSPECTS) if self.stardist.flags else (name,)

    def table(self, name: str) -> str:
        """Folder, below OUT, of the parts of a table."""
        return f"{self.tables}/{name}.parquet"

    @property
    def stardist(self) -> StarDistRecipe:
        """The recipe, where it is one that segments.

        Raises
        ------
        TypeError
            If it is not: an error of the caller.
        """
        if not isinstance(self.recipe, StarDistRecipe):
            msg = f"a job that copies has no such part: {self.recipe}"
            raise TypeError(msg)
        return self.recipe

    @property
    def n_rays(self) -> int:
        """Rays of the model's polygons; 0 without a model."""
        return self.model.config.n_rays if self.model else 0

    def pipeline(self, levels: Levels | None = None, halo: int | None = None) -> Pipeline:
        """Stages of the regions pass.

        Parameters
        ----------
        levels : Levels or None
            Statistics of pass 0; without them the pipeline can only plan.
        halo : int or None
            Halo of the instances where it must be wider than the recipe's.
        """
        recipe, model, launch = self.stardist, self.model, self.launch
        if model is None or launch is None:
            msg = "a job that segments has a model and a launch"
            raise TypeError(msg)
        tiling = recipe.tiling.with_network(max(model.config.divisor), model.config.grid[0])
        prob, nms = recipe.segment.prob_threshold, recipe.segment.nms_threshold
        return Pipeline(
            (
                Normalise(
                    self.frame, levels, recipe.input.nonfinite, recipe.normalise.over == "local"
                ),
                Candidates(
                    self.frame,
                    model,
                    tiling,
                    model.thresholds.prob if prob is None else prob,
                    launch.tiles,
                ),
                Instances(
                    self.frame,
                    model.thresholds.nms if nms is None else nms,
                    halo or recipe.instances.halo,
                ),
            )
        )

    def with_launch(self, launch: Launch) -> Job:
        """Job whose network runs with another launch."""
        return replace(self, launch=launch)

    def flag_pipeline(
        self,
        levels: Levels | None = None,
        bank: DefenseBank | None = None,
        reach: float | None = None,
    ) -> Pipeline:
        """Stages of the flags pass.

        Parameters
        ----------
        levels : Levels or None
            Statistics of pass 0; without them, and without a bank, the pipeline can only plan.
        bank : DefenseBank or None
            The defenses.
        reach : float or None
            Longest ray of any object of the image; where it is not known yet, the longest for
            which the recipe's halo serves.
        """
        settings, instances = self.stardist.flags, self.stardist.instances
        if settings is None:
            msg = "a job that flags nothing has no such stages"
            raise TypeError(msg)
        if reach is None:
            reach = instances.halo / max(1.0, instances.halo_rays)
        reach = max(reach, LEAST_REACH)
        halo = max(instances.halo, -(-int(np.ceil(instances.halo_rays * reach)) // 64) * 64)
        normalise, *segmenting = self.pipeline(levels, halo).stages
        flags = Flags(self.frame, Pipeline(tuple(segmenting)), bank, settings, reach)
        return Pipeline((normalise, flags))

    def wanted(self, core: Box) -> dict[str, Box]:
        """Boxes of the products that the regions pass makes for a core."""
        return {"objects": core, "probability": core}

    def passes(self) -> tuple[Pass, ...]:
        """All passes but pass 0, in order."""
        cell = (self.shard, self.shard)
        grid = Grid(self.frame.planes, self.frame.extent, cell)
        passes = []
        if isinstance(self.recipe, StarDistRecipe):
            name = self.recipe.instances.name
            passes.append(Pass("regions", "regions", grid))
            if self.recipe.flags:
                passes.append(Pass("flags", "flags", grid, after="regions"))
            passes.append(Pass("labels", "labels", grid, name, after=passes[-1].name))
        if any(layer.name == "image" for layer in self.layers):
            passes.append(Pass("copy", "copy", grid, "image"))
        passes += [
            Pass(
                f"pyramid-{layer.name}-{k}",
                "pyramid",
                self._level_grid(layer, k),
                layer.name,
                k,
                layer.scale * 2**k,
                self._source_of(layer, k),
            )
            for layer in self.layers
            for k in range(1, len(layer.levels))
        ]
        return tuple(replace(step, digest=self.digests.get(step.name, "")) for step in passes)

    def statistics_pass(self, name: str) -> Pass:
        """Make a sweep of pass 0; its cells do not depend on how the result is stored."""
        side = 4096
        if self.stardist.normalise.over == "local":
            cell = self.stardist.normalise.cell
            side = max(1, side // cell) * cell
        grid = Grid(self.frame.planes, self.frame.extent, (side, side))
        return Pass(name, "statistics", grid, digest=self.digests.get("statistics", ""))

    def _source_of(self, layer: Layer, level: int) -> str:
        """Name of the pass that writes the level above one of a layer."""
        if level > 1:
            return f"pyramid-{layer.name}-{level - 1}"
        if layer.name == "image":
            return "copy"
        return "regions" if layer.name == "probability" else "labels"

    def _level_grid(self, layer: Layer, level: int) -> Grid:
        """Shards of one level of a layer."""
        y, x = layer.levels[level].shape[-2:]
        return Grid(self.frame.planes, (y, x), (layer.shard, layer.shard))

"""A job: everything a task must know to do its part, small, frozen and picklable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from engine.planning.elements import (
    ENTROPY,
    INITIAL,
    LEAST_REACH,
    Layer,
    Pass,
    SourceRef,
)
from engine.planning.passes import job_passes
from engine.recipe import NetworkRecipe, StarDistRecipe
from engine.stages.base import Pipeline
from engine.stages.flags import Flags
from engine.stages.inpaint import Inpaint, pixels_at_once
from engine.stages.normalise import Levels, Normalise
from engine.stages.semantic import Entropy, Segment
from engine.stages.stardist import Candidates, Instances
from tiling import Box, Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.device import Launch
    from engine.networks.defense_bank import DefenseBank
    from engine.networks.ensemble import Ensemble
    from engine.networks.mae_folder import MaeFolder
    from engine.networks.model_folder import ModelFolder
    from engine.recipe import ClassSettings, IdentityRecipe, SemanticRecipe
    from engine.stages.base import Frame, Stage
    from engine.store import Location
    from tiling import Tiling


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
    tables : mapping of str to str
        Folder, below OUT, of the parts of each table that the run writes.
    digests : mapping of str to str
        What decides each pass; see `engine.planning.identity`.
    token : str
        Names the start of the run: what a process keeps in memory belongs to it.
    index : str
        Name of the index of objects, once pass 1 is complete.
    joined : str
        Name of what joins the objects of the class map, once that is complete.
    makers : str
        Name of the list of regions that made class maps, once these are complete.
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
    ensemble : Ensemble or None
        The members that make the class map.
    in_turn : bool
        Whether a worker holds one of them at a time.
    mae : MaeFolder or None
        What fills in uncertain patches of the class map.
    """

    out: Location
    source: SourceRef
    frame: Frame
    recipe: IdentityRecipe | StarDistRecipe | SemanticRecipe
    layers: tuple[Layer, ...]
    area: Box
    shard: int
    digest: str
    tables: Mapping[str, str] = field(default_factory=dict, hash=False)
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    token: str = ""
    index: str = ""
    joined: str = ""
    makers: str = ""
    launch: Launch | None = None
    model: ModelFolder | None = None
    bank: str = ""
    bank_sha256: str = ""
    defenses: int = 0
    ensemble: Ensemble | None = None
    in_turn: bool = False
    mae: MaeFolder | None = None

    def layer(self, name: str) -> Layer:
        """Layer by name."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def network(self) -> NetworkRecipe:
        """The recipe, where it is one that runs networks.

        Raises
        ------
        TypeError
            If it is not: an error of the caller.
        """
        if not isinstance(self.recipe, NetworkRecipe):
            msg = f"a job that copies has no such part: {self.recipe}"
            raise TypeError(msg)
        return self.recipe

    @property
    def classes(self) -> ClassSettings | None:
        """How a class map is made; None where there is none."""
        return self.recipe.classes if isinstance(self.recipe, NetworkRecipe) else None

    @property
    def stardist(self) -> StarDistRecipe:
        """The recipe, where it is one that finds star-convex objects.

        Raises
        ------
        TypeError
            If it is not: an error of the caller.
        """
        if not isinstance(self.recipe, StarDistRecipe):
            msg = f"a job without star-convex objects has no such part: {self.recipe}"
            raise TypeError(msg)
        return self.recipe

    @property
    def halo(self) -> int:
        """Halo of star-convex objects, in pixels; 0 where there are none."""
        return self.recipe.instances.halo if isinstance(self.recipe, StarDistRecipe) else 0

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
        recipe = self.network
        local = recipe.normalise.over == "local"
        normalise = Normalise(self.frame, levels, recipe.input.nonfinite, local)
        stars = self._star_stages(halo) if isinstance(recipe, StarDistRecipe) else ()
        return Pipeline((normalise, *stars, *self._class_stages()))

    def _star_stages(self, halo: int | None) -> tuple[Stage, ...]:
        """Stages that find star-convex objects."""
        recipe, model, launch = self.stardist, self.model, self.running_launch
        if model is None:
            msg = "a job that finds objects has a model"
            raise TypeError(msg)
        tiling = _star_tiling(recipe, model)
        prob, nms = recipe.segment.prob_threshold, recipe.segment.nms_threshold
        return (
            Candidates(
                self.frame,
                model,
                tiling,
                model.thresholds.prob if prob is None else prob,
                launch.tiles,
                launch.device,
            ),
            Instances(
                self.frame,
                model.thresholds.nms if nms is None else nms,
                halo or recipe.instances.halo,
                launch.device,
            ),
        )

    def _class_stages(self) -> tuple[Stage, ...]:
        """Stages that make a class map of the image, where the recipe asks for one."""
        settings, ensemble = self.classes, self.ensemble
        if settings is None or ensemble is None:
            return ()
        tiling = self.network.tiling.with_network(ensemble.divisor, 1)
        votes = settings.entropy == "vote"
        return (
            Segment(self.frame, ensemble, tiling, votes, self.running_launch.tiles, self.in_turn),
            Entropy(self.frame, settings.entropy, len(ensemble.classes)),
        )

    def repair_pipeline(self) -> Pipeline:
        """Stages of the repair pass."""
        settings = self.classes.repair if self.classes else None
        if settings is None or self.mae is None:
            msg = "a job that repairs nothing has no such stages"
            raise TypeError(msg)
        pixels = pixels_at_once(self.running_launch, self.network.tiling.tile)
        wanted = settings.threshold, pixels, self.area, settings.prior_weight
        return Pipeline((Inpaint(self.frame, self.mae, *wanted),))

    @property
    def running_launch(self) -> Launch:
        """How the network runs, where there is one.

        Raises
        ------
        TypeError
            If there is none: an error of the caller.
        """
        if self.launch is None:
            msg = "a job that runs networks has a launch"
            raise TypeError(msg)
        return self.launch

    def tilings(self) -> tuple[tuple[Tiling, int, int], ...]:
        """Lattices over which networks run in the regions pass.

        Returns
        -------
        tuple of (Tiling, int, int)
            Each with the halo of a region, and with the pixels below and to the right of it that
            are computed as well, no further than the part that is done.
        """
        found = []
        if isinstance(self.recipe, StarDistRecipe) and self.model is not None:
            found.append((_star_tiling(self.recipe, self.model), self.halo, 0))
        if self.ensemble is not None:
            found.append((self.network.tiling.with_network(self.ensemble.divisor, 1), 0, 1))
        return tuple(found)

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
        normalise = self.pipeline(levels).stages[0]
        segmenting = Pipeline(self._star_stages(halo))
        return Pipeline((normalise, Flags(self.frame, segmenting, bank, settings, reach)))

    def wanted(self, core: Box) -> dict[str, Box]:
        """Boxes of the products that the regions pass makes for a core."""
        wanted: dict[str, Box] = {}
        if isinstance(self.recipe, StarDistRecipe):
            wanted |= {"objects": core, "probability": core}
        if self.classes is not None:
            # One line more than is written: the check of seams compares it.
            wanted |= {INITIAL: self.with_border(core), ENTROPY: core}
            wanted |= {"class_probability": core} if self.classes.keep else {}
        return wanted

    def with_border(self, core: Box) -> Box:
        """Core, and the lines of pixels below and to the right of it that are done as well."""
        return Box(core.start, tuple(n + 1 for n in core.stop)).clip(self.area)

    def passes(self) -> tuple[Pass, ...]:
        """All passes but pass 0, in order."""
        return job_passes(self)

    def statistics_pass(self, name: str) -> Pass:
        """Make a sweep of pass 0; its cells do not depend on how the result is stored."""
        side = 4096
        if self.network.normalise.over == "local":
            cell = self.network.normalise.cell
            side = max(1, side // cell) * cell
        grid = Grid(self.frame.planes, self.frame.extent, (side, side))
        return Pass(name, "statistics", grid, digest=self.digests.get("statistics", ""))


def _star_tiling(recipe: StarDistRecipe, model: ModelFolder) -> Tiling:
    """Lattice of the network that finds star-convex objects."""
    return recipe.tiling.with_network(max(model.config.divisor), model.config.grid[0])

"""The parts of a recipe document: what decides pixels, what an OUT freezes, what may change."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.errors import RecipeError
from tiling import Tiling

#: Names of label images and tables; those of other arrays and tables of OUT are taken.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
_TAKEN = {
    *("image", "probability", "flag_votes", "suspects", "statistics", "flags"),
    *("classes", "classes_initial", "entropy", "repairs"),
}


def _free_name(name: str) -> str:
    if name in _TAKEN or name.startswith("probability-"):
        msg = f"a name that no other array or table of OUT has, got {name}"
        raise ValueError(msg)
    return name


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class InputSettings(_Section):
    """Which part of the image is taken."""

    level: int = Field(0, ge=0)
    """Resolution level that is read; 0 is the finest."""
    channels: tuple[int | str, ...] = Field((0,), strict=False, min_length=1)
    """Indices or names of the channels that the network sees, in its order."""
    nonfinite: Literal["refuse", "zero"] = "refuse"
    """What NaN and infinity in the image mean: an error, or as dark as the low percentile."""


class NormaliseSettings(_Section):
    """How intensities are mapped: ``(x - low) / (high - low)``, by percentiles of the image."""

    over: Literal["image", "plane", "local"] = "image"
    """Percentiles of the whole image, of each plane, or of a coarse lattice, interpolated."""
    low: float = Field(1.0, ge=0, lt=100, strict=False)
    high: float = Field(99.8, gt=0, le=100, strict=False)
    cell: int = Field(1024, ge=64, le=4096)
    """Side of a lattice cell in pixels, where `over` is "local"; it is read as a whole."""
    contrast_floor: float = Field(0.1, ge=0, le=1, strict=False)
    """Least ``high - low`` of a cell, as a share of the plane's, where `over` is "local"."""

    @model_validator(mode="after")
    def _ordered(self) -> NormaliseSettings:
        if self.low >= self.high:
            msg = f"low must be < high, got {self.low} and {self.high}"
            raise ValueError(msg)
        return self


class TilingSettings(_Section):
    """The lattice of overlapping tiles; see `tiling.Tiling`."""

    tile: int = Field(512, ge=16)
    overlap: int = Field(64, ge=0)
    margin: int = Field(24, ge=0)
    blend: Literal["average", "crop"] = "average"

    def with_network(self, phase: int, scale: int) -> Tiling:
        """Lattice for a network that divides by `phase` and answers once per `scale` pixels.

        Raises
        ------
        RecipeError
            If the sizes contradict each other or the network.
        """
        if self.tile < 2 * phase:
            # The far edge of the image is reflected into its last tile.
            raise RecipeError(
                where="tiling.tile",
                expected=f"at least {2 * phase}, twice what the network divides by",
                found=str(self.tile),
                remedy="Raise it.",
            )
        try:
            return Tiling(self.tile, self.overlap, self.margin, phase, scale, self.blend)
        except ValueError as err:
            raise RecipeError(
                where="tiling",
                expected=f"sizes that fit each other and a network that divides by {phase}",
                found=str(err),
                remedy="Change tiling.tile, tiling.overlap or tiling.margin.",
            ) from err


class SegmentSettings(_Section):
    """The network and its thresholds."""

    model: str = "nuclei-fluo"
    """Name of a bundled model, or path of a StarDist model folder."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the convolutions; auto: bfloat16 where the machine has instructions for it."""
    prob_threshold: float | None = Field(None, gt=0, lt=1, strict=False)
    """Least object probability of a candidate; the model's own where null."""
    nms_threshold: float | None = Field(None, ge=0, le=1, strict=False)
    """Largest overlap of two objects; the model's own where null."""


class InstanceSettings(_Section):
    """How objects are decided at the borders of regions."""

    name: str = Field("nuclei", pattern=_NAME)
    """Name of the label image and of the table."""
    halo: int = Field(64, ge=16)
    """Least distance, in pixels, to which a region looks for candidates around its core."""
    halo_rays: float = Field(1.5, ge=0, le=8, strict=False)
    """Halo in lengths of the longest ray of any candidate; a region that finds it wider than its
    halo is done again with a halo that suffices."""

    _free = field_validator("name")(_free_name)


class FlagSettings(_Section):
    """Which objects are suspect: polynomial defenses (Jain, Shao, Hecht 2025, Algorithm 1)."""

    bank: str = "nuclei-fluo"
    """Name of a bundled bank of defenses, or path of one; it belongs to one model."""
    strength: float = Field(0.7, ge=0, le=1, strict=False)
    """How much of a defense is subtracted (X in the paper)."""
    tau: float = Field(15.0, ge=0, le=200, strict=False)
    """Largest distance, over box and centroid in pixels, of an object that is found again."""
    merge: float = Field(1.7, ge=0, le=20, strict=False)
    """R in the paper: candidates that share 1 / (1 + R) of the smaller box are one."""
    min_votes: float = Field(0.0, ge=0, le=1, strict=False)
    """Share of the defenses that must flag an object; at least one of them must."""
    min_votes_missing: float | None = Field(None, ge=0, le=1, strict=False)
    """Share of them that must show an object that is not there; as `min_votes` where null."""
    defenses: int | None = Field(None, ge=1)
    """How many defenses of the bank look, the first ones; all where null."""
    fn_max_covered: float = Field(0.5, ge=0, le=1, strict=False)
    """Largest share of a false-negative candidate that lies under objects."""
    stop: Literal["never", "early"] = "never"
    """early: a field of 2048 pixels is left once its flags are settled."""
    risk: float = Field(0.005, ge=0, lt=0.5, strict=False)
    """Share of a field's flags that all defenses may decide differently, where `stop` is early."""


class RepairSettings(_Section):
    """Which patches of a class map are filled in anew (Sauer et al., masked autoencoder)."""

    model: str
    """Name of a bundled masked autoencoder, or path of the folder of one; of the same classes."""
    threshold: float = Field(0.4, gt=0, lt=1, strict=False)
    """Mean entropy above which a patch of 4 by 4 pixels is not trusted."""
    prior_weight: float | None = Field(None, gt=0, le=10, strict=False)
    """Weight of the autoencoder's prior against the mean probability of the ensemble, which
    `classes.keep` must then name for every class; null: the autoencoder alone, as in the source."""


class ComponentSettings(_Section):
    """Objects as connected components of some classes, joined over the borders of regions."""

    name: str = Field("objects", pattern=_NAME)
    """Name of the label image and of the table."""
    classes: tuple[str, ...] = Field((), strict=False)
    """Classes that make up an object; all but the first where none is named."""
    connectivity: Literal[4, 8] = 8
    """Neighbours of a pixel: those at its sides, or at its corners too."""
    min_area: int = Field(1, ge=1)
    """Pixels of the smallest object that is kept."""

    _free = field_validator("name")(_free_name)

    @field_validator("classes")
    @classmethod
    def _once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            msg = f"each class once, got {', '.join(classes)}"
            raise ValueError(msg)
        return classes


class ClassSettings(_Section):
    """A class map by an ensemble, its uncertainty, its repair, and objects made of it."""

    ensemble: str
    """Name of a bundled ensemble, or path of the folder of one."""
    entropy: Literal["soft", "vote"] = "soft"
    """Entropy of the mean of the members' probabilities, or of their votes."""
    keep: tuple[str, ...] = Field((), strict=False)
    """Classes whose mean probability is kept as a map."""
    repair: RepairSettings | None = None
    """Fill in what is not trusted; absent: the ensemble's class map stays as it is."""
    objects: ComponentSettings | None = None
    """Make objects of the class map; absent: none."""


class SemanticSettings(ClassSettings):
    """The same, where the ensemble is the only network."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto: bfloat16 where the machine has instructions for it."""


class LevelSettings(_Section):
    """Which level of the image is taken, with all its channels."""

    level: int = Field(0, ge=0)
    """Resolution level that is read; 0 is the finest."""


class IdentityRecipe(_Section):
    """Copy the image: the smallest recipe, and the floor against which others are timed."""

    method: Literal["identity"]
    input: LevelSettings = LevelSettings()


class NetworkRecipe(_Section):
    """What all recipes that run networks over tiles have in common."""

    input: InputSettings = InputSettings()
    normalise: NormaliseSettings = NormaliseSettings()
    tiling: TilingSettings = TilingSettings()


class StarDistRecipe(NetworkRecipe):
    """Star-convex instances: network, average pooling, suppression, labels, table."""

    method: Literal["stardist"]
    segment: SegmentSettings = SegmentSettings()
    instances: InstanceSettings = InstanceSettings()
    flags: FlagSettings | None = None
    """Flag what cannot be trusted; absent: nothing is flagged."""
    classes: ClassSettings | None = None
    """A class map beside the objects, from the same read; absent: none."""

    @model_validator(mode="after")
    def _names_differ(self) -> StarDistRecipe:
        objects = self.classes.objects if self.classes else None
        if objects is not None and objects.name == self.instances.name:
            msg = f"classes.objects.name must differ from instances.name, got {objects.name}"
            raise ValueError(msg)
        return self


class SemanticRecipe(NetworkRecipe):
    """Classes of pixels by an ensemble, with entropy, repair and objects (Sauer et al.)."""

    method: Literal["semantic"]
    classes: SemanticSettings


Recipe = Annotated[IdentityRecipe | StarDistRecipe | SemanticRecipe, Field(discriminator="method")]


class Storage(_Section):
    """How pixels are stored; frozen when OUT is made."""

    # A chunk is decoded whole, even where the image is smaller.
    chunk: int = Field(512, ge=32, le=8192)
    shard: int = Field(2048, ge=32, le=65536)
    with_image: bool = False
    """Copy the source into OUT as its root image; else the root shows the first map."""

    @model_validator(mode="after")
    def _whole_chunks(self) -> Storage:
        if self.shard % self.chunk:
            msg = f"shard must be a multiple of chunk, got {self.shard} and {self.chunk}"
            raise ValueError(msg)
        return self


class Resources(_Section):
    """What the machine gives; may differ each time a run is continued."""

    region: int | None = Field(None, ge=32)
    """Side of a region in pixels, a multiple of the shard; chosen by the plan where null."""
    launch: int | None = Field(None, ge=1)
    """Tiles that go through the network at once; as many as fit the memory where null."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; one per core, as far as memory allows, where null."""
    threads: int = Field(2, ge=1, le=16)
    """Tasks that overlap in a worker: one computes while others read and write."""
    memory_gib: float | None = Field(None, gt=0, strict=False)
    """Memory that all workers together may take; 80 % of what is free where null."""
    retries: int = Field(3, ge=0)
    """How often a region that failed is tried again."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    elsewhere: bool = False
    """Whether the workers are on other machines, whose devices this one does not see; ``--cluster``
    says so by itself."""


class Settings(_Section):
    """A recipe document: the three parts."""

    recipe: Recipe
    storage: Storage = Storage()
    resources: Resources = Resources()

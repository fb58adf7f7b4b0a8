"""What decides a training, and what it tells while it runs."""

from dataclasses import dataclass, field
from pathlib import Path

from engine.training.augment import Augmentation
from engine.training.progress import EpochProgress
from engine.training.schedule import Schedule, require


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(Schedule):
    """Everything that `train_stardist` needs, beside what every training is told (`Schedule`).

    Parameters
    ----------
    images, labels : Path
        Folders of PNG or TIFF files with the same names.
    val_images, val_labels : Path, optional
        Validation folders, both or neither; without them images are set apart from `images`.
    n_rays, grid, n_filter_base, n_depth, batch_norm
        Shape of the network; not used with `init`.
    init : str, optional
        Model folder or bundled model to start from.
    size : int
        Side of a crop.
    score_every : int
        Epochs between scorings of whole validation images; 0 for none before the end.
    augmentation : Augmentation
        What may happen to a crop.

    Raises
    ------
    InputError
        If a value is out of range or only one validation folder is named.
    """

    images: Path
    labels: Path
    val_images: Path | None = None
    val_labels: Path | None = None
    n_rays: int = 32
    grid: tuple[int, int] = (2, 2)
    n_filter_base: int = 32
    n_depth: int = 3
    batch_norm: bool = True
    init: str | None = None
    size: int = 256
    score_every: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        require(self.size >= 1, "size", ">= 1", self.size)
        require(self.score_every >= 0, "score_every", ">= 0", self.score_every)
        both = (self.val_images is None) == (self.val_labels is None)
        require(both, "val_images, val_labels", "both or neither", self.val_images)

    def deciding(self) -> dict[str, str]:
        """Fields that decide the result, as text: a checkpoint continues under equal ones only."""
        return self.but("score_every")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(EpochProgress):
    """How far the training of a StarDist network is, at the end of an epoch.

    Parameters
    ----------
    epochs : int
        Planned.
    learning_rate : float
        At the end of the epoch.
    f1 : tuple of float, optional
        F1 on whole validation images at IoU 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, when scored.
    """

    epochs: int
    learning_rate: float
    f1: tuple[float, ...] | None

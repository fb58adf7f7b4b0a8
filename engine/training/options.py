"""What decides a training, and what it tells while it runs."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from engine.errors import InputError
from engine.training.augment import Augmentation

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything that `train_stardist` needs.

    Parameters
    ----------
    images, labels : Path
        Folders of PNG or TIFF files with the same names.
    out : Path
        The model folder to make; progress is kept in ``<out>.training`` until it stands.
    val_images, val_labels : Path, optional
        Validation folders, both or neither; without them images are set apart from `images`.
    val_fraction : float
        Share of images set apart, by image.
    n_rays, grid, n_filter_base, n_depth, batch_norm
        Shape of the network; not used with `init`.
    init : str, optional
        Model folder or bundled model to start from.
    epochs, steps, batch, size : int
        Epochs, steps per epoch, crops per step, side of a crop.
    learning_rate : float
        Highest rate, after a warm-up of 200 steps; then it falls with a cosine to 0.
    precision : str
        ``float32`` or ``bfloat16`` (autocast; loss and weights stay float32).
    budget_minutes : float, optional
        Time for the steps: the schedule then follows the share of steps or of time that is used
        up, whichever is larger, so that the rate reaches 0 in time. The result then depends on the
        speed of the machine.
    patience : int
        Epochs without a better validation loss after which training stops.
    score_every : int
        Epochs between scorings of whole validation images; 0 for none before the end.
    threads : int, optional
        Threads of torch; its own choice where None.
    seed : int
        Of the split, the initial weights and the batches.
    augmentation : Augmentation
        What may happen to a crop.

    Raises
    ------
    InputError
        If a value is out of range or only one validation folder is named.
    """

    images: Path
    labels: Path
    out: Path
    val_images: Path | None = None
    val_labels: Path | None = None
    val_fraction: float = 0.15
    n_rays: int = 32
    grid: tuple[int, int] = (2, 2)
    n_filter_base: int = 32
    n_depth: int = 3
    batch_norm: bool = True
    init: str | None = None
    epochs: int = 100
    steps: int = 100
    batch: int = 8
    size: int = 256
    learning_rate: float = 1e-3
    precision: Precision = "float32"
    budget_minutes: float | None = None
    patience: int = 40
    score_every: int = 0
    threads: int | None = None
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch", "size", "patience"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        _require(self.score_every >= 0, "score_every", ">= 0", self.score_every)
        _require(0 < self.val_fraction < 1, "val_fraction", "in (0, 1)", self.val_fraction)
        _require(self.learning_rate > 0, "learning_rate", "> 0", self.learning_rate)
        budget_ok = self.budget_minutes is None or self.budget_minutes > 0
        _require(budget_ok, "budget_minutes", "> 0", self.budget_minutes)
        _require(self.threads is None or self.threads >= 1, "threads", ">= 1", self.threads)
        known = self.precision in ("float32", "bfloat16")
        _require(known, "precision", "float32 or bfloat16", self.precision)
        both = (self.val_images is None) == (self.val_labels is None)
        _require(both, "val_images, val_labels", "both or neither", self.val_images)

    def deciding(self) -> dict[str, str]:
        """Fields that decide the result, as text: a checkpoint continues under equal ones only."""
        free = ("out", "threads", "budget_minutes", "patience", "score_every")
        return {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in free}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is, at the end of an epoch.

    Parameters
    ----------
    epoch, epochs : int
        Epochs done and planned.
    done : float
        Share of the schedule that is used up, in [0, 1].
    loss, val_loss, best_val_loss : float
        Mean of the epoch, of the averaged weights on validation crops, the best so far.
    learning_rate : float
        At the end of the epoch.
    elapsed_s : float
        Seconds of training so far, over all resumptions.
    f1 : tuple of float, optional
        F1 on whole validation images at IoU 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, when scored.
    """

    epoch: int
    epochs: int
    done: float
    loss: float
    val_loss: float
    best_val_loss: float
    learning_rate: float
    elapsed_s: float
    f1: tuple[float, ...] | None


def _require(ok: bool, field_name: str, rule: str, found: object) -> None:
    if not ok:
        raise InputError(
            where=f"training option {field_name}", expected=rule, found=str(found),
            remedy="Correct the option.",
        )  # fmt: skip

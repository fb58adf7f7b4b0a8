"""What decides the training of a masked autoencoder, and what it tells while it runs."""

from dataclasses import dataclass, fields
from pathlib import Path

from engine.errors import InputError
from engine.networks.mae_folder import MaeConfig
from engine.training.options import Precision

#: Shares of masked patches at which a network is scored: table 1 of the source [004].
SCORED_RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class MaeTrainOptions:
    """Everything that `train_mae` needs.

    Parameters
    ----------
    labels : Path
        Folder of PNG or TIFF class maps, or one TIFF; a TIFF may hold a stack.
    out : Path
        The folder to make; progress is kept in ``<out>.training`` until it stands.
    config : MaeConfig
        Shape and classes of the network.
    entropy : Path, optional
        Entropy maps of the same names, uint8 (255 stands for 1).
    entropy_limit : float
        Pixels with more entropy than this, in [0, 1], do not count: they may be wrong. The paper
        takes 0.1.
    val_labels : Path, optional
        Class maps for validation; without them some are set apart from `labels`.
    val_fraction : float
        Share that is set apart, by file, or by slice where there is one file.
    foreground : bool
        Whether labels are ids of objects: all that is not 0 then is class 1 of 2.
    class_weights : tuple of float, optional
        Weight of each class in the loss; by default the inverse square roots of their shares.
    blobs : float
        Share of windows in which what is masked is in blobs, in [0, 1]; elsewhere patches are
        drawn one by one, as in the source.
    piece, piece_share : int, float
        For the first `piece_share` of the schedule only a square of `piece` pixels of each window
        enters, and so many more windows; 0 for whole windows from the start.
    epochs, steps, batch : int
        Epochs, steps per epoch, windows per step.
    learning_rate : float
        Highest rate, after a warm-up; then it falls with a cosine to 0. The paper's is 1.5e-4.
    precision : str
        ``float32`` or ``bfloat16`` (autocast; loss and weights stay float32).
    budget_minutes : float, optional
        Time for the steps; the schedule then follows whichever is further, steps or time, and the
        result depends on the speed of the machine.
    patience : int
        Epochs without a better validation loss after which training stops.
    threads : int, optional
        Threads of torch; its own choice where None.
    half : bool
        Whether the weights are written as float16.
    seed : int
        Of the split, the initial weights and the batches.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    labels: Path
    out: Path
    config: MaeConfig
    entropy: Path | None = None
    entropy_limit: float = 0.1
    val_labels: Path | None = None
    val_fraction: float = 0.15
    foreground: bool = False
    class_weights: tuple[float, ...] | None = None
    blobs: float = 0.25
    piece: int = 64
    piece_share: float = 0.7
    epochs: int = 1000
    steps: int = 100
    batch: int = 4
    learning_rate: float = 3e-3
    precision: Precision = "bfloat16"
    budget_minutes: float | None = None
    patience: int = 1000
    threads: int | None = None
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch", "patience"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        for name in ("entropy_limit", "blobs", "piece_share"):
            _require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        _require(0 < self.val_fraction < 1, "val_fraction", "in (0, 1)", self.val_fraction)
        _require(self.learning_rate > 0, "learning_rate", "> 0", self.learning_rate)
        budget_ok = self.budget_minutes is None or self.budget_minutes > 0
        _require(budget_ok, "budget_minutes", "> 0", self.budget_minutes)
        _require(self.threads is None or self.threads >= 1, "threads", ">= 1", self.threads)
        known = self.precision in ("float32", "bfloat16")
        _require(known, "precision", "float32 or bfloat16", self.precision)
        window, patch = self.config.window, self.config.patch
        fits = 0 <= self.piece <= window and self.piece % patch == 0
        _require(fits, "piece", f"a multiple of {patch} up to {window}", self.piece)
        count, weights = len(self.config.classes), self.class_weights
        sound = weights is None or (len(weights) == count and all(w > 0 for w in weights))
        _require(sound, "class_weights", f"{count} numbers > 0", weights)
        two = not self.foreground or count == 2
        _require(two, "foreground", "2 classes", f"{count}")

    def deciding(self) -> dict[str, str]:
        """Fields that decide the result, as text: a checkpoint continues under equal ones only."""
        free = ("out", "threads", "budget_minutes", "patience", "half")
        return {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in free}


@dataclass(frozen=True, slots=True)
class MaeScores:
    """How well masked patches are filled, at each of `SCORED_RATIOS`.

    Parameters
    ----------
    loss : float
        Mean weighted cross-entropy over all ratios.
    dice : tuple of float
        Dice of all classes counted together, over pixels of masked patches that are near
        foreground: the share that is right, as the source scores (torchmetrics, micro).
    class_dice : tuple of float
        Mean over the classes of each class's own Dice.
    """

    loss: float
    dice: tuple[float, ...]
    class_dice: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MaeProgress:
    """How far a training is, at the end of an epoch.

    Parameters
    ----------
    epoch : int
        Epochs done.
    done : float
        Share of the schedule that is used up, in [0, 1].
    loss : float
        Mean of the epoch.
    best_loss : float
        The best validation loss so far.
    scores : MaeScores
        Of the averaged weights on validation windows.
    elapsed_s : float
        Seconds of training so far, over all resumptions.
    """

    epoch: int
    done: float
    loss: float
    best_loss: float
    scores: MaeScores
    elapsed_s: float


def _require(ok: bool, field_name: str, rule: str, found: object) -> None:
    if not ok:
        raise InputError(
            where=f"training option {field_name}", expected=rule, found=str(found),
            remedy="Correct the option.",
        )  # fmt: skip

"""What decides the training of a masked autoencoder, and what it tells while it runs."""

from dataclasses import dataclass
from pathlib import Path

from engine.networks.mae_folder import MaeConfig
from engine.training.progress import EpochProgress
from engine.training.schedule import Precision, Schedule, require

#: Shares of masked patches at which a network is scored: table 1 of the source [004].
SCORED_RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaeTrainOptions(Schedule):
    """Everything that `train_mae` needs, beside what every training is told (`Schedule`).

    The paper's learning rate is 1.5e-4.

    Parameters
    ----------
    labels : Path
        Folder of PNG or TIFF class maps, or one TIFF; a TIFF may hold a stack.
    config : MaeConfig
        Shape and classes of the network; with `init`, those of that model.
    init : str, optional
        Masked autoencoder whose weights the training begins with; a path or a bundled name.
    entropy : Path, optional
        Entropy maps of the same names, uint8 (255 stands for 1).
    entropy_limit : float
        Pixels with more entropy than this, in [0, 1], do not count: they may be wrong. The paper
        takes 0.1.
    val_labels : Path, optional
        Class maps for validation; without them some are set apart from `labels`.
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
    half : bool
        Whether the weights are written as float16.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    labels: Path
    config: MaeConfig
    init: str | None = None
    entropy: Path | None = None
    entropy_limit: float = 0.1
    val_labels: Path | None = None
    foreground: bool = False
    class_weights: tuple[float, ...] | None = None
    blobs: float = 0.25
    piece: int = 64
    piece_share: float = 0.7
    epochs: int = 1000
    batch: int = 4
    learning_rate: float = 3e-3
    precision: Precision = "bfloat16"
    patience: int = 1000
    half: bool = False

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        for name in ("entropy_limit", "blobs", "piece_share"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        window, patch = self.config.window, self.config.patch
        fits = 0 <= self.piece <= window and self.piece % patch == 0
        require(fits, "piece", f"a multiple of {patch} up to {window}", self.piece)
        count, weights = len(self.config.classes), self.class_weights
        sound = weights is None or (len(weights) == count and all(w > 0 for w in weights))
        require(sound, "class_weights", f"{count} numbers > 0", weights)
        two = not self.foreground or count == 2
        require(two, "foreground", "2 classes", f"{count}")

    def deciding(self) -> dict[str, str]:
        """Fields that decide the result, as text: a checkpoint continues under equal ones only."""
        return self.but("half")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MaeProgress(EpochProgress):
    """How far the training of a masked autoencoder is, at the end of an epoch.

    Parameters
    ----------
    scores : MaeScores
        Of the averaged weights on validation windows.
    """

    scores: MaeScores

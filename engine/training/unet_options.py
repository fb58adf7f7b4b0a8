"""What decides the training of an ensemble of U-Nets, and what it tells while it runs."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from engine.errors import InputError
from engine.networks.unet_config import Norm, UNetConfig
from engine.training.augment import Augmentation
from engine.training.options import Precision

#: Changes of crops by default: microscopes differ in light, focus and noise.
CHANGES = Augmentation(noise=0.1, blur=1.2, exposure=0.4, zoom=(0.75, 1.33))
#: Options that do not decide what a member becomes, step by step.
_FREE = ("out", "threads", "budget_minutes", "patience", "half", "stardist")


@dataclass(frozen=True, slots=True)
class UNetOptions:
    """Everything that `train_unet` needs.

    Parameters
    ----------
    images, labels : str
        Two folders of PNG or TIFF files with the same names, two TIFF stacks whose slices belong
        together, or two OME-Zarr images.
    out : Path
        The ensemble folder to make; progress is kept in ``<out>.training`` until it stands.
    classes : tuple of str
        Names of the classes; labels hold their places, 0 is background.
    foreground : bool
        Whether labels are ids of objects, of which each counts as class 1; two classes then.
    slices : tuple of int, optional
        Images to train on, first and one past the last, in their order; all where None.
    val_images, val_labels : str, optional
        For validation, both or neither; without them images are set apart from `images`.
    val_fraction : float
        Share of images set apart, by image.
    members : int
        U-Nets to train; each begins with other weights and sees other crops.
    share : float
        Share of the training images that a member sees, in (0, 1].
    stardist : str, optional
        StarDist model that is added as a last member; two classes only.
    widths, convs, norm, groups
        Shape of the networks, as in `UNetConfig`.
    epochs, steps, batch, size : int
        Epochs, steps per epoch, crops per step, side of a crop.
    learning_rate : float
        Highest rate, after a short warm-up; then it falls with a cosine to 0.
    precision : str
        ``float32`` or ``bfloat16`` (autocast; loss and weights stay float32).
    budget_minutes : float, optional
        Time for the steps of one member; the schedule ends with it, so that the result depends
        on the speed of the machine.
    patience : int
        Epochs without a better validation loss after which the training of a member ends.
    threads : int, optional
        Threads of torch; its own choice where None.
    half : bool
        Whether convolutions are stored as float16.
    seed : int
        Of the split, the subsets, the initial weights and the batches.
    augmentation : Augmentation
        What may happen to a crop.

    Raises
    ------
    InputError
        If a value is out of range or only one validation source is named.
    ModelError
        If no network has such a shape.
    """

    images: str
    labels: str
    out: Path
    classes: tuple[str, ...] = ("background", "object")
    foreground: bool = False
    slices: tuple[int, int] | None = None
    val_images: str | None = None
    val_labels: str | None = None
    val_fraction: float = 0.15
    members: int = 4
    share: float = 0.65
    stardist: str | None = None
    widths: tuple[int, ...] = (12, 24, 48, 96)
    convs: int = 2
    norm: Norm = "batch"
    groups: int = 4
    epochs: int = 100
    steps: int = 50
    batch: int = 8
    size: int = 128
    learning_rate: float = 3e-3
    precision: Precision = "float32"
    budget_minutes: float | None = None
    patience: int = 40
    threads: int | None = None
    half: bool = False
    seed: int = 0
    augmentation: Augmentation = field(default=CHANGES)

    def __post_init__(self) -> None:
        for name in ("members", "epochs", "steps", "batch", "size", "patience"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        _require(0 < self.val_fraction < 1, "val_fraction", "in (0, 1)", self.val_fraction)
        _require(0 < self.share <= 1, "share", "in (0, 1]", self.share)
        _require(self.learning_rate > 0, "learning_rate", "> 0", self.learning_rate)
        budget_ok = self.budget_minutes is None or self.budget_minutes > 0
        _require(budget_ok, "budget_minutes", "> 0", self.budget_minutes)
        _require(self.threads is None or self.threads >= 1, "threads", ">= 1", self.threads)
        known = self.precision in ("float32", "bfloat16")
        _require(known, "precision", "float32 or bfloat16", self.precision)
        both = (self.val_images is None) == (self.val_labels is None)
        _require(both, "val_images, val_labels", "both or neither", self.val_images)
        names = len(set(self.classes)) == len(self.classes) >= 2 and all(self.classes)
        _require(names, "classes", "at least 2 different names", ", ".join(self.classes))
        two = len(self.classes) == 2 or not (self.foreground or self.stardist)
        _require(two, "classes", "2 names for ids of objects or StarDist", str(len(self.classes)))
        span = self.slices is None or 0 <= self.slices[0] < self.slices[1]
        _require(span, "slices", "0 <= first < last", self.slices)
        by = self.config(1).divisor
        _require(self.size % by == 0, "size", f"a multiple of {by}", self.size)

    def config(self, channels: int) -> UNetConfig:
        """Shape of a member for images of so many channels."""
        return UNetConfig(
            channels, len(self.classes), self.widths, self.convs, self.norm, self.groups
        )

    def deciding(self, member: int) -> dict[str, str]:
        """Fields that decide what a member becomes, as text, and its number."""
        values = {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in _FREE}
        return values | {"member": str(member)}


@dataclass(frozen=True, slots=True)
class UNetProgress:
    """How far the training of an ensemble is, at the end of an epoch of a member.

    Parameters
    ----------
    member, members : int
        The member that is trained, from 0, and how many there will be.
    epoch : int
        Epochs of this member that are done.
    done : float
        Share of this member's schedule that is used up, in [0, 1].
    loss, val_loss, best_val_loss : float
        Mean of the epoch, of the averaged weights on validation crops, the best so far.
    elapsed_s : float
        Seconds of training of this member so far, over all resumptions.
    """

    member: int
    members: int
    epoch: int
    done: float
    loss: float
    val_loss: float
    best_val_loss: float
    elapsed_s: float


def _require(ok: bool, field_name: str, rule: str, found: object) -> None:
    if not ok:
        raise InputError(
            where=f"training option {field_name}", expected=rule, found=str(found),
            remedy="Correct the option.",
        )  # fmt: skip

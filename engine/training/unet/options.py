"""What decides the training of an ensemble of U-Nets, and what it tells while it runs."""

from dataclasses import dataclass, field

from engine.networks.checking import PLAIN_NAMES, is_plain
from engine.networks.unet_config import Norm, UNetConfig
from engine.training.augment import Augmentation
from engine.training.progress import EpochProgress
from engine.training.schedule import Schedule, require

#: Changes of crops by default: microscopes differ in light, focus and noise.
CHANGES = Augmentation(noise=0.1, blur=1.2, exposure=0.4, zoom=(0.75, 1.33))


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetOptions(Schedule):
    """Everything that `train_unet` needs, beside what every training is told (`Schedule`).

    Epochs, patience and the budget are those of one member.

    Parameters
    ----------
    images, labels : str
        Two folders of PNG or TIFF files with the same names, two TIFF stacks whose slices belong
        together, or two OME-Zarr images.
    classes : tuple of str
        Names of the classes, of letters, digits, - and _; labels hold their places, 0 is
        background.
    foreground : bool
        Whether labels are ids of objects, of which each counts as class 1; two classes then.
    slices : tuple of int, optional
        Images to train on, first and one past the last, in their order; all where None.
    val_images, val_labels : str, optional
        For validation, both or neither; without them images are set apart from `images`.
    members : int
        U-Nets to train; each begins with other weights and sees other crops.
    share : float
        Share of the training images that a member sees, in (0, 1].
    stardist : str, optional
        StarDist model that is added as a last member; two classes only.
    widths, convs, norm, groups
        Shape of the networks, as in `UNetConfig`.
    size : int
        Side of a crop.
    half : bool
        Whether convolutions are stored as float16.
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
    classes: tuple[str, ...] = ("background", "object")
    foreground: bool = False
    slices: tuple[int, int] | None = None
    val_images: str | None = None
    val_labels: str | None = None
    members: int = 4
    share: float = 0.65
    stardist: str | None = None
    widths: tuple[int, ...] = (12, 24, 48, 96)
    convs: int = 2
    norm: Norm = "batch"
    groups: int = 4
    steps: int = 50
    size: int = 128
    learning_rate: float = 3e-3
    half: bool = False
    augmentation: Augmentation = field(default=CHANGES)

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        require(self.members >= 1, "members", ">= 1", self.members)
        require(self.size >= 1, "size", ">= 1", self.size)
        require(0 < self.share <= 1, "share", "in (0, 1]", self.share)
        both = (self.val_images is None) == (self.val_labels is None)
        require(both, "val_images, val_labels", "both or neither", self.val_images)
        names = len(set(self.classes)) == len(self.classes) >= 2 and all(self.classes)
        require(names, "classes", "at least 2 different names", ", ".join(self.classes))
        plain = all(map(is_plain, self.classes))
        require(plain, "classes", PLAIN_NAMES, ", ".join(self.classes))
        two = len(self.classes) == 2 or not (self.foreground or self.stardist)
        require(two, "classes", "2 names for ids of objects or StarDist", str(len(self.classes)))
        span = self.slices is None or 0 <= self.slices[0] < self.slices[1]
        require(span, "slices", "0 <= first < last", self.slices)
        by = self.config(1).divisor
        require(self.size % by == 0, "size", f"a multiple of {by}", self.size)

    def config(self, channels: int) -> UNetConfig:
        """Shape of a member for images of so many channels."""
        return UNetConfig(
            channels, len(self.classes), self.widths, self.convs, self.norm, self.groups
        )

    def deciding(self, member: int) -> dict[str, str]:
        """Fields that decide what a member becomes, as text, and its number."""
        return self.but("half", "stardist") | {"member": str(member)}


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetProgress(EpochProgress):
    """How far the training of an ensemble is, at the end of an epoch of a member.

    Epochs, schedule, losses and time are those of this member.

    Parameters
    ----------
    member, members : int
        The member that is trained, from 0, and how many there will be.
    """

    member: int
    members: int

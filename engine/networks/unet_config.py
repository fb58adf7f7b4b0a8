"""The shape of a U-Net: a value, read and checked without torch."""

from dataclasses import dataclass
from typing import Literal

from engine.networks.checking import is_int, require

Norm = Literal["group", "batch"]
NORMS: tuple[Norm, ...] = ("group", "batch")


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Shape of a 2-D U-Net; field names are the keys of a member's ``config.json``.

    Parameters
    ----------
    n_channel_in : int
        Channels of the input image.
    n_classes : int
        Classes, background included; at least 2.
    widths : tuple of int
        Channels at each level, finest first; between two levels the size is halved.
    convs : int
        3 by 3 convolutions per level, on the way down and again on the way up.
    norm : {"group", "batch"}
        Normalisation after each convolution. Group: over the tile, so that a pixel sees all of
        it. Batch: by fixed statistics, folded into the convolutions before inference.
    groups : int
        Groups of channels of the group normalisation; must divide each width.

    Raises
    ------
    ModelError
        If a value is out of its range.

    Examples
    --------
    >>> UNetConfig(n_channel_in=1, n_classes=4, widths=(12, 24, 48, 96)).divisor
    8
    """

    n_channel_in: int
    n_classes: int
    widths: tuple[int, ...] = (12, 24, 48, 96)
    convs: int = 2
    norm: Norm = "batch"
    groups: int = 4

    def __post_init__(self) -> None:
        for field, low in (("n_channel_in", 1), ("n_classes", 2), ("convs", 1), ("groups", 1)):
            require(is_int(getattr(self, field), low), field, f"an integer >= {low}", self)
        widths = isinstance(self.widths, tuple) and len(self.widths) >= 1
        sound = widths and all(is_int(width, 1) for width in self.widths)
        require(sound, "widths", "integers >= 1, one for each level", self)
        require(self.norm in NORMS, "norm", " | ".join(NORMS), self)
        divides = self.norm != "group" or not any(width % self.groups for width in self.widths)
        require(divides, "groups", f"a divisor of each width in {self.widths}", self)

    @property
    def divisor(self) -> int:
        """Pixels of which an input's height and width must be multiples."""
        return int(2 ** (len(self.widths) - 1))

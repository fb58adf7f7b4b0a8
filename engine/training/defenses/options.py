"""What decides a bank of defenses, and what its making tells while it runs."""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

from engine.methods.defenses import Layout
from engine.networks.defense_bank import Mode
from engine.training.schedule import require

Route = Literal["search", "gradient", "both"]

_check = partial(require, kind="defense")

#: F1 at IoU 0.75 from which a piece is good enough to learn nothing from (the paper's).
GOOD = 0.9


@dataclass(frozen=True, slots=True)
class DefenseOptions:
    """Everything that `make_bank` needs.

    Parameters
    ----------
    model : str
        Model folder or bundled model for which the defenses are made.
    images, labels : Path
        Folders of PNG or TIFF files with the same names.
    out : Path
        The bank to make, a ``.safetensors`` file; finished pieces are kept in ``<out>.parts``.
    degree, blocks : int
        Degree of the polynomials, blocks along each axis of the field of 256 pixels.
    route : str
        ``gradient`` descends the training loss, ``search`` needs no gradient (the paper's kind),
        ``both`` searches on from where the gradient led.
    mode : str
        ``global``: the image normalised by its percentiles; ``field``: each field scaled to
        [0, 1] before and after, as in the paper.
    steps, evaluations : int
        Steps of the gradient, predictions of the search, for one piece.
    margin : float
        F1 by which a defense must raise its piece at the least, in [0, 1); at 0, by anything.
    limit : int, optional
        Pieces to look at, at the most; all where None.
    minutes : float, optional
        Time after which no piece is begun; what was made by then becomes the bank.
    seed : int
        Of the order of the pieces and of the search.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    model: str
    images: Path
    labels: Path
    out: Path
    degree: int = 9
    blocks: int = 4
    route: Route = "both"
    mode: Mode = "global"
    steps: int = 40
    evaluations: int = 160
    margin: float = 0.0
    limit: int | None = None
    minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.out.suffix == ".safetensors", "out", "NAME.safetensors", self.out)
        _check(1 <= self.degree <= 32, "degree", "1 to 32", self.degree)
        cuts = self.blocks in (1, 2, 4, 8, 16, 32)
        _check(cuts, "blocks", "1, 2, 4, 8, 16 or 32", self.blocks)
        known = self.route in ("search", "gradient", "both")
        _check(known, "route", "search, gradient or both", self.route)
        _check(self.mode in ("global", "field"), "mode", "global or field", self.mode)
        _check(0 <= self.margin < 1, "margin", "in [0, 1)", self.margin)
        _check(self.seed >= 0, "seed", ">= 0", self.seed)
        for name in ("steps", "evaluations", "limit"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, ">= 1", value)
        _check(self.minutes is None or self.minutes > 0, "minutes", "> 0", self.minutes)

    @property
    def layout(self) -> Layout:
        """Layout of the defenses."""
        return Layout(self.degree, self.blocks)

    def deciding(self, model_sha256: str) -> dict[str, str]:
        """Facts that decide what becomes of a piece, beside its pixels and labels; as text."""
        free = ("model", "images", "labels", "out", "limit", "minutes")
        values = {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in free}
        return values | {"model": model_sha256}


@dataclass(frozen=True, slots=True)
class DefenseProgress:
    """How far the making of a bank is, after a piece.

    Parameters
    ----------
    done, pieces : int
        Pieces looked at and planned.
    tried, kept : int
        Of those: below the F1 that is good enough; with a defense that raises it.
    origin : str
        The piece.
    f1_before, f1_after : float
        Its F1 at IoU 0.75 without and with its best defense.
    seconds : float
        It took, in its process.
    """

    done: int
    pieces: int
    tried: int
    kept: int
    origin: str
    f1_before: float
    f1_after: float
    seconds: float

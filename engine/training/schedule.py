"""Options that every training of a network has, and how options are checked."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from engine.errors import InputError

Precision = Literal["float32", "bfloat16"]

#: Options that do not decide what becomes of a training, step by step.
_FREE = ("out", "threads", "budget_minutes", "patience")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What every training is told; each kind has defaults of its own.

    Parameters
    ----------
    out : Path
        The folder to make; progress is kept in ``<out>.training`` until it stands.
    val_fraction : float
        Share of what is set apart for validation where nothing is named for it.
    epochs, steps, batch : int
        Epochs at the most, steps per epoch, crops or windows per step.
    learning_rate : float
        Highest rate, after a warm-up; then it falls with a cosine to 0.
    precision : str
        ``float32`` or ``bfloat16`` (autocast; loss and weights stay float32).
    budget_minutes : float, optional
        Time for the steps; the schedule ends with it, so that the result depends on the speed of
        the machine.
    patience : int
        Epochs without a better validation loss after which training stops.
    threads : int, optional
        Threads of torch; its own choice where None.
    seed : int
        Of the split, the initial weights and the batches.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    out: Path
    val_fraction: float = 0.15
    epochs: int = 100
    steps: int = 100
    batch: int = 8
    learning_rate: float = 1e-3
    precision: Precision = "float32"
    budget_minutes: float | None = None
    patience: int = 40
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch", "patience"):
            require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        require(0 < self.val_fraction < 1, "val_fraction", "in (0, 1)", self.val_fraction)
        require(self.learning_rate > 0, "learning_rate", "> 0", self.learning_rate)
        budget_ok = self.budget_minutes is None or self.budget_minutes > 0
        require(budget_ok, "budget_minutes", "> 0", self.budget_minutes)
        require(self.threads is None or self.threads >= 1, "threads", ">= 1", self.threads)
        known = self.precision in ("float32", "bfloat16")
        require(known, "precision", "float32 or bfloat16", self.precision)

    @property
    def autocast(self) -> bool:
        """Whether networks compute in bfloat16."""
        return self.precision == "bfloat16"

    @property
    def work(self) -> Path:
        """Where progress is kept."""
        return self.out.with_name(f"{self.out.name}.training")

    def but(self, *free: str) -> dict[str, str]:
        """Write down all fields, apart from those that decide nothing and from `free`."""
        names = [f.name for f in fields(self) if f.name not in (*_FREE, *free)]
        return {name: str(getattr(self, name)) for name in names}


def require(ok: bool, name: str, rule: str, found: object, *, kind: str = "training") -> None:
    """Refuse an option that does not keep its rule.

    Parameters
    ----------
    ok : bool
        Whether it does.
    name, rule : str
        The option, and what would have been right.
    found : object
        Its value.
    kind : str
        Of options.

    Raises
    ------
    InputError
        If it does not.
    """
    if not ok:
        raise InputError(
            where=f"{kind} option {name}", expected=rule, found=str(found),
            remedy="Correct the option.",
        )  # fmt: skip

"""How well class maps agree with the truth, and how well entropy finds where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np

from engine.errors import InputError

#: Values of a stored entropy.
_LEVELS = 256


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Pixels of each class in prediction, truth and both, of one or more images.

    Parameters
    ----------
    both, predicted, true : tuple of int
        One count a class.

    Examples
    --------
    >>> counts = count_classes(np.array([[0, 1, 1]]), np.array([[0, 1, 0]]), 2)
    >>> round(counts.mean or 0, 3)
    0.667
    """

    both: tuple[int, ...]
    predicted: tuple[int, ...]
    true: tuple[int, ...]

    def add(self, other: ClassCounts) -> ClassCounts:
        """Pool with the counts of another image.

        Parameters
        ----------
        other : ClassCounts
            Of as many classes.

        Returns
        -------
        ClassCounts
            Of both.
        """
        return ClassCounts(
            _sums(self.both, other.both),
            _sums(self.predicted, other.predicted),
            _sums(self.true, other.true),
        )

    @property
    def dice(self) -> tuple[float | None, ...]:
        """Dice of each class, ``2 |P and T| / (|P| + |T|)``; None for one in neither."""
        rows = zip(self.both, self.predicted, self.true, strict=True)
        return tuple(2 * b / (p + t) if p + t else None for b, p, t in rows)

    @property
    def mean(self) -> float | None:
        """Mean of `dice` over the classes that occur, background too; None where none does."""
        known = [one for one in self.dice if one is not None]
        return fmean(known) if known else None

    @property
    def mean_foreground(self) -> float | None:
        """Mean of `dice` over the classes above 0 that occur; None where none does."""
        known = [one for one in self.dice[1:] if one is not None]
        return fmean(known) if known else None

    @property
    def micro(self) -> float | None:
        """Dice of all classes pooled, which is the share of right pixels; None without pixels."""
        total = sum(self.true)
        return sum(self.both) / total if total else None


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Wrong and right pixels at each value of a stored entropy, of one or more images.

    Parameters
    ----------
    wrong, right : tuple of 256 int
        Pixels at entropy 0 to 255.

    Examples
    --------
    >>> entropy = np.array([[0, 0, 0, 200]], np.uint8)
    >>> found = count_errors(entropy, np.array([[False, False, False, True]]))
    >>> found.auprc, found.base_rate
    (1.0, 0.25)
    """

    wrong: tuple[int, ...]
    right: tuple[int, ...]

    def add(self, other: ErrorCounts) -> ErrorCounts:
        """Pool with the counts of another image.

        Parameters
        ----------
        other : ErrorCounts
            Of the other image.

        Returns
        -------
        ErrorCounts
            Of both.
        """
        return ErrorCounts(_sums(self.wrong, other.wrong), _sums(self.right, other.right))

    @property
    def base_rate(self) -> float | None:
        """Share of wrong pixels, what a detector that knows nothing reaches; None without any."""
        total = sum(self.wrong) + sum(self.right)
        return sum(self.wrong) / total if total else None

    @property
    def auprc(self) -> float | None:
        """Area under the precision-recall curve of "pixel is wrong"; None where none is.

        Average precision, ``sum over thresholds of (R_n - R_(n-1)) P_n``, without interpolation:
        exact, since a stored entropy has 256 values.
        """
        wrong = np.array(self.wrong[::-1], np.float64)
        if not wrong.any():
            return None
        found = np.cumsum(wrong)
        called = found + np.cumsum(np.array(self.right[::-1], np.float64))
        precision = found / np.maximum(called, 1)
        return float(np.sum(wrong * precision) / found[-1])


def count_classes(
    predicted: np.ndarray, true: np.ndarray, n_classes: int, where: np.ndarray | None = None
) -> ClassCounts:
    """Count the pixels of each class.

    Parameters
    ----------
    predicted, true : ndarray of the same shape, integer
        Class maps, 0 to `n_classes` - 1.
    n_classes : int
        Classes, at least 1.
    where : ndarray of that shape, bool, optional
        Pixels that count, such as repaired ones; all without it.

    Returns
    -------
    ClassCounts
        To be added up over images, so that Dice is of all their pixels together.

    Raises
    ------
    InputError
        If shapes differ, or a pixel that counts has another class.
    """
    _check_shapes(predicted, true, where)
    if where is not None:
        predicted, true = predicted[where], true[where]
    for name, classes in (("prediction", predicted), ("truth", true)):
        _check_classes(name, classes, n_classes)
    pairs = true.astype(np.int64).ravel() * n_classes + predicted.ravel()
    table = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
    return ClassCounts(
        _ints(np.diagonal(table)), _ints(table.sum(axis=0)), _ints(table.sum(axis=1))
    )


def count_errors(
    entropy: np.ndarray, wrong: np.ndarray, where: np.ndarray | None = None
) -> ErrorCounts:
    """Count wrong and right pixels at each entropy.

    Parameters
    ----------
    entropy : ndarray, uint8
        Stored entropy: 255 times the normalised one.
    wrong : ndarray of that shape, bool
        Where the class map is not the truth.
    where : ndarray of that shape, bool, optional
        Pixels that count; all without it.

    Returns
    -------
    ErrorCounts
        To be added up over images.

    Raises
    ------
    InputError
        If shapes or the type of the entropy are wrong.
    """
    _check_shapes(entropy, wrong, where)
    if entropy.dtype != np.uint8:
        raise InputError(
            where="entropy",
            expected="uint8, 255 times the normalised entropy",
            found=str(entropy.dtype),
            remedy="Give it as the run stores it.",
        )
    if where is not None:
        entropy, wrong = entropy[where], wrong[where]
    wrong = wrong.astype(bool)
    return ErrorCounts(
        _ints(np.bincount(entropy[wrong], minlength=_LEVELS)),
        _ints(np.bincount(entropy[~wrong], minlength=_LEVELS)),
    )


def _check_shapes(first: np.ndarray, second: np.ndarray, where: np.ndarray | None) -> None:
    """Refuse images of different size."""
    shapes = [one.shape for one in (first, second, where) if one is not None]
    if len(set(shapes)) > 1:
        raise InputError(
            where="images to compare",
            expected="the same shape",
            found=", ".join(map(str, shapes)),
            remedy="Give prediction and truth of the same field.",
        )


def _check_classes(name: str, classes: np.ndarray, n_classes: int) -> None:
    """Refuse classes that are unknown."""
    if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < n_classes:
        raise InputError(
            where=f"classes of the {name}",
            expected=f"0 to {n_classes - 1}",
            found=f"{int(classes.min())} to {int(classes.max())}",
            remedy="Compare maps of the same classes.",
        )


def _sums(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Add up counts of the same things."""
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _ints(counts: np.ndarray) -> tuple[int, ...]:
    """Make counts Python's integers."""
    return tuple(int(one) for one in counts)

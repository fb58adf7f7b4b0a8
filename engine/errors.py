"""The error tree: every error says where, what was expected, what was found and what to do.

::

    TilewrightError
    ├── RefusedError            nothing was done; exit code 2
    │   ├── InputError          an image, a label image or a file that cannot be taken
    │   ├── RecipeError         a recipe or a setting
    │   ├── ModelError          a model folder or its weights
    │   ├── OutputError         the place where the result should go
    │   └── ResourceError       memory, disk, workers, devices
    ├── RegionError             one region failed; the run goes on; exit code 3
    ├── StoppedRunError         the run cannot go on here and now: disk full; exit code 3
    ├── LeaseLostError          another driver took over; this one stops; exit code 3
    └── InterruptedRunError     the user or the system asked to stop; exit code 130
"""


class TilewrightError(Exception):
    """Root of all errors that tilewright raises on purpose.

    Parameters
    ----------
    where : str
        The file, field, region or option that is meant.
    expected : str
        What would have been right.
    found : str
        What was there instead.
    remedy : str
        What the user can do about it.

    Examples
    --------
    >>> str(RecipeError(where="tiling.overlap", expected="less than the tile on every axis",
    ...                 found="256 with a tile of 224", remedy="Lower tiling.overlap."))
    'tiling.overlap: expected less than the tile on every axis, found 256 with a tile of 224. Lower tiling.overlap.'
    """  # noqa: E501 - the last line is one message

    exit_code = 1

    def __init__(self, *, where: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}. {remedy}")
        self.where = where
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.where, self.expected, self.found, self.remedy)


def _rebuild(
    kind: type[TilewrightError], where: str, expected: str, found: str, remedy: str
) -> TilewrightError:
    """Make the error again in another process: keyword-only fields do not pickle by themselves."""
    return kind(where=where, expected=expected, found=found, remedy=remedy)


class RefusedError(TilewrightError):
    """What was asked cannot be done; nothing was started and nothing was written."""

    exit_code = 2


class InputError(RefusedError):
    """An image, a label image or another input file cannot be taken."""


class RecipeError(RefusedError):
    """A recipe or a setting is wrong."""


class ModelError(RefusedError):
    """A model folder is incomplete, damaged or not safe to load."""


class OutputError(RefusedError):
    """The result cannot go where it was asked to go."""


class ResourceError(RefusedError):
    """Memory, disk, workers or devices do not suffice."""


class RegionError(TilewrightError):
    """One region could not be computed; the others are not affected."""

    exit_code = 3


class StoppedRunError(TilewrightError):
    """The run cannot go on: a full disk, a lost permission, no workers; what is done stays done."""

    exit_code = 3


class LeaseLostError(TilewrightError):
    """Another driver took over, or this one could not show that it lives; it stops."""

    exit_code = 3


class InterruptedRunError(TilewrightError):
    """The run was asked to stop before it was done; what is done stays done."""

    exit_code = 130

"""Calibration of polynomial defenses, from folders of images to a bank.

Pieces are independent: each is a unit of work, done one after the other or wherever the caller
maps them, such as a cluster.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from engine.errors import InputError, OutputError
from engine.networks.defense_bank import DefenseBank, save_bank
from engine.networks.model_folder import ModelFolder, open_model
from engine.store import write_atomic
from engine.training.data import find_pairs, read_samples
from engine.training.defenses.card import bank_card
from engine.training.defenses.options import GOOD, DefenseOptions, DefenseProgress
from engine.training.defenses.parts import Part, part_file, read_part, write_part
from engine.training.defenses.pieces import Piece, cut_pieces
from engine.training.defenses.work import Doing, PieceWork, one_by_one

logger = logging.getLogger(__name__)


def make_bank(
    options: DefenseOptions,
    on_progress: Callable[[DefenseProgress], None],
    doing: Doing = one_by_one,
) -> Path:
    """Make a bank of defenses and its card.

    An interrupted calibration goes on when called again with the same options: what was finished
    is not done again, and the bank is the same.

    Parameters
    ----------
    options : DefenseOptions
        For which model, from which images, how, and where to write.
    on_progress : callable
        Called after every piece.
    doing : callable
        Does the pieces, see `engine.training.defenses.work.Doing`.

    Returns
    -------
    Path
        The bank; ``<its name>.md`` beside it is the card.

    Raises
    ------
    InputError
        If the data or an option cannot be used, no piece is below F1 0.9 or none gained, or
        finished pieces belong to another calibration.
    ModelError
        If the model cannot be used.
    OutputError
        If `options.out` exists.

    Notes
    -----
    Jain, Shao, Hecht 2025, section 2: here with a gradient beside the search, a start from zero,
    and a strict gain, where the paper starts at random and keeps equals.
    """
    if options.out.exists():
        raise OutputError(
            where=str(options.out), expected="no such file yet", found="one",
            remedy="Choose another --out or remove it.",
        )  # fmt: skip
    model = open_model(options.model)
    pieces = read_pieces(options, model)
    folder = options.out.with_name(f"{options.out.name}.parts")
    parts = _all_parts([PieceWork(p, model, options) for p in pieces], folder, on_progress, doing)
    kept = [p for p in parts if p.f1_after > p.f1_before]
    _refuse_nothing(parts, kept, options)
    bank = DefenseBank(
        name=options.out.stem,
        layout=options.layout,
        coefficients=np.stack([p.coefficients for p in kept]).astype(np.float32),
        model_sha256=model.sha256,
        f1_before=np.array([p.f1_before for p in kept], np.float32),
        f1_after=np.array([p.f1_after for p in kept], np.float32),
        mode=options.mode,
        origins=tuple(p.origin for p in kept),
    )
    card = bank_card(options, (model.name, model.sha256), parts, kept)
    write_atomic(options.out.with_suffix(".md"), card.encode())
    save_bank(bank, options.out, half=True)
    if len(parts) == len(pieces):
        shutil.rmtree(folder)
    return options.out


def read_pieces(options: DefenseOptions, model: ModelFolder) -> tuple[Piece, ...]:
    """Read and check the images that the options name, and cut them.

    Parameters
    ----------
    options : DefenseOptions
        Names the folders.
    model : ModelFolder
        Says how many channels an image must have.

    Returns
    -------
    tuple of Piece
        At most `options.limit`, in the order of the bank.

    Raises
    ------
    InputError
        If an image or its labels cannot be used, or none is large enough.
    """
    samples = read_samples(find_pairs(options.images, options.labels))
    channels, wanted = samples[0].image.shape[0], model.config.n_channel_in
    if channels != wanted:
        raise InputError(
            where=str(options.images), expected=f"{wanted} channel(s), as model {model.name}",
            found=str(channels), remedy="Take a model for such images, or convert the images.",
        )  # fmt: skip
    return cut_pieces(samples, options.seed)[: options.limit]


def _all_parts(
    units: Sequence[PieceWork],
    folder: Path,
    on_progress: Callable[[DefenseProgress], None],
    doing: Doing,
) -> list[Part]:
    """Parts of all pieces in their order, those that time allowed; finished ones are read."""
    parts: dict[str, Part] = {}
    for unit in units:
        part = read_part(part_file(folder, unit.piece), _deciding(unit), unit.options.layout)
        if part is not None:
            parts[unit.name] = part
    logger.info("%d pieces, %d of them finished before", len(units), len(parts))
    left = [unit for unit in units if unit.name not in parts]
    # Closed here, since a traceback would keep workers waiting.
    with closing(doing(_in_time(left), len(left))) as done:
        for unit, part in done:
            write_part(part, _deciding(unit), part_file(folder, unit.piece))
            parts[unit.name] = part
            on_progress(_progress(part, list(parts.values()), len(units)))
    return [parts[unit.name] for unit in units if unit.name in parts]


def _deciding(unit: PieceWork) -> dict[str, str]:
    """Name what decides the part of a piece."""
    return unit.options.deciding(unit.model.sha256) | {"piece": unit.piece.sha256}


def _in_time(units: Sequence[PieceWork]) -> Iterator[PieceWork]:
    """Units that may still begin: the first one, and others until the time is over."""
    started = time.monotonic()
    for k, unit in enumerate(units):
        minutes = unit.options.minutes
        if k and minutes is not None and time.monotonic() > started + 60 * minutes:
            return
        yield unit


def _progress(part: Part, parts: Sequence[Part], pieces: int) -> DefenseProgress:
    return DefenseProgress(
        done=len(parts), pieces=pieces,
        tried=sum(p.f1_before < GOOD for p in parts),
        kept=sum(p.f1_after > p.f1_before for p in parts),
        origin=part.origin, f1_before=part.f1_before, f1_after=part.f1_after,
        seconds=part.seconds,
    )  # fmt: skip


def _refuse_nothing(parts: Sequence[Part], kept: Sequence[Part], options: DefenseOptions) -> None:
    """Refuse a bank without a defense, and say why it would be one."""
    if kept:
        return
    below = sum(p.f1_before < GOOD for p in parts)
    if below == 0:
        raise InputError(
            where=str(options.images), expected=f"a piece with F1 below {GOOD} at IoU 0.75",
            found=f"none among {len(parts)}",
            remedy="The model is good there; give images on which it errs.",
        )  # fmt: skip
    raise InputError(
        where=str(options.images),
        expected=f"a defense that raises F1 by more than {options.margin:g}",
        found=f"none for {below} pieces",
        remedy="Give more images, steps or evaluations, or another --degree and --blocks.",
    )

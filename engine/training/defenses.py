"""Calibration of polynomial defenses, from folders of images to a bank.

Pieces are independent, so they go to processes of this machine. The layers let only the cluster
and the run import Dask; a piece is a plain function of plain values, which a cluster could map too.
"""

import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.device import choose_device, cores
from engine.errors import InputError, OutputError, ResourceError
from engine.networks.defense_bank import DefenseBank, save_bank
from engine.networks.model_folder import ModelFolder, open_model
from engine.store import write_atomic
from engine.training.data import find_pairs, read_samples
from engine.training.defense_card import bank_card
from engine.training.defense_options import GOOD, DefenseOptions, DefenseProgress
from engine.training.defense_parts import Part, part_file, read_part
from engine.training.defense_pieces import Piece, cut_pieces
from engine.training.defense_work import work_on

logger = logging.getLogger(__name__)

_THREADS = "OMP_NUM_THREADS"


def make_bank(options: DefenseOptions, on_progress: Callable[[DefenseProgress], None]) -> Path:
    """Make a bank of defenses and its card.

    An interrupted calibration goes on when called again with the same options: what was finished
    is not done again, and the bank is the same.

    Parameters
    ----------
    options : DefenseOptions
        For which model, from which images, how, and where to write.
    on_progress : callable
        Called after every piece.

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
    parts = _all_parts(pieces, model, options, folder, on_progress)
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
    pieces: Sequence[Piece],
    model: ModelFolder,
    options: DefenseOptions,
    folder: Path,
    on_progress: Callable[[DefenseProgress], None],
) -> list[Part]:
    """Parts of all pieces in their order, those that time allowed; finished ones are read."""
    deciding = options.deciding(model.sha256)
    parts: dict[int, Part] = {}
    for k, piece in enumerate(pieces):
        expected = deciding | {"piece": piece.sha256}
        part = read_part(part_file(folder, piece), expected, options.layout)
        if part is not None:
            parts[k] = part
    logger.info("%d pieces, %d of them finished before", len(pieces), len(parts))
    left = [k for k in range(len(pieces)) if k not in parts]
    for k, part in _made(left, pieces, model, options, folder):
        parts[k] = part
        on_progress(_progress(part, list(parts.values()), len(pieces)))
    return [parts[k] for k in sorted(parts)]


def _made(
    left: Sequence[int],
    pieces: Sequence[Piece],
    model: ModelFolder,
    options: DefenseOptions,
    folder: Path,
) -> Iterator[tuple[int, Part]]:
    """Work on pieces in processes, until all are done or the time is over."""
    until = time.monotonic() + 60 * (options.minutes or np.inf)
    count = options.workers or (1 if choose_device("auto") == "cuda" else cores())
    count = min(count, len(left))
    if count == 0:
        return
    with _pool(count) as pool:
        futures: dict[Future[Part], int] = {
            pool.submit(work_on, pieces[k], model, options, folder): k for k in left
        }
        for future in as_completed(futures):
            if future.cancelled():
                continue
            yield futures[future], _result(future)
            if time.monotonic() > until:
                for other in futures:
                    other.cancel()


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes with one thread each; drop what has not begun where the caller leaves."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"  # read by OpenMP when a process starts: stardist's and torch's
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if before is None:
            os.environ.pop(_THREADS, None)
        else:
            os.environ[_THREADS] = before


def _result(future: Future[Part]) -> Part:
    try:
        return future.result()
    except BrokenProcessPool as err:
        raise ResourceError(
            where="processes of the calibration", expected="all of them alive",
            found="one that ended by itself", remedy="Memory? Take fewer --workers; finished "
            "pieces are kept.",
        ) from err  # fmt: skip


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

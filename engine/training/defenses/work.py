"""Calibration of one piece: a unit of work that needs no other, wherever it is done."""

import time
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from engine.device import choose_device, choose_precision
from engine.methods.defenses import CAP, Layout, evaluate
from engine.networks.defense_bank import Mode
from engine.networks.model_folder import ModelFolder
from engine.training.defenses.options import GOOD, DefenseOptions
from engine.training.defenses.parts import Part
from engine.training.defenses.pieces import Piece
from engine.training.defenses.routes import Case, Found, descend, search
from engine.training.defenses.scoring import Judge

# A little less than 1, so that a block whose largest value was the cap stays below it as float16.
_SHRINK = 1 - 2**-9


@dataclass(frozen=True, slots=True)
class PieceWork:
    """A piece to calibrate; it can be sent to another process.

    Parameters
    ----------
    piece : Piece
        Image and truth: half a megabyte for about a minute of work, so that a worker needs the
        model only.
    model : ModelFolder
        Loaded once in each process.
    options : DefenseOptions
        What to do.
    """

    piece: Piece
    model: ModelFolder
    options: DefenseOptions

    @property
    def name(self) -> str:
        """For messages."""
        return self.piece.origin

    def do(self) -> Part:
        """Calibrate the piece."""
        return calibrate(_judge(self.model, self.options.mode), self.piece, self.options)


#: Does some units, given how many there are; yields each with what came of it, in any order, and
#: asks for a unit when it can begin with it.
Doing = Callable[[Iterator[PieceWork], int], Generator[tuple[PieceWork, Part], None, None]]


def one_by_one(units: Iterator[PieceWork], _: int) -> Generator[tuple[PieceWork, Part], None, None]:
    """Do units in this process, one after the other."""
    for unit in units:
        yield unit, unit.do()


def calibrate(judge: Judge, piece: Piece, options: DefenseOptions) -> Part:
    """Find the defense that raises the F1 of a piece most.

    Parameters
    ----------
    judge : Judge
        Of the model.
    piece : Piece
        Image and truth.
    options : DefenseOptions
        Route and budget.

    Returns
    -------
    Part
        With the coefficients as they are stored, and F1 in float32 with these; zeros where the
        piece was good enough, or where nothing raised its F1 by more than the margin.
    """
    started = time.monotonic()
    layout = options.layout
    nothing = np.zeros(layout.shape, np.float16)
    before = _exactly(judge, piece, nothing, layout)
    part = Part(piece.origin, nothing, before.score.f1, before.score.f1, "zero", 0.0)
    if before.score.f1 < GOOD:
        tried = [
            (stored, replace(_exactly(judge, piece, stored, layout), route=f.route))
            for f in _candidates(judge, piece, options)
            for stored in (storable(f.coefficients, layout),)
        ]
        stored, best = max(tried, key=lambda t: (t[1].score.f1, t[1].score.fine))
        if best.score.f1 > before.score.f1 + options.margin:
            part = replace(part, coefficients=stored, f1_after=best.score.f1, route=best.route)
    return replace(part, seconds=time.monotonic() - started)


def storable(coefficients: NDArray[np.float64], layout: Layout) -> NDArray[np.float16]:
    """Round coefficients to float16 so that their field stays within ±0.25.

    Parameters
    ----------
    coefficients : ndarray
        (S, S, A), of a field within ±0.25.
    layout : Layout
        Of the coefficients.

    Returns
    -------
    ndarray
        (S, S, A) float16; scaled down by a little as often as rounding leads beyond.
    """
    rounded = coefficients.astype(np.float16)
    while np.abs(evaluate(rounded, layout)).max() > CAP:
        coefficients = coefficients * _SHRINK
        rounded = coefficients.astype(np.float16)
    return rounded


def _candidates(judge: Judge, piece: Piece, options: DefenseOptions) -> list[Found]:
    case, found = Case(judge, piece, options.layout), list[Found]()
    if options.route in ("gradient", "both"):
        found = descend(case, options.steps)
    if options.route in ("search", "both"):
        zero = np.zeros((1, *options.layout.shape))
        start = found[0] if found else case.scored(zero, "zero")[0]
        seed = (options.seed, zlib.crc32(piece.origin.encode()))
        found += search(case, start, options.evaluations, seed)
    return found


def _exactly(judge: Judge, piece: Piece, stored: NDArray[np.float16], layout: Layout) -> Found:
    """Score coefficients as they are stored, in float32."""
    wide = stored.astype(np.float64)
    score = judge.scores(piece, evaluate(wide, layout)[None], exact=True)[0]
    return Found(wide, score, "zero")


@lru_cache(maxsize=1)
def _judge(model: ModelFolder, mode: Mode) -> Judge:
    # One thread: processes scale better than threads, and the last bits stay the same.
    torch.set_num_threads(1)
    device = choose_device("auto")
    return Judge(model, device, choose_precision("auto", device), mode)

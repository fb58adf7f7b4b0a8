"""Two ways to a defense: down the gradient of the training loss, and by search without one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.methods.defenses import CAP, Layout, evaluate, evaluate_tensor
from engine.training.augment import Crop
from engine.training.batches import Batch, collate
from engine.training.defenses.pieces import Piece
from engine.training.defenses.scoring import Judge, Score
from engine.training.star_loss import star_loss

#: Candidates of a route that are looked at once more in float32.
FINALISTS = 3

# Of Adam on coefficients, which lie in about ±CAP.
_RATE = 0.02
_BETAS = (0.9, 0.99)

# Spread of a block's mutation at first, its bounds, and its change after success and failure.
_SPREAD = 0.04
_SPREADS = (0.004, 0.2)
_WIDER, _NARROWER = 1.6, 0.88

# Candidates of a round of the search, each of which changes another block.
_ROUND = 8


@dataclass(frozen=True)
class Case:
    """What a route works on.

    Parameters
    ----------
    judge : Judge
        Predicts and scores; its network is frozen.
    piece : Piece
        Image and truth.
    layout : Layout
        Of the defense.
    """

    judge: Judge
    piece: Piece
    layout: Layout

    def scored(self, coefficients: NDArray[np.float64], route: str) -> list["Found"]:
        """Score defenses, (N, S, S, A), all within ±0.25, in one launch."""
        scores = self.judge.scores(self.piece, evaluate(coefficients, self.layout))
        return [Found(c, s, route) for c, s in zip(coefficients, scores, strict=True)]


@dataclass(frozen=True)
class Found:
    """A defense and what it is worth.

    Parameters
    ----------
    coefficients : ndarray
        (S, S, A) float64, of a field within ±0.25.
    score : Score
        Of its piece.
    route : str
        ``zero``, ``gradient`` or ``search``.
    """

    coefficients: NDArray[np.float64]
    score: Score
    route: str


def bounded(coefficients: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Scale the blocks whose values leave ±0.25 back into it.

    Parameters
    ----------
    coefficients : ndarray
        (…, S, S, A).
    layout : Layout
        Of the coefficients.

    Returns
    -------
    ndarray
        Of the same shape; blocks within the bounds are unchanged.

    Notes
    -----
    The paper stretches every block it visits to the whole of ±0.25; here a block may be weaker,
    and one that is 0 stays so.
    """
    field = np.abs(evaluate(coefficients, layout))
    lead, side, blocks = coefficients.shape[:-3], layout.side, layout.blocks
    largest = field.reshape(*lead, blocks, side, blocks, side).max(axis=(-3, -1))
    inside: NDArray[np.float64] = coefficients * (CAP / np.maximum(largest, CAP))[..., None]
    return inside


def descend(case: Case, steps: int) -> list[Found]:
    """Follow the gradient of the training loss from a zero field.

    Parameters
    ----------
    case : Case
        The gradient goes through its network to the coefficients.
    steps : int
        Steps of Adam; fewer where F1 reaches 1.

    Returns
    -------
    list of Found
        The best `FINALISTS` on the way, the best first.

    Notes
    -----
    Our own step beyond the paper, which only searches. The loss leads, F1 decides: every step is
    scored by its objects.
    """
    judge, piece, layout = case.judge, case.piece, case.layout
    batch = _targets(judge, piece)
    start = torch.zeros(layout.shape, dtype=torch.float64, device=judge.device)
    coefficients = start.requires_grad_()
    optimiser = torch.optim.Adam([coefficients], lr=_RATE, betas=_BETAS)
    found: list[Found] = []
    for step in range(steps + 1):
        logits, dist = judge.raw(piece, evaluate_tensor(coefficients, layout)[None])
        now = coefficients.detach().cpu().numpy().copy()
        score = judge.scores_of(piece, logits, dist)[0]
        found.append(Found(now, score, "gradient" if step else "zero"))
        if step == steps or score.f1 == 1:
            break
        optimiser.zero_grad()
        torch.autograd.backward(star_loss(logits, dist, batch).total)
        optimiser.step()
        inside = bounded(coefficients.detach().cpu().numpy(), layout)
        coefficients.data.copy_(torch.from_numpy(inside))
    return sorted(found, key=lambda f: -f.score.total)[:FINALISTS]


def search(case: Case, start: Found, budget: int, seed: tuple[int, int]) -> list[Found]:
    """Change one block at a time at random; keep what is better, else go back.

    Parameters
    ----------
    case : Case
        Scores candidates, a round of them at once.
    start : Found
        Where to begin.
    budget : int
        Predictions; fewer where F1 reaches 1.
    seed : tuple of int
        Of the changes.

    Returns
    -------
    list of Found
        The last `FINALISTS` that were better than all before, the best first.

    Notes
    -----
    A (1+1) evolution strategy on blocks with the success rule for each block's spread, in place
    of the paper's 300 trials of a tree of Parzen estimators for each. A round's candidates change
    different blocks; where several are better, all their changes together are tried too.
    """
    layout, rng = case.layout, np.random.default_rng(seed)
    spreads = np.full((layout.blocks, layout.blocks), _SPREAD)
    turns = _turns(layout.blocks, rng)
    found = [start]
    while budget > 0 and found[-1].score.f1 < 1:
        blocks = [next(turns) for _ in range(min(_ROUND, layout.blocks**2, budget))]
        base = found[-1].coefficients
        changes = np.zeros((len(blocks), *layout.shape))
        for change, block in zip(changes, blocks, strict=True):
            change[block] = rng.normal(0, spreads[block], layout.terms)
        tried = case.scored(bounded(base + changes, layout), "search")
        budget -= len(tried)
        better = [k for k, f in enumerate(tried) if f.score.total > found[-1].score.total]
        for k, block in enumerate(blocks):
            wider = spreads[block] * (_WIDER if k in better else _NARROWER)
            spreads[block] = np.clip(wider, *_SPREADS)
        if len(better) > 1 and budget > 0:
            together = bounded(base + changes[better].sum(axis=0), layout)
            tried += case.scored(together[None], "search")
            budget -= 1
        best = max(tried, key=lambda f: f.score.total)
        if best.score.total > found[-1].score.total:
            found.append(best)
    return found[::-1][:FINALISTS]


def _turns(blocks: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Blocks in passes of random order, without end: no block twice in a round's length."""
    while True:
        for k in rng.permutation(blocks**2):
            yield int(k) // blocks, int(k) % blocks


def _targets(judge: Judge, piece: Piece) -> Batch:
    valid = np.ones(piece.labels.shape, bool)
    crop = Crop(piece.pixels, piece.labels, valid)
    batch = collate([crop], judge.config.n_rays, judge.config.grid)
    moved = (t.to(judge.device) for t in (batch.image, batch.prob, batch.dist, batch.valid))
    return Batch(*moved)

"""Search of the settings of flags: strength, tau, R and votes, on images with truth.

Jain, Shao, Hecht 2025, section 3.2: the settings under which heeding the flags helps most. The
network sees each image and defense once per strength; the rest is swept on what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from engine.device import Launch, choose_device, choose_precision
from engine.errors import InputError
from engine.methods.flag_extras import share_of
from engine.methods.flag_votes import votes_needed
from engine.networks.defense_bank import DefenseBank, open_bank
from engine.networks.model_folder import ModelFolder, open_model
from engine.training.data import Sample, find_pairs, read_samples
from engine.training.flags.judging import Judged, Voted, judge
from engine.training.flags.options import FlagOptions, FlagSetting
from engine.training.flags.trials import propose, sampler
from engine.training.flags.variants import Segmenter, bank_changes

#: Images that are better than this have nothing to gain and do not count (the paper's limit).
GOOD_F1 = 0.95


@dataclass(frozen=True, slots=True)
class FlagRow:
    """One setting and what its flags are worth.

    Parameters
    ----------
    setting : FlagSetting
        The point of the search.
    objective : float
        Mean over images below `GOOD_F1` of half of (F1 after deleting what is flagged + F1 after
        adding candidates), IoU 0.5.
    fp_right, fp_wrong, fn_right, fn_wrong : int
        Flags of all images that are right and wrong.
    """

    setting: FlagSetting
    objective: float
    fp_right: int
    fp_wrong: int
    fn_right: int
    fn_wrong: int

    @property
    def precision(self) -> float:
        """Share of all flags that are right; 0 where there is none."""
        right = self.fp_right + self.fn_right
        every = right + self.fp_wrong + self.fn_wrong
        return right / every if every else 0.0


@dataclass(frozen=True, slots=True)
class FlagChoice:
    """What the search found.

    Parameters
    ----------
    best : FlagRow
        The first with the highest objective, in the order of the options or of the trials.
    before : float
        Mean F1 of the same images without flags, to be held against the objective.
    rows : tuple of FlagRow
        Every setting.
    average_precision : dict of (float, float) to float
        By strength and tau, those of the options and of `best`: of false-positive flags, over the
        number of votes.
    images, counted : int
        Images in all, and those below `GOOD_F1`.
    model_sha256, bank_sha256 : str
        What the settings belong to.
    """

    best: FlagRow
    before: float
    rows: tuple[FlagRow, ...]
    average_precision: dict[tuple[float, float], float]
    images: int
    counted: int
    model_sha256: str
    bank_sha256: str


def search_flags(options: FlagOptions, on_image: Callable[[int, int], None]) -> FlagChoice:
    """Find the settings under which heeding the flags helps most.

    Parameters
    ----------
    options : FlagOptions
        What to search, on what.
    on_image : callable
        Called with the images that are done and all of them.

    Returns
    -------
    FlagChoice

    Raises
    ------
    InputError
        If images, labels, model and bank do not fit, or no image is below `GOOD_F1`.
    ModelError
        If the model cannot be used.
    ResourceError
        If trials are asked for and Optuna is not installed.

    Notes
    -----
    The paper searches X, tau and R with one vote sufficing. The shares of votes are ours and are
    searched along with them by the same objective. Every combination is tried, or as many trials
    of a sampler as are asked for; both see the network's answers once per strength.
    """
    study = None if options.trials is None else sampler(options)
    model, bank, samples = _open(options)
    device = choose_device(options.device)
    segmenter = Segmenter(model, Launch(device, choose_precision("auto", device), 1))
    by_strength: dict[float, list[Judged]] = {x: [] for x in options.strengths}
    for done, sample in enumerate(samples):
        for strength, judged in _judged(segmenter, bank, sample, options):
            by_strength[strength].append(judged)
        on_image(done + 1, len(samples))
    first = by_strength[options.strengths[0]]
    poor = [one.f1 for one in first if one.f1 < GOOD_F1]
    if not poor:
        raise InputError(
            where=str(options.images), expected=f"an image with F1 below {GOOD_F1} at IoU 0.5",
            found=f"none among {len(samples)}", remedy="Give images on which the model errs.",
        )  # fmt: skip
    if study is None:
        rows = tuple(_sweep(by_strength, options, len(bank)))
    else:
        rows = tuple(_trials(study, by_strength, options, len(bank)))
    best = max(rows, key=lambda row: row.objective)
    points = [*product(by_strength, options.taus), (best.setting.strength, best.setting.tau)]
    return FlagChoice(
        best, float(np.mean(poor)), rows,
        {(x, tau): average_precision(*_votes(by_strength[x], tau)) for x, tau in points},
        len(samples), len(poor), model.sha256, bank.sha256,
    )  # fmt: skip


def average_precision(votes: np.ndarray, right: np.ndarray) -> float:
    """Area under precision over recall as the votes that are needed fall to one.

    Parameters
    ----------
    votes : ndarray of shape (n,), int
        Votes of each object; those without any are never flagged.
    right : ndarray of shape (n,), bool
        Whether flagging it is right.

    Returns
    -------
    float
        Sum of precision times the step in recall, in [0, 1]; 0 where nothing is right.

    Examples
    --------
    >>> round(average_precision(np.array([3, 2, 1, 0]), np.array([1, 0, 1, 1], bool)), 3)
    0.556
    """
    levels = np.unique(votes[votes > 0])[::-1]
    total = int(right.sum())
    area = before = 0.0
    for level in levels:
        flagged = votes >= level
        found = int(right[flagged].sum())
        area += (found - before) * found / int(flagged.sum())
        before = found
    return float(area / total) if total else 0.0


def _open(options: FlagOptions) -> tuple[ModelFolder, DefenseBank, tuple[Sample, ...]]:
    """Open what is needed and see that it fits together."""
    model, bank = open_model(options.model), open_bank(options.bank)
    bank.check_model(model.sha256)
    if bank.mode != "global":
        raise InputError(
            where=options.bank, expected="a bank found on images scaled by percentiles: global",
            found=bank.mode, remedy="Make one with --mode global, as a run scales its image.",
        )  # fmt: skip
    samples = read_samples(find_pairs(options.images, options.labels))
    channels = samples[0].image.shape[0]
    if channels != model.config.n_channel_in:
        raise InputError(
            where=str(options.images), expected=f"{model.config.n_channel_in} channel(s)",
            found=str(channels), remedy="Take images of the kind that the model was trained on.",
        )  # fmt: skip
    return model, bank, samples


def _judged(
    segmenter: Segmenter, bank: DefenseBank, sample: Sample, options: FlagOptions
) -> Iterator[tuple[float, Judged]]:
    """One image under each strength."""
    reference = segmenter.objects([sample.image])[0]
    fields = bank.fields()
    for strength in options.strengths:
        variants = segmenter.variants(sample.image, bank_changes(fields, strength))
        yield strength, judge(sample.name, sample.labels, reference, variants, min(options.taus))


def _sweep(
    by_strength: dict[float, list[Judged]], options: FlagOptions, total: int
) -> Iterator[FlagRow]:
    """Try every combination."""
    shares = list(product(options.min_votes, options.min_votes_missing or (None,)))
    for (x, judged), tau, merge in product(by_strength.items(), options.taus, options.merges):
        voted = [one.vote(tau, share_of(merge), options.fn_max_covered) for one in judged]
        for share, missing in shares:
            yield _row(voted, total, FlagSetting(x, tau, merge, share, missing))


def _trials(
    study: object, by_strength: dict[float, list[Judged]], options: FlagOptions, total: int
) -> list[FlagRow]:
    """Try what a sampler proposes."""
    rows: list[FlagRow] = []

    def worth(at: FlagSetting) -> float:
        share, covered = share_of(at.merge), options.fn_max_covered
        voted = [one.vote(at.tau, share, covered) for one in by_strength[at.strength]]
        rows.append(_row(voted, total, at))
        return rows[-1].objective

    propose(study, options, worth)
    return rows


def _row(voted: Sequence[Voted], total: int, setting: FlagSetting) -> FlagRow:
    """Judge one setting over all images."""
    needed, share = votes_needed(total, setting.min_votes), setting.min_votes_missing
    missing = needed if share is None else votes_needed(total, share)
    counts = [one.counts(needed, missing) for one in voted]
    poor = [(c.f1_deleted + c.f1_added) / 2 for c in counts if c.f1 < GOOD_F1]
    return FlagRow(
        setting, float(np.mean(poor)),
        sum(c.fp_right for c in counts), sum(c.fp_wrong for c in counts),
        sum(c.fn_right for c in counts), sum(c.fn_wrong for c in counts),
    )  # fmt: skip


def _votes(judged: Sequence[Judged], tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Votes against the reference objects of all images, and whether each is no true one."""
    votes = np.concatenate([one.missing(tau).sum(axis=0) for one in judged])
    return votes, np.concatenate([one.partner == 0 for one in judged])

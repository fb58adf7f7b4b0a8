"""The card of a bank of defenses: from which data, for which model, how good."""

from collections.abc import Sequence

import numpy as np

from engine.training.defenses.options import GOOD, DefenseOptions
from engine.training.defenses.parts import Part

_CARD = """# {name}

{kept} polynomial defenses (Jain, Shao, Hecht 2025) for the model `{model}` (sha256 `{sha256}`), \
made with `tilewright train defenses`. Subtracted from an image one after another, they show which \
of the model's objects cannot be trusted.

## Making
One defense for each piece of 256 by 256 pixels of the images whose F1 at IoU 0.75 was below \
{good}, kept where it raised F1 by more than {margin:g} in float32. {looked} pieces were looked \
at, {tried} were below; {images} images in `{folder}` gave the defenses. Degree {degree} (lp \
degree 2), {blocks} by {blocks} blocks, values within ±0.25, intensities `{mode}`, route `{route}` \
({steps} steps, {evaluations} predictions at the most), seed {seed}. Coefficients are stored as \
float16; the scores are those of the stored values.

## Scores of the pieces that gave a defense, IoU 0.75
| | 10th percentile | median | 90th percentile |
|---|---|---|---|
| F1 without | {before} |
| F1 with its defense | {after} |
| gain | {gain} |

Found by the gradient: {gradient}; by the search: {search}. A piece that was tried took \
{seconds:.1f} s of one process (median).
"""


def bank_card(
    options: DefenseOptions, model: tuple[str, str], parts: Sequence[Part], kept: Sequence[Part]
) -> str:
    """Write the card of a bank that was just made.

    Parameters
    ----------
    options : DefenseOptions
        How it was made.
    model : tuple of str
        Name and sha256 of the model.
    parts : sequence of Part
        All pieces that were looked at.
    kept : sequence of Part
        Those whose defense is in the bank, at least one.

    Returns
    -------
    str
        Markdown.
    """
    before = np.array([p.f1_before for p in kept])
    after = np.array([p.f1_after for p in kept])
    tried = [p for p in parts if p.f1_before < GOOD]
    return _CARD.format(
        name=options.out.stem, model=model[0], sha256=model[1], kept=len(kept), good=GOOD,
        looked=len(parts), tried=len(tried), margin=options.margin,
        images=len({p.origin.rsplit(" at ", 1)[0] for p in kept}), folder=options.images,
        degree=options.degree, blocks=options.blocks, mode=options.mode, route=options.route,
        steps=options.steps, evaluations=options.evaluations, seed=options.seed,
        before=_row(before), after=_row(after), gain=_row(after - before),
        gradient=sum(p.route == "gradient" for p in kept),
        search=sum(p.route == "search" for p in kept),
        seconds=float(np.median([p.seconds for p in tried])),
    )  # fmt: skip


def _row(values: np.ndarray) -> str:
    return " | ".join(f"{v:.3f}" for v in np.percentile(values, [10, 50, 90]))

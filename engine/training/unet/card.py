"""The card of a trained ensemble: what it is, where from, how good, how varied."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.training.unet.data import ClassData
from engine.training.unet.options import UNetOptions
from engine.training.unet.scoring import EnsembleScore

_CARD = """# {name}

Ensemble of {members} 2-D U-Nets (widths {widths}, {convs} convolutions per level, {norm} \
normalisation, {channels} channel(s)), trained with `tilewright train unet`. Classes, in order: \
{classes}.{star}

## Training
{images} images ({val} more for validation, split by image or slice), of which each member saw \
another {share:.0%}. Batches of {batch} crops of {size} by {size} pixels, {precision}, seed {seed} \
with other initial weights and crops for each member. Cross-entropy weighted by one over the root \
of a class's share, plus Dice; learning rate {rate:g} with a cosine to 0, AdamW, averaged weights, \
those of the lowest validation loss. Changes of crops: {augmentation}.

| member | images | steps | minutes | validation loss |
|---|---|---|---|---|
{runs}

Convolutions are stored as {stored}.

## Use
Input: each channel scaled so that percentiles 1 and 99.8 of the image are 0 and 1.

## Dice on the validation crops
Pixels of all crops counted together; crops of {size} by {size} pixels without overlap, which is \
less context than tiles give.

| | {heads} |
|---|{rule}|
{table}

Members choose different classes for {disagreeing:.2%} of the pixels. Their mean gets {wrong:.2%} \
wrong, and {wrong_found:.0%} of those lie where members disagree.
"""


@dataclass(frozen=True, slots=True)
class MemberRun:
    """How a member was trained.

    Parameters
    ----------
    images : int
        Images that it saw.
    epochs : int
        Epochs done.
    minutes : float
        Time of training.
    loss : float
        The best validation loss.
    """

    images: int
    epochs: int
    minutes: float
    loss: float


def ensemble_card(
    options: UNetOptions, data: ClassData, runs: Sequence[MemberRun], score: EnsembleScore
) -> str:
    """Write the card of an ensemble that was just trained.

    Parameters
    ----------
    options : UNetOptions
        How it was trained.
    data : ClassData
        On what.
    runs : sequence of MemberRun
        Of each member.
    score : EnsembleScore
        What it is worth; of the U-Nets, without a StarDist member.

    Returns
    -------
    str
        Markdown.
    """
    star = "" if options.stardist is None else (
        f" A last member is the object probability of the StarDist model `{options.stardist}`, "
        "scaled on training images to a probability of pixels, which the numbers below leave out."
    )  # fmt: skip
    rows = [*((f"member {k}", dice) for k, dice in enumerate(score.members)), ("mean", score.mean)]
    return _CARD.format(
        name=options.out.name, members=options.members, widths="-".join(map(str, options.widths)),
        convs=options.convs, norm=options.norm, channels=data.train[0].image.shape[0],
        classes=", ".join(options.classes), star=star, images=len(data.train), val=len(data.val),
        share=options.share, batch=options.batch, size=options.size, precision=options.precision,
        seed=options.seed, rate=options.learning_rate, augmentation=options.augmentation,
        runs="\n".join(
            f"| {k} | {run.images} | {run.epochs * options.steps} | {run.minutes:.1f} "
            f"| {run.loss:.4f} |"
            for k, run in enumerate(runs)
        ),
        stored="float16" if options.half else "float32",
        heads=" | ".join(options.classes), rule="|".join("---" for _ in options.classes),
        table="\n".join(f"| {n} | {' | '.join(f'{d:.4f}' for d in dice)} |" for n, dice in rows),
        disagreeing=score.disagreeing, wrong=score.wrong, wrong_found=score.wrong_found,
    )  # fmt: skip

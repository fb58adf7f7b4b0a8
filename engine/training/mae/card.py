"""The card of a masked autoencoder: what it is, where from, how good, for whom."""

from dataclasses import dataclass

from engine.training.fitting import Elapsed
from engine.training.mae.options import SCORED_RATIOS, MaeScores, MaeTrainOptions

_CARD = """# {name}

Masked autoencoder of class maps (Sauer et al. [004]), trained with `tilewright train mae`. It \
fills {patch} by {patch} px patches of {window} px windows from those around them.

Classes: {classes}. Encoder {encoder}, decoder {decoder} (width x blocks, heads), {parameters} \
parameters, stored as {dtype}. Input: class {input}; positions: {positions}; patches that are not \
near foreground: {near}.

## Training
{maps} class maps ({val} more for validation, split by file or slice), {epochs} epochs, \
{minutes:.0f} minutes on {threads}, {precision}, seed {seed}; begun with {begun}. AdamW, highest \
rate {rate:g}, cosine to 0, averaged weights, those of the lowest validation loss ({loss:.4f}). \
Share of masked patches drawn from 0.1 to 0.9 for each batch of {batch} windows; weights of the \
classes {weights}; pixels whose entropy is above the limit: {entropy}.

Where this departs from the paper: only masked patches count in the loss (its code counts seen \
ones too); in {blobs:.0%} of the windows what is masked is in blobs, as uncertain patches are at \
use; {pieces}; near patches are those within a fixed distance of foreground, not the nearest 70 % \
of each window.

## Scores on {windows} validation windows
Dice of pixels in masked patches at most 10 px from foreground: all classes counted together (as \
the paper's table 1), and the mean over classes.

| share masked | Dice | mean over classes | paper |
|---|---|---|---|
{table}
"""

#: Table 1 of the source [004], at `SCORED_RATIOS`.
_PAPER = (0.97, 0.97, 0.95, 0.92, 0.86)


@dataclass(frozen=True, slots=True)
class MaeRun:
    """What a training had, beside its options.

    Parameters
    ----------
    maps, val, windows : int
        Class maps for training and for validation, and windows that are scored.
    weights : tuple of float
        Of the classes in the loss.
    parameters : int
        Of the network.
    threads : int
        It ran on.
    """

    maps: int
    val: int
    windows: int
    weights: tuple[float, ...]
    parameters: int
    threads: int


def mae_card(options: MaeTrainOptions, fitting: Elapsed, scores: MaeScores, run: MaeRun) -> str:
    """Write the card of a masked autoencoder that was just trained.

    Parameters
    ----------
    options : MaeTrainOptions
        How it was trained.
    fitting : Elapsed
        The finished training.
    scores : MaeScores
        Of the weights that are kept.
    run : MaeRun
        What it had, beside them.

    Returns
    -------
    str
        Markdown.
    """
    config = options.config
    rows = zip(SCORED_RATIOS, scores.dice, scores.class_dice, _PAPER, strict=True)
    near = "all stay" if config.near_patches is None else (
        f"those more than {config.near_patches} patches from it leave the network and stay as they "
        "are"
    )  # fmt: skip
    pieces = "whole windows from the start" if not options.piece else (
        f"for the first {options.piece_share:.0%} of the time only a {options.piece} px square of "
        "each window enters, which is faster"
    )  # fmt: skip
    return _CARD.format(
        name=options.out.name, patch=config.patch, window=config.window,
        classes=", ".join(config.classes),
        encoder=_size(config.encoder_dim, config.encoder_depth, config.encoder_heads),
        decoder=_size(config.decoder_dim, config.decoder_depth, config.decoder_heads),
        parameters=f"{run.parameters:,}",
        begun="random weights" if options.init is None else f"the weights of {options.init}",
        dtype="float16" if options.half else "float32",
        input="index" if config.class_input == "index" else "as one channel each",
        positions=config.positions, near=near, maps=run.maps, val=run.val,
        epochs=fitting.epoch, minutes=fitting.elapsed_s / 60, threads=f"{run.threads} thread(s)",
        precision=options.precision, seed=options.seed, rate=options.learning_rate,
        loss=fitting.best_loss, batch=options.batch,
        weights=", ".join(f"{w:.2f}" for w in run.weights),
        entropy="no map given" if options.entropy is None else f"{options.entropy_limit:g}",
        blobs=options.blobs, pieces=pieces, windows=run.windows,
        table="\n".join(f"| {r:g} | {d:.4f} | {c:.4f} | {p:.2f} |" for r, d, c, p in rows),
    )  # fmt: skip


def _size(dim: int, depth: int, heads: int) -> str:
    return f"{dim} x {depth}, {heads}"

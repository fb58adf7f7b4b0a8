"""The card of a trained model: what it is, where from, how good, for whom."""

from engine.networks.model_folder import StarDistConfig
from engine.training.fitting import Elapsed
from engine.training.options import TrainOptions
from engine.training.thresholds import Optimum
from engine.training.whole_image import SCORED_IOUS

_CARD = """# {name}

StarDist 2-D network (star-convex polygons, {rays} rays, grid {grid}, {channels} channel(s)), \
trained with `tilewright train stardist`.

## Training
{images} images ({val} more for validation, split by image), {epochs} epochs of {steps} steps of \
{batch} crops of {size} by {size} pixels, {minutes:.0f} minutes, {precision}, seed {seed}. \
Learning rate {rate:g} with a cosine to 0, AdamW, averaged weights, those of the lowest validation \
loss ({loss:.5f}). Changes of crops: {augmentation}.

## Use
Input: each channel scaled so that percentiles 1 and 99.8 of the image are 0 and 1. Thresholds \
(`thresholds.json`), chosen for the highest mean F1 over IoU 0.5…0.9 on the validation images: \
probability {prob:g}, overlap {nms:g}.

## Scores on the validation images
Whole images, all objects counted together; the thresholds were chosen on them too.

| IoU | F1 |
|---|---|
{table}
"""


def model_card(
    options: TrainOptions,
    config: StarDistConfig,
    optimum: Optimum,
    counts: tuple[int, int],
    fitting: Elapsed,
) -> str:
    """Write the card of a model that was just trained.

    Parameters
    ----------
    options : TrainOptions
        How it was trained.
    config : StarDistConfig
        Shape of the network.
    optimum : Optimum
        Thresholds and validation scores.
    counts : tuple of int
        Images for training and for validation.
    fitting : Elapsed
        The finished training.

    Returns
    -------
    str
        Markdown.
    """
    rows = zip(SCORED_IOUS, optimum.f1, strict=True)
    return _CARD.format(
        name=options.out.name, rays=config.n_rays, grid=config.grid, channels=config.n_channel_in,
        images=counts[0], val=counts[1], epochs=fitting.epoch, steps=options.steps,
        batch=options.batch, size=options.size, minutes=fitting.elapsed_s / 60,
        precision=options.precision, seed=options.seed, rate=options.learning_rate,
        loss=fitting.best_loss, augmentation=options.augmentation,
        prob=optimum.thresholds.prob, nms=optimum.thresholds.nms,
        table="\n".join(f"| {iou} | {f1:.4f} |" for iou, f1 in rows),
    )  # fmt: skip

"""Train the convolutional autoencoder with which `mae.py` compares the masked one.

    python benchmarks/experiments/mae_autoencoder_training.py --labels maps --val-labels val/labels
        --class-weights 1,1,1.5,1 --blobs 0.35 --minutes 22 --threads 1 --seed 1
        --out autoencoder.safetensors

trains it on the class maps, masks and loss of the bundled masked autoencoder. Those maps are the
folders `labels` that these commands write, all in one folder, files named by their scene and set;
the last is for validation:

    tilewright phantom train --scenes 48 --seed 1
    tilewright phantom more --scenes 135 --seed 11
    tilewright phantom fresh --scenes 300 --seed 31
    tilewright phantom val --scenes 8 --seed 2

Stopped and given again, it goes on after its last epoch; progress lies beside the file until then.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mae_autoencoder import OfPatches, save_autoencoder

from engine.cli.train_options import numbers
from engine.networks.mae_folder import MaeConfig
from engine.phantom import CLASSES
from engine.training.checkpoint import Origin
from engine.training.contents import contents
from engine.training.course import begin, follow
from engine.training.fitting import Descent, Fitting, initialise
from engine.training.goal import Goal
from engine.training.mae.batches import MaeBatch, MaeBatches, validation_windows
from engine.training.mae.data import ClassMap, read_class_maps
from engine.training.mae.loss import mae_loss
from engine.training.mae.options import MaeScores, MaeTrainOptions
from engine.training.mae.scoring import score_mae, scored_batches
from engine.training.mae.training import SCORED, WATCHED, class_weights

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("mae_autoencoder_training")

#: Patches from foreground within which patches are masked, as for the bundled autoencoder.
NEAR = 3


def main(words: list[str] | None = None) -> None:
    """Train, tell and save."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = options_of(words)
    begin(options)
    train, val = read_class_maps(options)
    weights = torch.tensor(class_weights(options, train))
    fitting = prepare(options, train, val, weights)

    def tell(loss: float, scores: MaeScores) -> None:
        dice = " ".join(f"{value:.3f}" for value in scores.dice)
        logger.info(
            "epoch %4d, %3.0f %% done, loss %.4f, validation %.4f (best %.4f), Dice %s, %.1f min",
            fitting.epoch, 100 * fitting.done, loss, scores.loss, fitting.best_loss, dice,
            fitting.elapsed_s / 60,
        )  # fmt: skip

    follow(fitting, options, origin(options, train, val), tell)
    best = fitting.best()
    windows = validation_windows(val, options.config, SCORED)
    batches = scored_batches(windows, options.config, options.seed)
    scores = score_mae(best, batches, weights, half=options.autocast)
    logger.info(
        "%d parameters, %d windows: Dice %s", sum(p.numel() for p in best.parameters()),
        len(windows[0]), " ".join(f"{value:.4f}" for value in scores.dice),
    )  # fmt: skip
    save_autoencoder(best.network, options.config.classes, options.out)
    shutil.rmtree(options.work)


def prepare(
    options: MaeTrainOptions, train: tuple[ClassMap, ...], val: tuple[ClassMap, ...],
    weights: Tensor,
) -> Fitting[OfPatches, MaeBatch, MaeScores]:  # fmt: skip
    """Make network, batches, loss and score; the last three are the masked autoencoder's."""
    network = OfPatches(options.config)
    initialise(network, options.seed)
    batches = MaeBatches(train, options.config, options.batch, 0, options.blobs, options.seed)
    windows = validation_windows(val, options.config, WATCHED)
    validation = scored_batches(windows, options.config, options.seed)
    half = options.autocast
    goal = Goal(
        make=lambda number, _done: batches.make(number, pieces=False),
        loss=lambda network, batch: mae_loss(network, batch, weights, half=half),
        validate=lambda network: score_mae(network, validation, weights, half=half),
    )  # fmt: skip
    return Fitting(network, goal, options, Descent(cut_short=True))


def origin(
    options: MaeTrainOptions, train: tuple[ClassMap, ...], val: tuple[ClassMap, ...]
) -> Origin:
    """Say what the training began with."""
    parts = (("class map", train), ("validation class map", val))
    read = ((f"{word} {m.name}", (m.labels, m.counts)) for word, part in parts for m in part)
    return Origin(options.deciding(), contents(read))


def options_of(words: list[str] | None = None) -> MaeTrainOptions:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, required=True, help="folder of class maps")
    parser.add_argument("--val-labels", type=Path, required=True, help="class maps for validation")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--classes", default=",".join(CLASSES), help="names, background first")
    parser.add_argument("--class-weights", help="1,1,2; else by how rare they are")
    parser.add_argument("--blobs", type=float, default=0.25, help="share masked in blobs")
    parser.add_argument("--minutes", type=float, help="time to train; the schedule ends with it")
    parser.add_argument("--epochs", type=int, default=1000, help="at the most")
    parser.add_argument("--steps", type=int, default=100, help="per epoch")
    parser.add_argument("--batch", type=int, default=8, help="windows per step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    weights = given.class_weights
    return MaeTrainOptions(
        labels=given.labels, val_labels=given.val_labels, out=given.out,
        config=MaeConfig(tuple(given.classes.split(",")), near_patches=NEAR),
        class_weights=None if weights is None else numbers("--class-weights", weights),
        blobs=given.blobs, piece=0, budget_minutes=given.minutes, epochs=given.epochs,
        steps=given.steps, batch=given.batch, learning_rate=given.learning_rate,
        precision=given.precision, threads=given.threads, seed=given.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()

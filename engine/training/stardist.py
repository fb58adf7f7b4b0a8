"""Training of a StarDist network, from folders of images to a model folder."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import InputError
from engine.networks.model_folder import StarDistConfig, Thresholds, open_model
from engine.networks.star_unet import StarDistUNet
from engine.networks.stardist import load_network, save_folder
from engine.training.batches import Batch, Batches, validation_batches
from engine.training.card import model_card
from engine.training.checkpoint import Origin
from engine.training.contents import sample_contents
from engine.training.course import begin, follow
from engine.training.data import Sample, find_pairs, read_samples, split_pairs
from engine.training.fitting import Descent, Fitting, channels_last, initialise
from engine.training.goal import Goal, MeanLoss, mean_loss
from engine.training.options import Progress, TrainOptions
from engine.training.star_loss import star_loss
from engine.training.thresholds import optimise_thresholds
from engine.training.whole_image import SCORED_IOUS, score_network

logger = logging.getLogger(__name__)

StarFitting = Fitting[StarDistUNet, Batch, MeanLoss]

# Only to watch a training: at the end the thresholds are chosen on the validation images.
WATCHING = Thresholds(prob=0.5, nms=0.3)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Images for training and for validation.

    Parameters
    ----------
    train, val : tuple of Sample
        With equal numbers of channels.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]


def train_stardist(options: TrainOptions, on_progress: Callable[[Progress], None]) -> Path:
    """Train a StarDist network and write its model folder.

    An interrupted training continues from its last epoch when called again with the same options,
    and ends as if it had not been interrupted.

    Parameters
    ----------
    options : TrainOptions
        What to train on, how, and where to write.
    on_progress : callable
        Called after every epoch.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    InputError
        If the data or an option cannot be used, or a checkpoint belongs to another training: to
        other options, or to other contents of what was read.
    ModelError
        If `options.init` cannot be used.
    OutputError
        If `options.out` exists.

    Notes
    -----
    Schmidt et al. 2018 for targets and loss; batch normalisation, averaged weights and the cosine
    schedule are ours. The weights kept are those of the lowest validation loss.
    """
    begin(options)
    data = read_data(options)
    network = _make_network(options, data.train[0].image.shape[0])
    fitting = _prepare(options, data, network)

    def tell(loss: float, score: MeanLoss) -> None:
        on_progress(_progress(fitting, options, data, (loss, score.loss)))

    follow(fitting, options, _origin(options, data), tell)
    _finish(fitting, options, data)
    shutil.rmtree(options.work)
    return options.out


def read_data(options: TrainOptions) -> TrainingData:
    """Read, check and where needed split the images that the options name.

    Parameters
    ----------
    options : TrainOptions
        Names the folders.

    Returns
    -------
    TrainingData
        For training and validation.

    Raises
    ------
    InputError
        If an image or its labels cannot be used.
    """
    pairs = find_pairs(options.images, options.labels)
    if options.val_images is not None and options.val_labels is not None:
        train, val = pairs, find_pairs(options.val_images, options.val_labels)
    else:
        train, val = split_pairs(pairs, options.val_fraction, options.seed)
    samples = read_samples((*train, *val))
    logger.info("%d images to train on, %d to validate", len(train), len(val))
    return TrainingData(samples[: len(train)], samples[len(train) :])


def _origin(options: TrainOptions, data: TrainingData) -> Origin:
    read = sample_contents(data.train, data.val, named=options.val_images is not None)
    if options.init is not None:
        read["model to start from"] = open_model(options.init).sha256
    return Origin(options.deciding(), read)


def _make_network(options: TrainOptions, channels: int) -> StarDistUNet:
    if options.init is not None:
        network = load_network(open_model(options.init)).requires_grad_(requires_grad=True)
    else:
        config = StarDistConfig(
            n_rays=options.n_rays, grid=options.grid, n_channel_in=channels,
            unet_n_depth=options.n_depth, unet_n_filter_base=options.n_filter_base,
            unet_batch_norm=options.batch_norm,
        )  # fmt: skip
        network = StarDistUNet(config)
        initialise(network, options.seed)
    if network.config.n_channel_in != channels:
        raise InputError(
            where=str(options.images), expected=f"{network.config.n_channel_in} channels, as init",
            found=str(channels), remedy="Start from a model for such images, or from none.",
        )  # fmt: skip
    if any(options.size % d for d in network.config.divisor):
        raise InputError(
            where="training option size", expected=f"a multiple of {network.config.divisor}",
            found=str(options.size), remedy="Choose another size.",
        )  # fmt: skip
    return network


def _prepare(options: TrainOptions, data: TrainingData, network: StarDistUNet) -> StarFitting:
    rays, grid = network.config.n_rays, network.config.grid
    batches = Batches(
        data.train, options.size, options.batch, rays, grid, options.augmentation, options.seed
    )
    seen = validation_batches(data.val, options.size, options.batch, rays, grid)

    def loss(network: StarDistUNet, batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.autocast):
            logits, dist = network.raw(batch.image)
        return star_loss(logits, dist, batch).total

    goal = Goal(lambda number, _: batches.make(number), loss, mean_loss(loss, seen))
    return Fitting(network, goal, options, Descent())


def _inference(network: StarDistUNet) -> StarDistUNet:
    return channels_last(network.fuse().requires_grad_(requires_grad=False))


def _progress(
    fitting: StarFitting, options: TrainOptions, data: TrainingData, losses: tuple[float, float]
) -> Progress:
    f1 = None
    if options.score_every and fitting.epoch % options.score_every == 0:
        network = _inference(fitting.averaged())
        f1 = score_network(network, data.val, WATCHING, bfloat16=options.autocast)
    progress = Progress(
        epoch=fitting.epoch, epochs=options.epochs, done=fitting.done, loss=losses[0],
        val_loss=losses[1], best_val_loss=fitting.best_loss,
        learning_rate=fitting.learning_rate, elapsed_s=fitting.elapsed_s, f1=f1,
    )  # fmt: skip
    logger.info("%s", progress)
    return progress


def _finish(fitting: StarFitting, options: TrainOptions, data: TrainingData) -> None:
    network = _inference(fitting.best())
    optimum = optimise_thresholds(network, data.val)
    logger.info("%s, F1 at %s: %s", optimum.thresholds, SCORED_IOUS, optimum.f1)
    card = model_card(options, network.config, optimum, (len(data.train), len(data.val)), fitting)
    save_folder(network, optimum.thresholds, card, options.out)

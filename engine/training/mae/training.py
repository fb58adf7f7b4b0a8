"""Training of a masked autoencoder, from folders of class maps to its folder."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import InputError
from engine.networks.mae import MaskedAutoencoder
from engine.networks.mae_folder import config_values, open_mae
from engine.networks.mae_weights import initialise_mae, load_mae, save_mae
from engine.training.checkpoint import Origin
from engine.training.contents import contents
from engine.training.course import begin, follow
from engine.training.fitting import Descent, Fitting
from engine.training.goal import Goal
from engine.training.mae.batches import MaeBatch, MaeBatches, validation_windows
from engine.training.mae.card import MaeRun, mae_card
from engine.training.mae.data import ClassMap, class_shares, read_class_maps
from engine.training.mae.loss import mae_loss
from engine.training.mae.options import MaeProgress, MaeScores, MaeTrainOptions
from engine.training.mae.scoring import score_mae, scored_batches

logger = logging.getLogger(__name__)

#: Windows that are scored after each epoch, and at the end.
WATCHED, SCORED = 16, 128

# Weight decay is the paper's [004], which has no schedule; the second beta is that of He et al.
# 2022, "Masked autoencoders are scalable vision learners", the cut of gradients that of Dosovitskiy
# et al. 2021, "An image is worth 16x16 words". Our default rate is twenty times the paper's, for
# trainings of minutes: hence the warm-up, and an average over a few hundred steps. An epoch may
# take a while, so that it ends with the time.
DESCENT = Descent(
    warm_up=50, weight_decay=1e-5, betas=(0.9, 0.95), average_decay=0.995, longest_gradient=1.0,
    cut_short=True,
)  # fmt: skip

MaeFitting = Fitting[MaskedAutoencoder, MaeBatch, MaeScores]

# Class maps to train on and to validate.
Maps = tuple[tuple[ClassMap, ...], tuple[ClassMap, ...]]

# A class that hardly occurs would outweigh all others: a thousandth weighs as 32 times a whole.
_LEAST_SHARE = 1e-3


def train_mae(options: MaeTrainOptions, on_progress: Callable[[MaeProgress], None]) -> Path:
    """Train a masked autoencoder and write its folder.

    An interrupted training continues from its last epoch when called again with the same options,
    and ends as if it had not been interrupted.

    Parameters
    ----------
    options : MaeTrainOptions
        What to train on, how, and where to write.
    on_progress : callable
        Called after every epoch.

    Returns
    -------
    Path
        The folder.

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
    Sauer et al. [004]: share of masked patches from U(0.1, 0.9), weighted cross-entropy, uncertain
    pixels and far background left out, AdamW. Averaged weights, schedule, blobs and pieces of
    windows are ours (see `MaeTrainOptions`).
    """
    begin(options)
    train, val = read_class_maps(options)
    logger.info("%d class maps to train on, %d to validate", len(train), len(val))
    weights = torch.tensor(class_weights(options, train))
    fitting = _prepare(options, (train, val), weights)

    def tell(loss: float, scores: MaeScores) -> None:
        on_progress(_progress(fitting, loss, scores))

    follow(fitting, options, _origin(options, (train, val)), tell)
    _finish(fitting, options, (train, val), weights)
    shutil.rmtree(options.work)
    return options.out


def class_weights(options: MaeTrainOptions, train: tuple[ClassMap, ...]) -> tuple[float, ...]:
    """Weights of the classes in the loss: as given, or 1 / √(share), 1 on average over pixels.

    Parameters
    ----------
    options : MaeTrainOptions
        May name them.
    train : tuple of ClassMap
        Where shares are counted.

    Returns
    -------
    tuple of float
        One for each class.

    Notes
    -----
    The source [004] sets .16, .16, .36, .16, .16 for its five classes, cristae most. Ours follow
    the shares, because classes differ from data to data; `options.class_weights` takes any.
    """
    if options.class_weights is not None:
        return options.class_weights
    shares = [max(_LEAST_SHARE, s) for s in class_shares(train, options.config)]
    mean = sum(s**0.5 for s in shares) / sum(shares)
    return tuple(s**-0.5 / mean for s in shares)


def _origin(options: MaeTrainOptions, data: Maps) -> Origin:
    other = "class map" if options.val_labels is None else "validation class map"
    parts = (("class map", data[0]), (other, data[1]))
    read = ((f"{word} {m.name}", (m.labels, m.counts)) for word, part in parts for m in part)
    origin = Origin(options.deciding(), contents(read))
    if options.init is not None:
        origin.data["model to start from"] = open_mae(options.init).sha256
    return origin


def _make_network(options: MaeTrainOptions) -> MaskedAutoencoder:
    if options.init is None:
        network = MaskedAutoencoder(options.config)
        initialise_mae(network, options.seed)
        return network
    folder = open_mae(options.init)
    for name, wanted in config_values(options.config).items():
        found = config_values(folder.config)[name]
        if found != wanted:
            raise InputError(
                where=f"{folder.path}: {name}", expected=str(wanted), found=str(found),
                remedy="Start from a model of that shape and those classes, or from none.",
            )  # fmt: skip
    return load_mae(folder).requires_grad_(requires_grad=True)


def _prepare(options: MaeTrainOptions, data: Maps, weights: Tensor) -> MaeFitting:
    network = _make_network(options)
    batches = MaeBatches(
        data[0], options.config, options.batch, options.piece, options.blobs, options.seed
    )
    windows = validation_windows(data[1], options.config, WATCHED)
    validation = scored_batches(windows, options.config, options.seed)

    def make(number: int, done: float) -> MaeBatch:
        return batches.make(number, pieces=options.piece > 0 and done < options.piece_share)

    def loss(network: MaskedAutoencoder, batch: MaeBatch) -> Tensor:
        return mae_loss(network, batch, weights, half=options.autocast)

    def validate(network: MaskedAutoencoder) -> MaeScores:
        return score_mae(network, validation, weights, half=options.autocast)

    return Fitting(network, Goal(make, loss, validate), options, DESCENT)


def _progress(fitting: MaeFitting, loss: float, scores: MaeScores) -> MaeProgress:
    progress = MaeProgress(
        epoch=fitting.epoch, done=fitting.done, loss=loss, val_loss=scores.loss,
        best_val_loss=fitting.best_loss, elapsed_s=fitting.elapsed_s, scores=scores,
    )  # fmt: skip
    logger.info("%s", progress)
    return progress


def _finish(fitting: MaeFitting, options: MaeTrainOptions, data: Maps, weights: Tensor) -> None:
    train, val = data
    network = fitting.best()
    if options.half:  # scored as they are stored
        network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    windows = validation_windows(val, options.config, SCORED)
    batches = scored_batches(windows, options.config, options.seed)
    scores = score_mae(network, batches, weights, half=options.autocast)
    run = MaeRun(
        maps=len(train), val=len(val), windows=len(windows[0]), weights=tuple(weights.tolist()),
        parameters=sum(p.numel() for p in network.parameters()), threads=torch.get_num_threads(),
    )  # fmt: skip
    save_mae(network, mae_card(options, fitting, scores, run), options.out, half=options.half)

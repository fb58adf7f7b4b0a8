"""Training of a masked autoencoder, from folders of class maps to its folder."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from engine.errors import OutputError
from engine.networks.mae import MaskedAutoencoder
from engine.networks.mae_weights import initialise_mae, save_mae
from engine.training.checkpoint import read_checkpoint, write_checkpoint
from engine.training.mae_batches import MaeBatches, validation_windows
from engine.training.mae_card import mae_card
from engine.training.mae_data import ClassMap, class_shares, read_class_maps
from engine.training.mae_fitting import MaeFitting
from engine.training.mae_options import MaeProgress, MaeScores, MaeTrainOptions
from engine.training.mae_scoring import score_mae, scored_batches

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"

#: Windows that are scored after each epoch, and at the end.
WATCHED, SCORED = 16, 128

# A class that hardly occurs would outweigh all others.
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
        If the data or an option cannot be used, or a checkpoint belongs to another training.
    OutputError
        If `options.out` exists.

    Notes
    -----
    Sauer et al. [004]: share of masked patches from U(0.1, 0.9), weighted cross-entropy, uncertain
    pixels and far background left out, AdamW. Averaged weights, schedule, blobs and pieces of
    windows are ours (see `MaeTrainOptions`).
    """
    if options.out.exists():
        raise OutputError(
            where=str(options.out), expected="no such folder yet", found="one",
            remedy="Choose another --out or remove it.",
        )  # fmt: skip
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    train, val = read_class_maps(options)
    logger.info("%d class maps to train on, %d to validate", len(train), len(val))
    fitting = _prepare(options, train, val)
    work = options.out.with_name(f"{options.out.name}.training")
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = read_checkpoint(work / CHECKPOINT_FILE, options.deciding())
    if checkpoint is not None:
        fitting.restore(checkpoint)
        logger.info("continuing after epoch %d", fitting.epoch)
    while fitting.done < 1 and fitting.stale < options.patience:
        loss, scores = fitting.run_epoch()
        write_checkpoint(fitting.checkpoint(), work / CHECKPOINT_FILE)
        on_progress(_progress(fitting, loss, scores))
    _finish(fitting, (train, val))
    shutil.rmtree(work)
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
    """
    if options.class_weights is not None:
        return options.class_weights
    shares = [max(_LEAST_SHARE, s) for s in class_shares(train, options.config)]
    mean = sum(s**0.5 for s in shares) / sum(shares)
    return tuple(s**-0.5 / mean for s in shares)


def _prepare(
    options: MaeTrainOptions, train: tuple[ClassMap, ...], val: tuple[ClassMap, ...]
) -> MaeFitting:
    network = MaskedAutoencoder(options.config)
    initialise_mae(network, options.seed)
    batches = MaeBatches(
        train, options.config, options.batch, options.piece, options.blobs, options.seed
    )
    windows = validation_windows(val, options.config, WATCHED)
    validation = scored_batches(windows, options.config, options.seed)
    return MaeFitting(network, batches, validation, class_weights(options, train), options)


def _progress(fitting: MaeFitting, loss: float, scores: MaeScores) -> MaeProgress:
    progress = MaeProgress(
        epoch=fitting.epoch, done=fitting.done, loss=loss, best_loss=fitting.best_loss,
        scores=scores, elapsed_s=fitting.elapsed_s,
    )  # fmt: skip
    logger.info("%s", progress)
    return progress


def _finish(fitting: MaeFitting, data: tuple[tuple[ClassMap, ...], tuple[ClassMap, ...]]) -> None:
    options, (train, val) = fitting.options, data
    network = fitting.best()
    if options.half:  # scored as they are stored
        network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    windows = validation_windows(val, options.config, SCORED)
    batches = scored_batches(windows, options.config, options.seed)
    scores = score_mae(network, batches, fitting.weights, half=fitting.half)
    counts = (len(train), len(val), len(windows[0]))
    card = mae_card(fitting, scores, counts, torch.get_num_threads())
    save_mae(network, card, options.out, half=options.half)

"""Training of an ensemble of U-Nets, from images and class labels to an ensemble folder."""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.networks.ensemble_writing import write_ensemble, write_member, write_stardist_member
from engine.networks.model_folder import bundled_models, open_model
from engine.networks.states import stored_state
from engine.networks.unet import UNet
from engine.training.batches import validation_crops
from engine.training.checkpoint import Origin
from engine.training.contents import sample_contents
from engine.training.course import begin, follow
from engine.training.data import Sample
from engine.training.fitting import Descent, Fitting, initialise
from engine.training.goal import Goal, MeanLoss, mean_loss
from engine.training.unet.card import MemberRun, ensemble_card
from engine.training.unet.data import ClassData, read_class_data, subset
from engine.training.unet.loss import (
    ClassBatch,
    ClassBatches,
    class_loss,
    class_weights,
    collate_classes,
)
from engine.training.unet.options import UNetOptions, UNetProgress
from engine.training.unet.scoring import score_ensemble
from engine.training.unet.stardist_member import calibrate

logger = logging.getLogger(__name__)

# Trainings of a few hundred steps are usual here.
DESCENT = Descent(warm_up=40)

UNetFitting = Fitting[UNet, ClassBatch, MeanLoss]


def train_unet(options: UNetOptions, on_progress: Callable[[UNetProgress], None]) -> Path:
    """Train the members of an ensemble, one after the other, and write its folder.

    An interrupted training continues from the last epoch of the member it was at when called again
    with the same options, and ends as if it had not been interrupted.

    Parameters
    ----------
    options : UNetOptions
        What to train on, how, and where to write.
    on_progress : callable
        Called after every epoch.

    Returns
    -------
    Path
        The ensemble folder.

    Raises
    ------
    InputError
        If the data or an option cannot be used, or a checkpoint belongs to another training: to
        other options, or to other contents of what was read.
    ModelError
        If `options.stardist` cannot be used.
    OutputError
        If `options.out` exists.

    Notes
    -----
    Sauer et al. train members with other seeds on other subsets of the annotated data; U-Nets,
    loss and schedule are ours.
    """
    begin(options)
    if options.stardist is not None:
        open_model(options.stardist)
    data = read_class_data(options)
    logger.info("%d images to train on, %d to validate", len(data.train), len(data.val))
    read = sample_contents(data.train, data.val, named=options.val_images is not None)
    validation = _validation(options, data)
    networks: list[UNet] = []
    runs: list[MemberRun] = []
    for member in range(options.members):
        seen = subset(data.train, options, member)
        fitting = _prepare(options, seen, validation, member)
        _fit(fitting, options, member, Origin(options.deciding(member), read), on_progress)
        networks.append(_as_stored(fitting.best(), half=options.half))
        minutes = fitting.elapsed_s / 60
        runs.append(MemberRun(len(seen), fitting.epoch, minutes, fitting.best_loss))
    fused = [network.fuse() for network in networks]
    score = score_ensemble(fused, validation, bfloat16=options.autocast)
    _write(options, data, networks, ensemble_card(options, data, runs, score))
    shutil.rmtree(options.work)
    return options.out


def _prepare(
    options: UNetOptions,
    seen: Sequence[Sample],
    validation: Sequence[ClassBatch],
    member: int,
) -> UNetFitting:
    network = UNet(options.config(seen[0].image.shape[0]))
    initialise(network, options.seed * 1000 + member)
    weights = torch.from_numpy(class_weights(seen, len(options.classes)))

    def loss(network: UNet, batch: ClassBatch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.autocast):
            logits = network(batch.image)
        return class_loss(logits, batch, weights)

    batches = ClassBatches(seen, options, member)
    goal = Goal(lambda number, _: batches.make(number), loss, mean_loss(loss, validation))
    return Fitting(network, goal, options, DESCENT)


def _fit(
    fitting: UNetFitting,
    options: UNetOptions,
    member: int,
    origin: Origin,
    on_progress: Callable[[UNetProgress], None],
) -> None:
    """Train a member to its end, from its checkpoint where there is one."""

    def tell(loss: float, score: MeanLoss) -> None:
        progress = UNetProgress(
            member=member, members=options.members, epoch=fitting.epoch, done=fitting.done,
            loss=loss, val_loss=score.loss, best_val_loss=fitting.best_loss,
            elapsed_s=fitting.elapsed_s,
        )  # fmt: skip
        logger.info("%s", progress)
        on_progress(progress)

    follow(fitting, options, origin, tell, f"member_{member}.pt")


def _validation(options: UNetOptions, data: ClassData) -> tuple[ClassBatch, ...]:
    crops = validation_crops(data.val, options.size)
    starts = range(0, len(crops), options.batch)
    return tuple(collate_classes(crops[k : k + options.batch]) for k in starts)


def _write(options: UNetOptions, data: ClassData, networks: Sequence[UNet], card: str) -> None:
    parts = options.work / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    members = [parts / f"unet_{k}" for k in range(len(networks))]
    for path, network in zip(members, networks, strict=True):
        write_member(path, network.config, _arrays(network, half=options.half))
    if options.stardist is not None:
        members.append(parts / "stardist")
        scaling = calibrate(open_model(options.stardist), data.train, options.seed)
        write_stardist_member(members[-1], _reference(options.stardist, options.out), *scaling)
    write_ensemble(options.out, options.classes, data.train[0].image.shape[0], members, card)


def _reference(model: str, out: Path) -> str:
    """Name a model as the member in ``out/stardist`` does: bundled, or relative to its folder."""
    if model in bundled_models():
        return model
    return os.path.relpath(model, out / "stardist")


@torch.no_grad()
def _as_stored(network: UNet, *, half: bool) -> UNet:
    """Round convolutions to float16 where asked for, so that what is scored is what is stored."""
    for parameter in network.parameters():
        if half and parameter.ndim == 4:
            parameter.copy_(parameter.half())
    return network


def _arrays(network: UNet, *, half: bool) -> dict[str, np.ndarray]:
    """Weights as they are stored: statistics and biases stay float32."""
    return {
        name: (value.half() if half and value.ndim == 4 else value.float()).numpy()
        for name, value in stored_state(network).items()
    }

"""StarDist's object probability made a probability of pixels: Platt scaling on training images.

StarDist's probability is the distance to the object's border, scaled: low along every border, and
in small objects throughout. As it is it would disagree with every mask. Two numbers, fitted by
maximum likelihood, turn its logit into that of "this pixel is object" (Platt 1999, "Probabilistic
outputs for support vector machines").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.device import Launch
from engine.networks.ensemble import Member
from engine.networks.ensemble_runtime import open_member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.networks.model_folder import ModelFolder
    from engine.training.data import Sample

#: Images looked at, and pixels drawn from each.
_IMAGES, _PIXELS = 48, 4096

#: Steps of Newton's method; it converges in about seven.
_STEPS = 30


def calibrate(model: ModelFolder, samples: Sequence[Sample], seed: int) -> tuple[float, float]:
    """Fit the scaling of a StarDist model's logit.

    Parameters
    ----------
    model : ModelFolder
        The model.
    samples : sequence of Sample
        Training images with labels; object where a label is above 0.
    seed : int
        Of the choice of images and pixels.

    Returns
    -------
    scale, shift : float
        The logit of "object" is ``scale * logit + shift``.
    """
    rng = np.random.default_rng(seed)
    member = Member("stardist", model.path, "stardist", model, model.weights, model.sha256)
    network = open_member(member, Launch("cpu", "float32", 1))
    logits, truth = [], []
    for k in rng.permutation(len(samples))[:_IMAGES]:
        image, labels = samples[k].image, samples[k].labels
        missing = [-n % member.divisor for n in image.shape[1:]]
        padded = np.pad(image, [(0, 0), *((0, n) for n in missing)], mode="symmetric")
        answer = network.predict(padded[None].astype(np.float32))[0, 1].cpu().numpy()
        chosen = rng.integers(0, labels.size, _PIXELS)
        logits.append(answer[: labels.shape[0], : labels.shape[1]].ravel()[chosen])
        truth.append(labels.ravel()[chosen] > 0)
    return fit_logistic(np.concatenate(logits), np.concatenate(truth))


def fit_logistic(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Fit ``P(y) = 1 / (1 + exp(-(scale x + shift)))`` by maximum likelihood.

    Parameters
    ----------
    x : ndarray of shape (n,), float
        Logits.
    y : ndarray of shape (n,), bool
        Truth; with some of both, targets are softened as Platt does, so that a fit exists always.

    Returns
    -------
    scale, shift : float
    """
    x = x.astype(np.float64)
    positives = int(y.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2)
    target = np.where(y, high, low)
    design = np.stack([x, np.ones_like(x)], axis=1)
    found = np.array([0.0, np.log(target.mean() / (1 - target.mean()))])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ found, -50, 50)))
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (target - p))
        found += step
        if np.abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])

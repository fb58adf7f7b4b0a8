"""StarDist's probability becomes one of pixels."""

import numpy as np
import pytest

from engine.device import Launch
from engine.networks.ensemble import Member
from engine.networks.ensemble_runtime import open_member
from engine.networks.model_folder import open_model
from engine.training.data import Sample
from engine.training.unet.stardist_member import calibrate, fit_logistic


def test_the_fit_is_the_one_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, 200_000)
    y = rng.random(len(x)) < 1 / (1 + np.exp(-(0.7 * x + 1.3)))
    scale, shift = fit_logistic(x, y)
    assert scale == pytest.approx(0.7, abs=0.02)
    assert shift == pytest.approx(1.3, abs=0.03)


def test_separable_data_give_a_finite_fit() -> None:
    scale, shift = fit_logistic(np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True]))
    assert 0 < scale < 100
    assert abs(shift) < 1


def test_a_calibrated_member_agrees_with_the_mask(nuclei: np.ndarray, model: str) -> None:
    low, high = np.percentile(nuclei, [1, 99.8])
    image = ((nuclei - low) / (high - low)).astype(np.float32)[None]
    # What is bright, in an image of bright nuclei on a dark ground.
    labels = (image[0] > 0.12).astype(np.int32)
    folder = open_model(model)
    scaling = calibrate(folder, [Sample("nuclei", image, labels)], 0)
    plain = Member("s", folder.path, "stardist", folder, folder.weights, "a")
    scaled = Member("s", folder.path, "stardist", folder, folder.weights, "b", *scaling)
    right = []
    for member in (plain, scaled):
        logits = open_member(member, Launch("cpu", "float32", 1)).predict(image[None])[0]
        right.append((logits.argmax(0).numpy() == labels).mean())
    assert right[1] > right[0] + 0.05
    assert right[1] > 0.85

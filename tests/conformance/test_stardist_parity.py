"""The torch network against what Keras gave for the same folders and inputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stardist.geometry import polygons_to_label
from stardist.matching import matching
from stardist.nms import non_maximum_suppression

from engine.networks.model_folder import open_model
from engine.networks.stardist import load_network

KERAS = Path(__file__).parents[2] / "../shared/data/stardist_keras"
REFERENCES = sorted(KERAS.glob("*/reference/*.npz"))

pytestmark = pytest.mark.skipif(not REFERENCES, reason=f"no reference outputs at {KERAS}")


def _dense(model: Path, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Predict as stardist's dense prediction does: pad at the end, predict, cut."""
    folder = open_model(str(model))
    (dy, dx), (gy, gx) = folder.config.divisor, folder.config.grid
    pixels = image if image.ndim == 3 else image[..., None]
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % dy), (0, -width % dx), (0, 0)), mode="reflect")
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(padded, -1, 0)))
    with torch.inference_mode():
        prob, dist = load_network(folder)(tensor[None])
    h, w = -(-height // gy), -(-width // gx)
    return prob[0, 0, :h, :w].numpy(), dist[0, :, :h, :w].permute(1, 2, 0).contiguous().numpy()


@pytest.mark.parametrize("file", REFERENCES, ids=lambda p: f"{p.parents[1].name}-{p.stem}")
def test_maps_and_instances_equal_keras(file: Path) -> None:
    folder = file.parents[1]
    with np.load(file) as reference:
        prob, dist = _dense(folder, reference["input"])
        assert prob.shape == reference["prob"].shape
        assert np.abs(prob - reference["prob"]).max() <= 1e-4
        assert np.abs(dist - reference["dist"]).max() <= 1e-3

        points, scores, rays = non_maximum_suppression(
            dist,
            prob,
            grid=open_model(str(folder)).config.grid,
            b=2,
            prob_thresh=float(reference["prob_thresh"]),
            nms_thresh=float(reference["nms_thresh"]),
        )
        assert set(map(tuple, points)) == set(map(tuple, reference["points"]))
        truth = reference["labels"]
        labels = polygons_to_label(rays, points, shape=truth.shape, prob=scores)
        # Order may differ, and float32 differences may move single border pixels.
        found = matching(truth, labels, thresh=0.99)
        assert (found.fp, found.fn) == (0, 0)

"""How tile settings change the score, on mosaics of validation images in two sizes.

The measure is the whole image: tiles of 1024 with 192 shared and cut half-way, whose pixels are
those of the bare network, since 94 px suffice. Of the settings that lose at most 0.005 F1 at IoU
0.75 in both sizes, the recipe's default is the one that computes the fewest pixels.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from skimage.io import imread
from skimage.transform import rescale
from stardist.matching import matching

from engine.device import Launch
from engine.methods.starconvex import render
from engine.networks.model_folder import ModelFolder, open_model
from engine.stages.base import Frame, Pipeline, Place, Raster
from engine.stages.normalise import Levels, Normalise
from engine.stages.stardist import Candidates, Instances
from tiling import Blend, Tiling

DATA = Path(__file__).parents[2] / "shared" / "data" / "dsb2018" / "fluo" / "val"
RESULT = Path(__file__).parent / "results" / "tiles_val.json"
IOUS = (0.5, 0.75)

#: (tile, overlap, margin, blend)
SETTINGS: tuple[tuple[int, int, int, Blend], ...] = (
    (512, 64, 24, "average"),
    (256, 64, 24, "average"),
    (256, 64, 0, "average"),
    (256, 64, 32, "crop"),
    (512, 64, 16, "average"),
    (512, 96, 32, "average"),
    (256, 80, 32, "average"),
    (224, 56, 24, "average"),
    (256, 96, 32, "average"),
    (256, 128, 48, "average"),
)


def mosaic(side: int, seed: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay normalised images in rows onto a canvas; (Y, X) float32 and labels (Y, X) int32."""
    names = sorted(p.name for p in (DATA / "images").glob("*.png"))
    np.random.default_rng(seed).shuffle(names)
    image, truth = np.zeros((side, side), np.float32), np.zeros((side, side), np.int32)
    y = x = row = 0
    for name in names[:limit]:
        pixels, labels = imread(DATA / "images" / name), imread(DATA / "labels" / name)
        low, high = np.percentile(pixels, [1, 99.8])
        height, width = pixels.shape
        if x + width > side:
            y, x, row = y + row, 0, 0
        if y + height > side or width > side:
            continue
        at = np.s_[y : y + height, x : x + width]
        image[at] = (pixels.astype(np.float32) - low) / (high - low + 1e-20)
        truth[at] = np.where(labels > 0, labels.astype(np.int32) + truth.max(), 0)
        x, row = x + width, max(row, height)
    return image, truth


def segment(image: np.ndarray, model: ModelFolder, tiling: Tiling) -> tuple[np.ndarray, int]:
    """Labels of an image that is normalised already, and the number of tiles."""
    frame = Frame((), (image.shape[0], image.shape[1]), 1, "float32")
    levels = Levels(np.zeros(1, np.float32), np.ones(1, np.float32))
    pipeline = Pipeline(
        (
            Normalise(frame, levels, "refuse"),
            Candidates(frame, model, tiling, model.thresholds.prob, 8),
            Instances(frame, model.thresholds.nms, 64),
        )
    )
    wanted = {"objects": frame.bounds, "probability": frame.bounds}
    place = Place((), Launch("cpu", "bfloat16", 1 if tiling.tile > 512 else 8))
    made = pipeline.run(Raster(frame.bounds, image[None]), wanted, place)
    return render(made.products["objects"], frame.bounds), int(made.notes["network.tiles"])


def score(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """F1 by IoU."""
    return {str(iou): round(float(matching(truth, labels, thresh=iou).f1), 4) for iou in IOUS}


def measure(args: argparse.Namespace, factor: int) -> list[dict[str, object]]:
    """All settings on one mosaic, enlarged by `factor`."""
    model = open_model(args.model)
    image, truth = mosaic(args.side, 0, args.images)
    if factor > 1:
        image = rescale(image, factor, order=1).astype(np.float32)
        truth = np.kron(truth, np.ones((factor, factor), np.int32))
    reference = Tiling(1024, 192, 96, 16, 2, "crop")
    rows: list[dict[str, object]] = []
    named = [("whole", reference)]
    named += [
        (f"{tile}/{overlap}/{margin} {blend}", Tiling(tile, overlap, margin, 16, 2, blend))
        for tile, overlap, margin, blend in SETTINGS
    ]
    for name, tiling in named:
        labels, tiles = segment(image, model, tiling)
        cost = tiles * tiling.tile**2 / image.size
        exact = (tiling.tile / tiling.stride) ** 2
        rows.append(
            {"setting": name, "f1": score(truth, labels), "pixels_computed": round(cost, 3),
             "large_image": round(exact, 3), "objects": int(len(np.unique(labels)) - 1)}
        )  # fmt: skip
        print(f"x{factor}  {name:24} {rows[-1]['f1']}  {exact:.2f} x the pixels", flush=True)
    return rows


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--images", type=int, default=53)
    args = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"needs the validation images at {DATA}, which are absent")
    started = time.perf_counter()
    result = {f"times_{factor}": measure(args, factor) for factor in (1, 2)}
    model = open_model(args.model)
    RESULT.write_text(
        json.dumps(
            {"model": args.model, "weights": model.sha256, "side": args.side,
             "machine": platform.processor() or platform.machine(),
             "versions": {n: version(n) for n in ("torch", "numpy", "stardist")},
             "seconds": round(time.perf_counter() - started, 1), **result},
            indent=2,
        ) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    main()

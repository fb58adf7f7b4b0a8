"""Score the recipe's tile settings on the test images, both blends, beside the Keras reference.

Settings were chosen on validation images (`benchmarks/tiles.py`); nothing is chosen here. Each
image is normalised by its own percentiles, as the recipe does, and tiled as a run tiles it.
"""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from skimage.io import imread
from stardist.matching import matching_dataset
from tiles import segment

from engine.networks.model_folder import open_model
from engine.recipe import StarDistRecipe, load_settings
from tiling import Blend, Tiling

SHARED = Path(__file__).parents[2] / "shared" / "data"
DATA = SHARED / "dsb2018" / "fluo" / "test"
REFERENCE = SHARED / "stardist_keras" / "nuclei_fluo" / "reference" / "test_scores.json"
RESULT = Path(__file__).parent / "results" / "recipe_test.json"
IOUS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)


BLENDS: tuple[Blend, ...] = ("average", "crop")


def tilings() -> dict[str, Tiling]:
    """Tiles of the recipe, and of 256 pixels, with both blends."""
    recipe = load_settings("nuclei").recipe
    if not isinstance(recipe, StarDistRecipe):
        raise TypeError("the recipe nuclei finds objects by StarDist")
    chosen = recipe.tiling
    return {
        f"{tile}/{chosen.overlap}/{chosen.margin} {blend}": Tiling(
            tile, chosen.overlap, chosen.margin, 16, 2, blend
        )
        for tile in (chosen.tile, 256)
        for blend in BLENDS
    }


def main() -> None:
    """Score and save."""
    if not DATA.is_dir():
        raise SystemExit(f"needs the test images at {DATA}, which are absent")
    started = time.perf_counter()
    model = open_model("nuclei-fluo")
    names = sorted(p.name for p in (DATA / "images").glob("*.png"))
    truths = [imread(DATA / "labels" / name).astype(np.int32) for name in names]
    table: dict[str, dict[str, float]] = {}
    for title, tiling in tilings().items():
        found = []
        for name in names:
            pixels = imread(DATA / "images" / name)
            low, high = np.percentile(pixels, [1, 99.8])
            image = (pixels.astype(np.float32) - low) / (high - low + 1e-20)
            found.append(segment(image.astype(np.float32), model, tiling)[0])
        scores = matching_dataset(truths, found, thresh=IOUS, show_progress=False)
        table[title] = {
            str(iou): round(float(s.f1), 4) for iou, s in zip(IOUS, scores, strict=True)
        }
        print(f"{title:24} {table[title]}", flush=True)
    keras = json.loads(REFERENCE.read_text())["scores"]
    table["Keras reference, whole images"] = {str(iou): keras[str(iou)]["f1"] for iou in IOUS}
    print(f"{'Keras reference':24} {table['Keras reference, whole images']}")
    document = {
        "split": "dsb2018/fluo/test",
        "model": {"name": "nuclei-fluo", "weights": model.sha256},
        "precision": "bfloat16",
        "machine": platform.processor() or platform.machine(),
        "versions": {n: version(n) for n in ("torch", "numpy", "stardist")},
        "seconds": round(time.perf_counter() - started, 1),
        "f1": table,
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Score a model folder on whole images of dsb2018/fluo, beside the Keras reference.

    python benchmarks/score_dsb2018.py [MODEL] [--data DIR] [--split val,test] [--out FILE]

Each image is predicted whole, normalised by its percentiles 1 and 99.8, in float32 and bfloat16;
objects of all images are counted together (stardist.matching.matching_dataset). Nothing is chosen
on `test`.
"""

import argparse
import json
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from engine.networks.model_folder import ModelFolder, open_model
from engine.networks.stardist import load_network
from engine.training.data import Sample, find_pairs, read_samples
from engine.training.fitting import channels_last
from engine.training.whole_image import find_objects, predict_maps, scores

ROOT = Path(__file__).parents[1]
SHARED = ROOT / "../shared/data"
REFERENCE = "stardist_keras/nuclei_fluo/reference/test_scores.json"
PACKAGES = ("torch", "stardist", "numpy", "scikit-image")


def score_split(
    model: ModelFolder, samples: tuple[Sample, ...], *, bfloat16: bool
) -> dict[str, Any]:
    """Score one split in one precision.

    Parameters
    ----------
    model : ModelFolder
        The model, at its own thresholds.
    samples : tuple of Sample
        Images and truth.
    bfloat16 : bool
        Whether convolutions run in bfloat16.

    Returns
    -------
    dict
        Scores for each IoU, seconds of the network and megapixels.
    """
    network = channels_last(load_network(model))
    begin = time.perf_counter()
    maps = [predict_maps(network, s.image, bfloat16=bfloat16) for s in samples]
    seconds = time.perf_counter() - begin
    found = [find_objects(m, model.thresholds).labels() for m in maps]
    return {
        "scores": scores([s.labels for s in samples], found),
        "network_s": round(seconds, 2),
        "megapixels": round(sum(s.labels.size for s in samples) / 1e6, 3),
    }


def machine() -> dict[str, Any]:
    """Name what the numbers depend on."""
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def reference(data: Path) -> dict[str, float]:
    """Read F1 of the Keras model on test, by IoU."""
    values = json.loads((data / REFERENCE).read_text())
    return {iou: row["f1"] for iou, row in values["scores"].items()}


def table(result: dict[str, Any]) -> str:
    """Lay out F1 by split and precision beside the reference."""
    keras = result["keras_test_f1"]
    lines = ["split  precision  " + "  ".join(f"IoU {iou:<4}" for iou in keras)]
    for split, precisions in result["splits"].items():
        for precision, entry in precisions.items():
            f1 = "  ".join(f"{row['f1']:.4f}  " for row in entry["scores"])
            lines.append(f"{split:<6} {precision:<10} {f1}")
    lines.append("test   keras      " + "  ".join(f"{f1:.4f}  " for f1 in keras.values()))
    return "\n".join(lines)


def main() -> None:
    """Score, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="nuclei-fluo")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--split", default="val,test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(options.model)
    splits: dict[str, dict[str, Any]] = {}
    for split in options.split.split(","):
        root = options.data / "dsb2018/fluo" / split
        samples = read_samples(find_pairs(root / "images", root / "labels"))
        splits[split] = {
            name: score_split(model, samples, bfloat16=name == "bfloat16")
            for name in ("float32", "bfloat16")
        }
    result = {
        "what": "whole images of dsb2018/fluo, percentiles 1 and 99.8, objects counted together",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "thresholds": {"prob": model.thresholds.prob, "nms": model.thresholds.nms},
        },
        "machine": machine(),
        "splits": splits,
        "keras_test_f1": reference(options.data),
    }
    print(table(result))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


if __name__ == "__main__":
    main()

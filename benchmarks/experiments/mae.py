"""Repair of class maps: table 1, table 2 and the degradation test of Sauer et al., and harm done.

    python benchmarks/experiments/mae.py [--ensemble mitochondria] [--mae mitochondria]
        [--autoencoder FILE] [--em-ensemble DIR --em-mae DIR] [--scenes 10] [--validation 6]
        [--cache scratch/mae] [--out FILE]

a   Phantom mitochondria: scenes of `unseen` ranges and of seeds that no training uses, normal and
    with the stain of each mitochondrion spoiled in one place. Everything goes through
    `engine.run`; other thresholds through the stage, on the maps that the run stored.
b   Serial-section electron micrographs of fly neuropil (em_vnc): slices 11 to 15, where networks
    have seen none but the first 11. Licence CC BY-NC-SA: numbers only.

Threshold and smoothing are chosen on scenes of `seen` ranges and another seed; in b on slices from
which no member learned, but which stopped their training (`--em-validation`; the autoencoder may
have learned from their truth). The source's threshold is 0.4. What was computed lies in the cache:
stopped, it goes on. Intervals are 95 %, by resampling scenes or slices (5 slices say little).

Competitors: "neighbours", a vote of trusted pixels around, in the very patches that are repaired;
"smoothing", labels of short border by total variation of the probabilities, in place of the
source's dense random field; in a, with `--autoencoder`, "cnn-ae": a convolutional autoencoder in
the same patches, the source's competitor but told what is masked. `mae_autoencoder_training.py`
trains it on the maps that the masked one learned from; its docstring has the command.
"joined" is ours, `classes.repair.prior_weight` of a recipe: in uncertain patches the autoencoder's
probabilities, to some power, times those of the ensemble.

On a GPU: `--device cuda --scenes 100 --validation 30`, with models trained there for longer.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, machine, save
from mae_autoencoder import open_autoencoder
from mae_maps import THRESHOLD, Networks
from mae_phantom import TEST_SEED, VALIDATION_SEED, Work, entropy_rise
from mae_reconstruction import reconstruction
from mae_scoring import Case, choose, nearer, score
from mae_tables import show_em, show_phantom

from engine.device import Launch, choose_device, choose_precision
from engine.errors import InputError
from engine.networks.ensemble import open_ensemble
from engine.networks.mae_folder import open_mae
from engine.phantom import CLASSES, VERSION

DATA = Path(__file__).parents[3] / "shared" / "data" / "em_vnc"

#: What the issue asks for, as Sauer et al. report it: Dice by masking ratio, and how much it may
#: be off; the rise of entropy; how much better than chance entropy finds errors.
TABLE_1 = {"0.1": 0.97, "0.25": 0.97, "0.5": 0.95, "0.75": 0.92, "0.9": 0.86}
TABLE_1_TOLERANCE = 0.02
ENTROPY_RISE = 1.6
TIMES_BASE_RATE = 3.0

#: Their table 2, in the order of `PLAUSIBILITY`; the control group is the phantom's own truth,
#: set to be theirs.
TABLE_2 = {
    "initial": [10.90, 2.93, 0.1421, 0.1750, 0.0], "mae": [5.05, 0.18, 0.1141, 0.0871, 0.0036],
    "cnn-ae": [5.51, 0.08, 0.1139, 0.0298, 0.0076], "control": [3.55, 0.26, 0.1214, 0.1009, 0.0],
}  # fmt: skip

ASKED = {
    "table_1": TABLE_1, "table_1_tolerance": TABLE_1_TOLERANCE, "entropy_rise": ENTROPY_RISE,
    "detector_times_base_rate": TIMES_BASE_RATE, "table_2": TABLE_2,
}  # fmt: skip

#: Pixels of the smallest object of table 2: a third of the smallest of 568 true mitochondria.
SMALLEST = 400

#: Slices of em_vnc that networks may learn from; the others are test.
TRAINED = 11


def phantom(networks: Networks, work: Work) -> dict[str, Any]:
    """Piece a."""
    maps = networks.segment(work.stack)
    votes = networks.segment(work.stack, "vote")

    def case(name: str) -> Case:
        return Case(maps, work.planes(name), work.truths(name), CLASSES, SMALLEST)

    swept = choose(case("validation"), networks)
    kinds = {
        name: score(case(name), networks, swept["chosen"]) for name in ("normal", *work.spoiled)
    }
    return {
        "table_1": reconstruction(networks, work.truths("normal")),
        "table_1_seen": reconstruction(networks, work.truths("validation")),
        "entropy_rise": {
            "soft": entropy_rise(work, maps), "vote": entropy_rise(work, votes),
        },
        "validation": swept, "scores": kinds,
    }  # fmt: skip


def electron_micrographs(networks: Networks, options: argparse.Namespace) -> dict[str, Any]:
    """Piece b."""
    images, truth = (tifffile.imread(options.data / f"{name}.tif") for name in ("raw", "classes"))
    test = list(range(TRAINED, len(images)))[: options.slices]
    watched = [int(word) for word in options.em_validation.split(",")][: options.slices]
    chosen = [*test, *watched]
    maps = networks.segment(np.stack([images[k] for k in chosen]))
    classes = networks.ensemble.classes

    def case(planes: range) -> Case:
        return Case(maps, planes, [truth[chosen[p]] for p in planes], classes, None)

    swept = choose(case(range(len(test), len(chosen))), networks)
    tested = case(range(len(test)))
    return {
        "test_slices": test, "validation_slices": watched,
        "table_1": reconstruction(networks, tested.truths),
        "validation": swept, "scores": score(tested, networks, swept["chosen"]),
    }  # fmt: skip


def verdicts(found: dict[str, Any]) -> dict[str, Any]:
    """Whether each target of the issue is met, piece by piece."""
    told: dict[str, Any] = {}
    if "phantom" in found:
        for kind, scores in found["phantom"]["scores"].items():
            told[f"phantom, {kind}"] = _verdict(scores) | {
                "nearer_the_control": nearer(scores["table_2"], "mae"),
                "nearer_the_control, joined": nearer(scores["table_2"], "joined"),
            }
    if "em" in found:
        told["em, test"] = _verdict(found["em"]["scores"])
    if "phantom" in found:
        told |= _phantom_verdict(found["phantom"])
    return told


def _phantom_verdict(part: dict[str, Any]) -> dict[str, Any]:
    """Judge table 1 and the rise of entropy."""
    return {
        "table_1": {
            r: _at_least(part["table_1"]["mae"][r]["micro"][0], asked - TABLE_1_TOLERANCE)
            for r, asked in TABLE_1.items()
        },
        "entropy_rise": {
            f"{mode}, {variant}": _at_least(row["in the ellipse"]["rise"][0], ENTROPY_RISE)
            for mode, rows in part["entropy_rise"].items() for variant, row in rows.items()
        },
    }  # fmt: skip


def _verdict(scores: dict[str, Any]) -> dict[str, Any]:
    """Judge what is asked of any scenes or slices."""
    return {
        "dice_inside_rises": _rises(scores["inside, mae"]),
        "dice_inside_rises, joined": _rises(scores["inside, joined"]),
        "detector": _at_least(scores["detector"]["times_base_rate"][0], TIMES_BASE_RATE),
    }


def _rises(area: dict[str, Any]) -> bool:
    """Whether pooled Dice inside the uncertain patches is higher after repair."""
    return area["gain"][0] is not None and area["gain"][0] > 0


def _at_least(value: float | None, asked: float) -> bool:
    return value is not None and value >= asked


def networks_of(ensemble: str, mae: str, options: argparse.Namespace) -> Networks:
    """Open an ensemble and an autoencoder; they must answer for the same classes."""
    members, repairer = open_ensemble(ensemble), open_mae(mae)
    if members.classes != repairer.config.classes:
        raise InputError(
            where=f"--mae {mae}", expected=", ".join(members.classes),
            found=", ".join(repairer.config.classes),
            remedy="Name an autoencoder for the classes of the ensemble.",
        )  # fmt: skip
    device = choose_device(options.device)
    launch = Launch(device, choose_precision(options.precision, device), options.launch)
    return Networks(members, repairer, launch, options.cache, options.cluster)


def beside(networks: Networks, autoencoder: Path | None) -> Networks:
    """Set a convolutional autoencoder, where there is one, beside the networks."""
    if autoencoder is None:
        return networks
    classes, device = networks.ensemble.classes, networks.launch.device
    return replace(networks, autoencoder=open_autoencoder(autoencoder, classes, device))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ensemble", default="mitochondria")
    parser.add_argument("--mae", default="mitochondria")
    parser.add_argument("--autoencoder", type=Path, help="convolutional one, to compare with in a")
    parser.add_argument("--em-ensemble", help="without it, no piece b")
    parser.add_argument("--em-mae")
    parser.add_argument("--em-validation", default="9,10", help="slices that choose settings")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of raw.tif and classes.tif")
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--validation", type=int, default=6, help="scenes to choose settings on")
    parser.add_argument("--size", type=int, default=512, help="side of a scene, pixels")
    parser.add_argument("--slices", type=int, help="of em_vnc at the most; all where not given")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--launch", type=int, default=8, help="windows at once")
    parser.add_argument("--cluster", default="local", help="or the address of a scheduler")
    parser.add_argument("--cache", type=Path, default=Path("scratch/mae"))
    parser.add_argument("--out", type=Path, default=RESULTS / "mae_experiments.json")
    parser.add_argument("--skip-phantom", action="store_true", help="piece b alone")
    options = parser.parse_args(words)
    if (options.em_ensemble is None) != (options.em_mae is None):
        parser.error("--em-ensemble and --em-mae go together")
    return options


def facts(networks: Networks) -> dict[str, Any]:
    """Say what the numbers come from."""
    other = networks.autoencoder
    compared = {} if other is None else {
        "cnn-ae": {
            "name": other.path.name, "sha256": other.sha256, "bytes": other.path.stat().st_size,
        },
    }  # fmt: skip
    return {
        "ensemble": {
            "name": networks.ensemble.name, "sha256": networks.ensemble.sha256,
            "members": len(networks.ensemble.members), "bytes": networks.ensemble.weights_bytes,
        },
        "mae": {
            "name": networks.mae.name, "sha256": networks.mae.sha256,
            "bytes": networks.mae.weights_bytes,
        },
        "precision": networks.launch.precision, "device": networks.launch.device,
    } | compared  # fmt: skip


def main(words: list[str] | None = None) -> None:
    """Run, print and save."""
    options = arguments(words)
    found: dict[str, Any] = {
        "what": __doc__, "machine": machine(), "asked": ASKED, "threshold": THRESHOLD,
    }  # fmt: skip
    if options.out.exists():  # a piece that is left out now stays as it was
        stood = json.loads(options.out.read_text())
        found |= {name: stood[name] for name in ("phantom", "em") if name in stood}
    if not options.skip_phantom:
        networks = networks_of(options.ensemble, options.mae, options)
        networks = beside(networks, options.autoencoder)
        work = Work.draw(options.scenes, options.validation, options.size)
        found["phantom"] = facts(networks) | {
            "version": VERSION, "seeds": [TEST_SEED, VALIDATION_SEED],
            "scenes": options.scenes, "size": options.size,
        } | phantom(networks, work)  # fmt: skip
        print(show_phantom(found["phantom"], ASKED), flush=True)
    if options.em_ensemble is not None:
        networks = networks_of(options.em_ensemble, options.em_mae, options)
        found["em"] = facts(networks) | electron_micrographs(networks, options)
        print(show_em(found["em"]), flush=True)
    found["targets_met"] = verdicts(found)
    print(found["targets_met"])
    print(save(options.out, found))


if __name__ == "__main__":
    main()

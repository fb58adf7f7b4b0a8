"""Do flags pile up on the lines of the defenses: density against the distance to them.

    python benchmarks/flag_density.py [--defenses 32] [--area 1024,1536] [--strength X] [--out FILE]

A defense is one polynomial per block of 64 pixels, and repeats every 256: at the lines between
blocks its slope jumps, at those between fields its value may. The stage runs exactly, with the
settings of the recipe nuclei-flags, on a mosaic of validation images of dsb2018/fluo; images are
cut to sizes drawn at random, so that their own edges lie anywhere on the grid, and objects near
such an edge are left out. For blocks and for fields, by the distance of an object's centre to the
nearest line:

    votes       share of the defenses against an object, in percent: mean over objects
    suspects    objects flagged as false positives, in percent
    missing     objects flagged as false negatives, for each hundred objects
    near / far  votes within `NEAR` pixels of a line over those elsewhere, with a 95 % interval by
                resampling objects
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS, machine, save
from flag_case import DATA, Case
from resampling import drawn, limits
from skimage.io import imread

from engine.recipe import StarDistRecipe, load_settings

if TYPE_CHECKING:
    from engine.stages.flags import Flagged

#: Sides between lines, and the edges of the bins of distance, in pixels.
LINES = {
    "blocks": (64, (0, 4, 8, 16, 24, 33)),
    "fields": (256, (0, 8, 16, 32, 64, 129)),
}

#: Draws of objects for an interval.
DRAWS = 2000

#: Distance within which an object is near a line.
NEAR = 8

#: Objects so near to an edge of an image in the mosaic are left out.
CLEAR = 16


def mosaic(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lay images of random sizes in rows: (1, Y, X) float32; and the pixels near an edge of one."""
    names = sorted(DATA.glob("*.png"))
    if not names:
        raise SystemExit(f"needs the validation images at {DATA}, which are absent")
    rng = np.random.default_rng(seed)
    canvas, edge = np.zeros(shape, np.float32), np.zeros(shape, bool)
    y = 0
    while y < shape[0]:
        height, x = int(rng.integers(180, 256)), 0
        edge[max(0, y - CLEAR) : y + CLEAR] = True
        while x < shape[1]:
            pixels = imread(names[rng.integers(len(names))]).astype(np.float32)
            low, high = np.percentile(pixels, [1, 99.8])
            width = int(rng.integers(180, 256))
            part = ((pixels - low) / (high - low + 1e-20))[:height, :width]
            place = canvas[y : y + part.shape[0], x : x + part.shape[1]]
            place[:] = part[: place.shape[0], : place.shape[1]]
            edge[y : y + height, max(0, x - CLEAR) : x + CLEAR] = True
            x += part.shape[1]
        y += height
    return canvas[None], edge


def distance(points: np.ndarray, side: int) -> np.ndarray:
    """Pixels from points (y, x) to the nearest line at a whole multiple of `side`, on any axis."""
    beyond = points % side
    nearest: np.ndarray = np.minimum(beyond, side - beyond).min(axis=1)
    return nearest


def ratio(values: np.ndarray, near: np.ndarray) -> list[float] | None:
    """Mean of those near over the mean of the others, and its 95 % interval, by resampling.

    None where a drawing of the objects has no vote on one side: too few have votes to tell.
    """
    draws = [np.arange(len(values)), *drawn(len(values), DRAWS)]
    means = np.array([(values[d] @ near[d], values[d] @ ~near[d]) for d in draws])
    counts = np.array([(near[d].sum(), (~near[d]).sum()) for d in draws])
    if not ((means > 0) & (counts > 0)).all():
        return None
    found = means[:, 0] / counts[:, 0] / (means[:, 1] / counts[:, 1])
    return [round(float(v), 3) for v in (found[0], *limits(found[1:]))]


def density(flagged: Flagged, edge: np.ndarray, defenses: int) -> dict[str, Any]:
    """Lay votes and flags out by the distance to lines."""
    clear = ~edge[tuple(flagged.objects.points.T)]
    points, votes = flagged.objects.points[clear], flagged.votes.votes[clear] / defenses
    suspect = flagged.suspect[clear]
    missing = flagged.extras.points[~edge[tuple(flagged.extras.points.T)]]
    result: dict[str, Any] = {
        "objects": len(points), "suspects": int(suspect.sum()), "missing": len(missing),
    }  # fmt: skip
    for name, (side, edges) in LINES.items():
        away, others = distance(points, side), distance(missing, side)
        rows = []
        for low, high in pairwise(edges):
            here = (away >= low) & (away < high)
            count = int(here.sum())
            rows.append(
                {
                    "from": low, "below": high, "objects": count,
                    "votes": round(100 * float(votes[here].sum()) / max(1, count), 2),
                    "suspects": round(100 * int(suspect[here].sum()) / max(1, count), 2),
                    "missing": round(
                        100 * int(((others >= low) & (others < high)).sum()) / max(1, count), 2
                    ),
                }
            )  # fmt: skip
        result[name] = {"rows": rows, "near / far": ratio(votes, away < NEAR)}
    return result


def show(result: dict[str, Any]) -> str:
    """Lay the tables out."""
    lines = [f"{n}: {result[n]}" for n in ("objects", "suspects", "missing", "defenses")]
    for name, (side, _) in LINES.items():
        lines.append(f"\n{name} of {side} pixels   objects  votes %  suspects %  missing %")
        lines += [
            f"{row['from']:8} to {row['below'] - 1:3} px {row['objects']:11}"
            f"{row['votes']:9.2f}{row['suspects']:12.2f}{row['missing']:11.2f}"
            for row in result[name]["rows"]
        ]
        found = result[name]["near / far"]
        told = "too few votes" if found is None else f"{found[0]} ({found[1]} to {found[2]})"
        lines.append(f"votes within {NEAR} px over those elsewhere: {told}")
    return "\n".join(lines)


def main() -> None:
    """Run the stage once, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bank", default="nuclei-fluo")
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--defenses", type=int, default=32, help="the first of the bank")
    parser.add_argument("--area", default="1024,1536", help="height and width of the mosaic")
    parser.add_argument("--strength", type=float, help="instead of the recipe's")
    parser.add_argument("--out", type=Path, default=RESULTS / "flag_density.json")
    options = parser.parse_args()
    recipe = load_settings("nuclei-flags", []).recipe
    if not isinstance(recipe, StarDistRecipe) or recipe.flags is None:
        raise TypeError("the recipe nuclei-flags flags")
    flags = recipe.flags
    if options.strength is not None:
        flags = flags.model_copy(update={"strength": options.strength})
    for name in ("strength", "tau", "min_votes", "risk"):
        setattr(options, name, getattr(flags, name))
    height, width = (int(n) for n in options.area.split(","))
    image, edge = mosaic((height, width))
    case = Case(options, image)
    case.settings = flags
    bank = case.first(options.defenses)
    start = time.process_time()
    flagged, notes = case.flag(bank, "never")
    result = {
        "what": __doc__, "machine": machine(), "bank": case.bank.sha256, "defenses": len(bank),
        "area": [height, width], "near": NEAR, "clear": CLEAR, "tiles": notes["tiles"],
        "settings": {n: getattr(flags, n) for n in ("strength", "tau", "merge", "min_votes")},
        "processor_seconds": round(time.process_time() - start, 1),
    } | density(flagged, edge, len(bank))  # fmt: skip
    print(show(result))
    print(save(options.out, result))


if __name__ == "__main__":
    # Before the network opens: one thread, as a worker has.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

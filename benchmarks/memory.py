"""Peak memory of a worker: whether it grows with the image, and what plan projects.

``python benchmarks/memory.py [--sides 4096,16384] [--region 2048,4096] [--model NAME]`` runs the
nuclei recipe on mosaics of real nuclei, each in fresh workers, regions of the same size. Asked
are at most 10 % more for the large image, and never more than projected.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, machine, make_image, save

import engine

WORKERS = 2

#: What the issue asks for: growth from the first side to the last.
ASKED_GROWTH = 0.10


def measure(image: Path, out: Path, region: int, model: str) -> dict[str, Any]:
    """Run once; what a worker took at most, what was projected, and how fast it was."""
    settings = [
        f"segment.model={model}", f"resources.workers={WORKERS}", f"resources.region={region}",
    ]  # fmt: skip
    start = time.perf_counter()
    outcome = engine.run(image, out, overrides=settings)
    if not outcome.complete:
        raise RuntimeError(f"the run failed: {outcome.failures}")
    report = outcome.report
    return {
        "region": region,
        "regions": report["regions"]["regions"],
        "objects": report["objects"],
        "peak_bytes": report["worker_bytes_peak"],
        "projected_bytes": report["worker_bytes_projected"],
        "seconds": round(time.perf_counter() - start, 2),
        "seconds_of_passes": report["seconds"],
        "seams": report["seams"],
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sides", default="4096,16384")
    parser.add_argument("--region", default="2048,4096")
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--folder", type=Path, help="for images and results; a temporary one else")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json")
    options = parser.parse_args()
    sides = [int(n) for n in options.sides.split(",")]
    result: dict[str, Any] = {"what": __doc__, "machine": machine(), "runs": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for region in map(int, options.region.split(",")):
            peaks = []
            for side in sides:
                image = make_image(Path(name), side)
                row = measure(
                    image, Path(name) / f"{side}-{region}.ome.zarr", region, options.model
                )
                peaks.append(row["peak_bytes"])
                result["runs"].append({"side": side} | row)
                print(
                    f"{side:6}^2, regions of {region}: {row['peak_bytes'] / 2**30:.2f} GiB of "
                    f"{row['projected_bytes'] / 2**30:.2f} GiB projected, {row['seconds']:.0f} s"
                )
            growth = peaks[-1] / peaks[0] - 1
            result[f"growth, regions of {region}"] = round(growth, 4)
            print(f"growth: {growth:+.1%} (asked: at most {ASKED_GROWTH:+.0%})")
    print(save(options.out, result))


if __name__ == "__main__":
    main()

"""The whole chain, stage by stage: the recipe nuclei-refined on frames of 4000 x 3000 pixels.

    python benchmarks/chain.py [--frames 1] [--defenses 12] [--workers 2] [--out FILE]

StarDist, flags by defenses, ensemble entropy with StarDist as a member, repair by a masked
autoencoder, pyramids; with the bundled networks, on mosaics of real nuclei. Seconds of passes are
those of the clock, passes that need not wait for each other run side by side; seconds of stages
are those inside workers, summed, which hinder each other where cores are few. The flags pass
grows in proportion to the defenses: `all defenses` scales it to the whole bank.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import tifffile
from common import PIXEL_SIZE_UM, RESULTS, machine, save

import engine
from engine.demo.full import turned_frames
from engine.networks.defense_bank import open_bank

BANK = "nuclei-fluo"


def make_stack(folder: Path, frames: int) -> Path:
    """Ingest frames of real nuclei, each turned otherwise; return their path."""
    source, stacked = folder / "frames.tif", folder / "frames.ome.zarr"
    tifffile.imwrite(source, turned_frames(frames), metadata={"axes": "TYX"})
    engine.ingest(source, stacked, pixel_size_um=PIXEL_SIZE_UM)
    return stacked


def measure(stack: Path, out: Path, defenses: int, workers: int) -> dict[str, Any]:
    """Run once; what each pass and each stage took."""
    settings = [f"flags.defenses={defenses}", f"resources.workers={workers}"]
    outcome = engine.run(stack, out, "nuclei-refined", overrides=settings)
    if not outcome.complete:
        raise RuntimeError(f"the run failed: {outcome.failures}")
    report = outcome.report
    names = (
        *("seconds", "seconds_total", "stage_seconds", "task_seconds", "tiles", "objects", "seams"),
        *("class_seams", "repairs", "suspects", "worker_bytes_peak", "worker_bytes_projected"),
    )
    return {name: report[name] for name in names}


def show(found: dict[str, Any], frames: int, scale: float) -> str:
    """Tell the seconds of each stage, and its share."""
    stages: dict[str, float] = found["stage_seconds"]
    total = sum(stages.values())
    lines = [f"{frames} frames in {found['seconds_total']:.0f} s; seconds of stages in workers:"]
    for name, seconds in sorted(stages.items(), key=lambda one: -one[1]):
        each = f"{seconds / frames:8.1f} s a frame, {seconds / total:6.1%}"
        more = f"; all defenses {scale * seconds / frames:.0f} s" if name == "flags" else ""
        lines.append(f"  {name:<12}{each}{more}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--defenses", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "chain.json")
    options = parser.parse_args()
    bank = len(open_bank(BANK))
    with tempfile.TemporaryDirectory() as name:
        stack = make_stack(Path(name), options.frames)
        out = Path(name) / "refined.ome.zarr"
        found = measure(stack, out, options.defenses, options.workers)
    print(show(found, options.frames, bank / options.defenses))
    result = {
        "what": __doc__, "machine": machine(), "frames": options.frames,
        "defenses": options.defenses, "defenses_of_the_bank": bank, **found,
    }  # fmt: skip
    print(save(options.out, result))


if __name__ == "__main__":
    main()

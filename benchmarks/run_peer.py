"""Run one peer on one case, in this process.

    python benchmarks/run_peer.py NAME CASE.json THREADS      prints one line of JSON

Timed is the way from the normalised image in memory to labels in memory: no reading, no writing,
no pyramids, no tables. The network is loaded and warm before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Case, peak_bytes
from peers import dask_peer, monai_peer, stardist_peer

PEERS = {
    "MONAI SlidingWindowInferer": monai_peer.sliding,
    "MONAI PatchInferer + ZarrAvgMerger": monai_peer.merging,
    "stardist BlockND.cover": stardist_peer.blocks,
    "stardist BlockND.cover, dealt": stardist_peer.blocks_dealt,
    "dask map_overlap": dask_peer.mapped,
}


def measure(name: str, case: Case, threads: int) -> dict[str, Any]:
    """Seconds, objects and peak memory of one peer."""
    image = np.load(case.image)
    network = case.network()
    torch.set_num_threads(threads)
    for _ in range(2):
        network.predict(np.zeros((case.launch, 1, case.tile, case.tile), np.float32))
    PEERS[name](case, image[:512, :512].copy(), network, threads)
    torch.set_num_threads(threads)
    start = time.perf_counter()
    labels = PEERS[name](case, image, network, threads)
    seconds = time.perf_counter() - start
    objects = len(np.unique(labels)) - 1
    return {"seconds": seconds, "objects": objects, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    # What the peers say on standard output is theirs; ours is the last line.
    with Path(os.devnull).open("w") as nowhere:
        answer, sys.stdout = sys.stdout, nowhere
        said = measure(sys.argv[1], Case.load(Path(sys.argv[2])), int(sys.argv[3]))
        sys.stdout = answer
    print(json.dumps(said))

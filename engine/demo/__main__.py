"""Run a demo: ``python -m engine.demo nuclei | mitochondria | full [FOLDER]``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from engine.demo import full, mitochondria, nuclei
from engine.demo.common import CONSOLE, prepare_folder

#: What a demo does in its folder; whether it is complete.
DEMOS = {"nuclei": nuclei.main, "mitochondria": mitochondria.main, "full": full.main}

#: Where each leaves what it makes, if nothing else is said.
FOLDERS = {"nuclei": "demo", "mitochondria": "demo-mitochondria", "full": "demo-full"}


def main(words: list[str]) -> int:
    """Run the demo that is named; return the exit code."""
    if not 1 <= len(words) <= 2 or words[0] not in DEMOS:
        CONSOLE.print(f"Name one of {', '.join(DEMOS)}, and a folder if you like.")
        return 2
    folder = Path(words[1] if len(words) == 2 else FOLDERS[words[0]])
    if not prepare_folder(folder):
        return 2
    started = time.perf_counter()
    if not DEMOS[words[0]](folder):
        return 3
    CONSOLE.print(f"everything took {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

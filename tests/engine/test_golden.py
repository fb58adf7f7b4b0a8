"""Results of a small run are those of the stored file, or a version was raised.

Records of old runs are trusted as long as versions agree. Whoever changes what a stage or a pass
writes therefore raises its version; these tests fail where that was forgotten. A new file is
written by ``python -m pytest tests/engine/test_golden.py --golden``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from journeys import Runner, make_bank, read, save_image
from semantics import make_ensemble, make_mae

from engine.ledger import Ledger
from engine.networks.model_folder import open_model
from engine.store import Location

GOLDEN = Path(__file__).parent / "golden.npz"
HOW = "python -m pytest tests/engine/test_golden.py --golden"

#: Which versions stand for an output; the first is that of what wrote it.
VERSION_OF = {
    "levels": "pass.statistics or stage.normalise",
    "probability": "stage.network, stage.normalise or pass.regions",
    "labels": "stage.instances or pass.labels",
    "table": "stage.instances or pass.labels",
    "votes": "flags.stage or pass.flags",
    "probability-1": "pass.pyramid",
    "labels-1": "pass.pyramid",
    "copy": "pass.copy",
    "classes_initial": "stage.ensemble, stage.entropy or pass.regions",
    "entropy": "stage.entropy, stage.ensemble or pass.regions",
    "classes": "mae.stage or pass.repair",
    "repairs": "mae.stage or pass.repair",
    "cells": "pass.join or pass.objects",
    "parts": "pass.join or pass.objects",
    "seams": "pass.seams",
}

#: A class map with all that may follow it, by networks with random weights.
SEMANTIC = """
method: semantic
tiling: {{tile: 64, overlap: 24, margin: 8}}
classes:
  ensemble: {ensemble}
  precision: float32
  repair: {{model: {mae}, threshold: 0.6}}
  objects: {{name: cells, classes: [inside], connectivity: 4, min_area: 4}}
"""


@dataclass(frozen=True)
class Found:
    """Versions of what computed, and what came out."""

    versions: dict[str, str]
    outputs: dict[str, np.ndarray]


def versions(out: Path) -> dict[str, str]:
    """Versions among the parts of a run."""
    parts = Ledger(Location.parse(out)).read_run()["parts"]
    return {
        k: v
        for k, v in parts.items()
        if k.startswith(("stage.", "pass.", "flags.stage", "mae.stage"))
    }


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray, run_recipe: Runner, model: str
) -> Found:
    """What a run of each recipe gives today, in float32, on a part of a real image."""
    place = tmp_path_factory.mktemp("golden")
    image = save_image(place / "image.zarr", nuclei[:384, :320])
    settings = ("segment.precision=float32", "storage.with_image=false", "storage.chunk=64")
    result, copy = place / "result.ome.zarr", place / "copy.ome.zarr"
    bank = make_bank(place / "bank.safetensors", open_model(model).sha256, 3)
    flags = (f"flags.bank={bank}", "flags.tau=4")
    run_recipe(image, result, *settings, *flags, "storage.shard=128")
    run_recipe(image, copy, recipe="identity")
    (levels,) = (result / ".tilewright" / "statistics").glob("levels-*.npz")
    with np.load(levels) as file:
        outputs = {"levels": np.concatenate([np.ravel(file[name]) for name in sorted(file)])}
    for name in ("maps/probability", "labels/nuclei"):
        for level in (0, 1):
            key = name.split("/")[1].replace("nuclei", "labels") + ("-1" if level else "")
            outputs[key] = read(result, f"{name}/{level}")
    table = pq.read_table(result / "tables" / "nuclei.parquet").to_pandas().sort_values("id")
    outputs["votes"] = table.pop("votes").to_numpy()
    table = table[table.columns[: table.columns.get_loc("area_um2") + 1]]
    outputs["table"] = table.select_dtypes("number").to_numpy(np.float64)
    outputs["copy"] = read(copy, "1")
    classes = place / "classes.ome.zarr"
    outputs |= semantic(place, image, classes, run_recipe)
    return Found(versions(result) | versions(copy) | versions(classes), outputs)


def semantic(place: Path, image: Path, out: Path, run_recipe: Runner) -> dict[str, np.ndarray]:
    """Outputs of a run that makes a class map, repairs it and makes objects of it."""
    names = ("background", "membrane", "inside")
    networks = {
        "ensemble": make_ensemble(place / "ensemble", names, 3),
        "mae": make_mae(place / "mae", names),
    }
    (place / "classes.yaml").write_text(SEMANTIC.format(**networks))
    settings = ("storage.chunk=64", "storage.shard=128", "resources.region=128")
    report = run_recipe(image, out, *settings, recipe=str(place / "classes.yaml")).report
    outputs = {name: read(out, f"labels/{name}/0") for name in ("classes_initial", "classes")}
    outputs |= {"entropy": read(out, "maps/entropy/0"), "cells": read(out, "labels/cells/0")}
    outputs["seams"] = np.array(list(report["class_seams"].values()))
    for key, name in (("repairs", "repairs"), ("parts", "cells")):
        table = pq.read_table(out / f"tables/{name}.parquet").to_pandas()
        table = table.sort_values(["y0", "x0", "y1", "x1"])
        outputs[key] = table.select_dtypes("number").to_numpy(np.float64)
    return outputs


@pytest.fixture(scope="module")
def golden(found: Found, request: pytest.FixtureRequest) -> Found:
    """What the file holds; with ``--golden`` the file is written first."""
    if request.config.getoption("golden"):
        np.savez_compressed(GOLDEN, versions=np.array(json.dumps(found.versions)), **found.outputs)  # type: ignore[arg-type]
    with np.load(GOLDEN) as file:
        outputs = {name: file[name] for name in file.files}
    return Found(json.loads(str(outputs.pop("versions"))), outputs)


def test_the_file_is_of_these_versions(found: Found, golden: Found) -> None:
    assert found.versions == golden.versions, f"write the golden file anew: {HOW}"


def same(name: str, now: np.ndarray, then: np.ndarray) -> bool:
    """Whether two outputs agree but for what sums of floats differ by between processors."""
    if now.shape != then.shape or now.dtype != then.dtype:
        return False
    if name in ("table", "repairs", "parts"):
        return bool(np.allclose(now, then, rtol=1e-3, atol=0.05))
    if name.startswith("probability"):
        return bool(np.abs(now.astype(int) - then.astype(int)).max() <= 1)
    if name == "votes":
        # An object at the very edge of tau may be lost on one processor and found on another.
        return bool(np.mean(now != then) <= 0.02)
    if name.startswith(("labels", "classes", "cells")):
        return bool(np.mean(now != then) <= 1e-4)
    if name == "entropy":
        return bool(np.mean(np.abs(now.astype(int) - then.astype(int)) > 1) <= 1e-4)
    return bool(np.allclose(now, then, rtol=1e-6))


@pytest.mark.parametrize("name", VERSION_OF)
def test_an_output_that_changed_has_a_new_version(found: Found, golden: Found, name: str) -> None:
    now, then = found.outputs[name], golden.outputs[name]
    assert now.any()
    assert same(name, now, then), f"raise the version of {VERSION_OF[name]}, then: {HOW}"


def test_every_version_stands_for_an_output(found: Found) -> None:
    named = {part for text in VERSION_OF.values() for part in text.replace(",", "").split()}
    assert set(found.versions) <= named
